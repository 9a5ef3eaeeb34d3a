"""Approximate inverses of the weak form: a separable model's, and one on a coarse grid.

**Separable.** Layer and envelope are products over the axes already. For m ≈ Σ_d μ_d(x_d)
the whole of K is separable,

    K ≈ Σ_d C_d ⊗ Π_{e≠d} B_e,      C = ω² ∫ μ s φ* φ − ∫ ∂φ* ∂φ/s,   B = ∫ s φ* φ,

and is inverted axis by axis (fast diagonalisation, Lynch, Rice and Thomas 1964, Numer.
Math. 6, 185): with B⁻¹C = V Λ V⁻¹ along each axis, K⁻¹ = (⊗V) (Σ_d λ_d)⁻¹ (⊗(BV)⁻¹). For a
homogeneous model, or one that varies with depth alone, that is the solution.

**Coarse.** Waves that travel far see the whole model, and no model that is separable. What
is left of them is solved for on a grid of a few points per shortest wavelength, with the
stencils of `linear.stencils` and sparse factors, in the same absorbing layer:

    P = B⁻¹ Φᴴ L⁻¹ Ψᵀ Φ B⁻¹.

B is the mass matrix of the waves (a product over the axes), Φ their values on the grid,
Ψ its hat functions and L its operator. It need not resolve what varies between its points:
squared slowness is smoothed, and short waves are left to the separable inverse.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import scipy.ndimage

from meta_lrpinn.linear import interpolation, stencils
from meta_lrpinn.linear.lattice.operator import (
    Discretisation,
    WeakForm,
    along,
    contract,
    waves_at,
)
from meta_lrpinn.physics import absorbing

# Points of the coarse grid per shortest wavelength: whole Marmousi then takes 10, 17 and 35
# iterations at 10, 20 and 30 Hz.
POINTS = 5.0
# Standard deviation of the smoothing, in steps of the grid; not tuned.
_SMOOTHING = 1 / 3


def separable_inverse(form: WeakForm) -> Callable[[np.ndarray], np.ndarray]:
    """Inverse of the weak form of the separable model that is nearest to a problem's.

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
    total = functools.reduce(np.add.outer, eigenvalues)

    def inverse(columns):
        return contract(contract(columns, there, first=1) / total, back, first=1)

    return inverse


def separable_parts(form: WeakForm) -> list[np.ndarray]:
    """Functions μ_d of one coordinate at the quadrature points, Σ_d μ_d ≈ m [s²/km²].

    μ_d is the mean of m over the other axes, weighted as waves decay in the layer; the mean
    over all axes, which each of them holds, is counted once. Exact where m is such a sum.
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
    mean = functools.reduce(
        lambda rest, of_axis: np.tensordot(of_axis, rest, 1), means, form.slowness
    )
    return [part - (1 - 1 / ndim) * mean for part in parts]


@dataclasses.dataclass(frozen=True)
class CoarseInverse:
    """P, for many right-hand sides."""

    there: tuple[np.ndarray, ...]  # (grid, waves) by axis, to loads
    back: tuple[np.ndarray, ...]  # (waves, grid) by axis, from the solution
    inverse: stencils.Inverse  # of the grid's operator

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """P times right-hand sides (c, *lattice.shape), complex."""
        loads = contract(columns.astype(np.complex64), self.there, first=1)
        solution = self.inverse(loads.reshape(len(loads), -1).T).T
        solution = np.ascontiguousarray(solution).reshape(loads.shape)
        return contract(solution, self.back, first=1).astype(columns.dtype)


def cells(discretisation: Discretisation) -> tuple[int, ...]:
    """Cells of the coarse grid along each axis of the box, coordinate order."""
    problem = discretisation.problem
    step = 2 * np.pi * problem.model.minimum / discretisation.omega / POINTS
    sides = np.asarray(problem.layer.upper) - np.asarray(problem.layer.lower)
    return tuple(max(2, math.ceil(side / step)) for side in sides)


def grid_shape(discretisation: Discretisation) -> tuple[int, ...]:
    """Unknowns of the coarse grid along each axis, coordinate order."""
    layer = discretisation.problem.layer
    sides = np.asarray(layer.upper) - np.asarray(layer.lower)
    return tuple(
        count - 1 + 2 * _margin(float(layer.thickness), side / count)
        for count, side in zip(cells(discretisation), sides, strict=True)
    )


def _margin(thickness: float, step: float) -> int:
    """Cells that the layer takes on each side; rounding adds none."""
    return math.ceil(thickness / step - 1e-9)


def coarse_inverse(form: WeakForm) -> CoarseInverse:
    """Makes the grid and the factors of its operator.

    Args:
        form: The weak form that is to be inverted.

    Raises:
        ValueError: if memory has no room for the factors.
    """
    discretisation = form.discretisation
    model, omega = discretisation.problem.model, discretisation.omega
    axes = [
        _grid_axis(discretisation, axis, count)
        for axis, count in enumerate(cells(discretisation))
    ]
    widths = [
        _SMOOTHING * axis.step / step
        for axis, step in zip(axes, model.spacing[::-1], strict=True)
    ]
    smooth = scipy.ndimage.gaussian_filter(
        form.slowness, widths, mode="nearest", truncate=3.0
    )

    def slowness_at(positions):
        values = smooth
        for axis, coordinates in enumerate(positions):
            matrix = interpolation.along(model, model.ndim - 1 - axis, coordinates)
            values = interpolation.applied(matrix, values, axis)
        return values

    operator = stencils.helmholtz(
        axes,
        omega,
        slowness_at([axis.quadrature for axis in axes]),
        slowness_at([axis.positions for axis in axes]),
    )
    there, back = zip(
        *(_transfer(discretisation, d, axis) for d, axis in enumerate(axes)), strict=True
    )
    return CoarseInverse(there, back, stencils.inverse(operator.astype(np.complex64)))


def _grid_axis(discretisation: Discretisation, axis: int, count: int) -> stencils.Axis:
    """Grid lines of an axis: equal steps over the box, and as many as the layer takes."""
    problem = discretisation.problem
    layer = problem.layer
    lower, upper = float(layer.lower[axis]), float(layer.upper[axis])
    step = (upper - lower) / count
    margin = _margin(float(layer.thickness), step)
    positions = lower + step * np.arange(-margin, count + margin + 1)
    points = along(problem, axis, positions)
    offset = absorbing.stretched_offset(layer, points, 0.0, discretisation.omega)
    return stencils.make_axis(positions, offset[:, axis], 4, step)


def _transfer(
    discretisation: Discretisation, axis: int, grid: stencils.Axis
) -> tuple[np.ndarray, np.ndarray]:
    """ΨᵀΦB⁻¹, (grid, waves), and B⁻¹Φᴴ, (waves, grid), of one axis."""
    problem, lattice = discretisation.problem, discretisation.lattice
    mass = discretisation.axes[axis].mass
    values = waves_at(problem, lattice, axis, grid.quadrature).T  # (points, waves)
    there = np.einsum("nq,nqm->nm", grid.test, values[grid.window])
    there = np.linalg.solve(mass.T, there.T).T
    step = np.gradient(grid.nodes)
    back = np.linalg.solve(
        mass, waves_at(problem, lattice, axis, grid.positions).conj() * step
    )
    return there.astype(np.complex64), back.astype(np.complex64)
