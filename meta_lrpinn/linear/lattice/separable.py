"""The inverse of the weak form of the separable model that is nearest to a model.

Layer and envelope are products over the axes already. For m ≈ Σ_d μ_d(x_d) the whole of K
is separable,

    K ≈ Σ_d C_d ⊗ Π_{e≠d} B_e,      C = ω² ∫ μ s φ* φ − ∫ ∂φ* ∂φ/s,   B = ∫ s φ* φ,

and is inverted axis by axis (fast diagonalisation, Lynch, Rice and Thomas 1964, Numer.
Math. 6, 185): with B⁻¹C = V Λ V⁻¹ along each axis, K⁻¹ = (⊗V) (Σ_d λ_d)⁻¹ (⊗(BV)⁻¹). For a
homogeneous model, or one that varies with depth alone, that is the solution.
"""

import functools
from collections.abc import Callable

import numpy as np

from meta_lrpinn.linear.lattice.operator import WeakForm, contract


def separable_inverse(form: WeakForm) -> Callable[[np.ndarray], np.ndarray]:
    """Inverse of the weak form of a separable model near a problem's.

    Args:
        form: The weak form.

    Returns:
        Linear function of right-hand sides (n_sources, *lattice.shape), complex.
    """
    there, back, eigenvalues = [], [], []
    for axis, part in zip(form.discretisation.axes, separable_parts(form), strict=True):
        medium = (axis.tests * part) @ axis.waves.T * form.discretisation.omega**2
        values, vectors = np.linalg.eig(np.linalg.solve(axis.mass, medium - axis.stiffness))
        eigenvalues.append(values)
        back.append(vectors)
        there.append(np.linalg.inv(axis.mass @ vectors))
    total = functools.reduce(lambda a, b: a[..., None] + b, eigenvalues)

    def inverse(columns):
        return contract(contract(columns, there, first=1) / total, back, first=1)

    return inverse


def separable_parts(form: WeakForm) -> list[np.ndarray]:
    """Functions μ_d of one coordinate at the quadrature points, Σ_d μ_d ≈ m [s²/km²].

    The means over the other axes, weighted as waves are in the layer, less what is in all
    of them: exact where m is such a sum.
    """
    axes = form.discretisation.axes
    ndim = len(axes)
    # Mean values of the hat functions of the model's nodes.
    means = []
    for axis in axes:
        quadrature = np.real(axis.weights) * axis.envelope**2
        means.append(quadrature @ axis.interpolation / quadrature.sum())
    parts = []
    for index, axis in enumerate(axes):
        part = form.slowness
        for other in reversed(range(ndim)):
            if other != index:
                part = np.tensordot(part, means[other], axes=(other, 0))
        parts.append(axis.interpolation @ part)
    mean = form.slowness
    for own in means:
        mean = np.tensordot(own, mean, axes=(0, 0))
    return [part - (1 - 1 / ndim) * mean for part in parts]
