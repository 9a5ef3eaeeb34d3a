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

import jax
import jax.numpy as jnp

from meta_lrpinn.linear.lattice import operator as operators
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import full_precision


@full_precision
def separable_inverse(
    problem: HelmholtzProblem, lattice: Lattice, form: operators.WeakForm
) -> Callable[[jax.Array], jax.Array]:
    """Inverse of the weak form of a separable model near a problem's.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        form: Its integrals.

    Returns:
        Linear function of right-hand sides (n_sources, *lattice.shape), complex. No
        derivatives pass through it.
    """
    # No derivatives: those of eigenvectors do not exist where eigenvalues coincide, and an
    # approximate inverse has no part in the solution.
    problem, form = jax.lax.stop_gradient((problem, form))
    there, back, eigenvalues = [], [], []
    for axis, part in enumerate(separable_parts(problem, lattice, form)):
        own = form.axes[axis]
        value, _ = operators.axis_waves(problem, lattice, axis)
        weights = jnp.asarray(lattice.node_weights[axis]) * own.stretch * part
        medium = jnp.asarray(problem.omega) ** 2 * (value.conj() * weights) @ value.T
        values, vectors = jax.lax.linalg.eig(
            jnp.linalg.solve(own.mass, medium - own.stiffness),
            compute_left_eigenvectors=False,
        )
        eigenvalues.append(values)
        back.append(vectors)
        there.append(jnp.linalg.inv(own.mass @ vectors))
    total = functools.reduce(lambda a, b: a[..., None] + b, eigenvalues)

    def inverse(columns):
        return operators.contract(
            operators.contract(columns, there, first=1) / total, back, first=1
        )

    return full_precision(inverse)


def separable_parts(
    problem: HelmholtzProblem, lattice: Lattice, form: operators.WeakForm
) -> list[jax.Array]:
    """Functions μ_d of one coordinate at the nodes of their axes, Σ_d μ_d ≈ m [s²/km²].

    The means over the other axes, weighted as waves are in the layer, less what is in all
    of them: exact where m is such a sum.
    """
    ndim = problem.ndim
    slowness = problem.model.squared_slowness_at(operators.node_points(problem, lattice))
    weights = [
        jnp.asarray(weight) * axis.envelope**2
        for weight, axis in zip(lattice.node_weights, form.axes, strict=True)
    ]
    weights = [weight / jnp.sum(weight) for weight in weights]
    parts = []
    for axis in range(ndim):
        part = slowness
        for other in reversed(range(ndim)):
            if other != axis:
                part = jnp.tensordot(part, weights[other], axes=(other, 0))
        parts.append(part)
    mean = parts[0] @ weights[0].astype(parts[0].dtype)
    return [part - (1 - 1 / ndim) * mean for part in parts]
