"""The system of all plane waves solved, for several sources, and what that is worth."""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from meta_lrpinn.linear import gcr
from meta_lrpinn.linear.lattice import operator as operators
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.precision import full_precision
from meta_lrpinn.problem import HelmholtzProblem

_RESIDUAL = 2e-3
# The second solution may stop earlier: its own error is the larger by far.
_CHECK_RESIDUAL = 2.0
# Error over the distance of the two solutions.
_ERROR_OVER_CHANGE = 0.5


def _make_solver(
    problem: HelmholtzProblem, lattice: Lattice, tolerance: float
) -> Callable[[jax.Array], jax.Array]:
    """Factors once; returns right-hand sides (N, c) → weights (N, c)."""
    dense, indices = lattice.dense, jnp.asarray(lattice.indices)
    coefficients = operators.coefficients_of(problem, lattice)
    matvec = operators.operator_of(coefficients, lattice)
    fixed = jax.lax.stop_gradient(coefficients)
    entries = operators.diagonal_of(fixed, lattice)[:, None]
    factors = jax.scipy.linalg.lu_factor(operators.matrix_of(fixed, lattice))

    def mirror(columns):
        shape = lattice.cells
        grid = jnp.zeros((math.prod(shape), columns.shape[1]), columns.dtype)
        position = operators.position_of(indices, shape)
        grid = grid.at[position].set(columns, unique_indices=True)
        return grid[operators.position_of(-indices, shape)]

    def precondition(columns):
        longest = jax.scipy.linalg.lu_solve(factors, columns[:dense])
        return jnp.concatenate([longest, columns[dense:] / entries[dense:]])

    def solve(matvec, columns):
        if dense == lattice.number:  # then that is no approximation
            return precondition(columns)
        return gcr.minimal_residual(matvec, precondition, columns, tolerance)

    def transposed(_, columns):
        # The weak form is symmetric and its test functions are the conjugate waves,
        # so the transpose is K with k and −k exchanged.
        return mirror(solve(matvec, mirror(columns)))

    return lambda rhs: jax.lax.custom_linear_solve(matvec, rhs, solve, transposed)


@full_precision
def solve_weights(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    tolerance: float = _RESIDUAL,
) -> jax.Array:
    """Output weights of several sources, the right-hand sides of one system.

    Pure and differentiable: the gradient to the velocity is the adjoint solve with the
    same factors.

    Args:
        problem: Velocity, frequency and layer; its own source is not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim), km.
        background_velocities: v₀ of each source, (n_sources,), km/s.
        tolerance: Relative residual at which iterations end.

    Returns:
        Complex weights (N, n_sources).
    """
    rhs = operators.right_hand_sides(problem, lattice, sources, background_velocities)
    return _make_solver(problem, lattice, tolerance)(rhs)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Solution:
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (N, n_sources) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    error_estimate: jax.Array  # (n_sources,) of the relative L2 error, and
    residual: jax.Array  # (n_sources,) what the iterations left, over the right-hand side

    @property
    def change(self) -> jax.Array:
        """The largest of the estimates, ()."""
        return jnp.max(self.error_estimate)


@full_precision
def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    tolerance: float = _RESIDUAL,
) -> Solution:
    """Wavefields of several sources on the model's grid, and how far to trust them.

    All sources are solved for twice, the second time with fewer waves, a coarser
    quadrature, a thinner and weaker layer, and a larger residual (`Lattice.check`); half
    of the distance between the two is the estimate of each source's error. Where the
    iterations end above the tolerance, the residual is the estimate if it is larger.

    Args:
        problem, lattice, sources, background_velocities, tolerance: As in
            `solve_weights`.

    Raises:
        ValueError: the lattice was made without a check.
    """
    check = lattice.check
    if check is None:
        raise ValueError("the lattice has no check to estimate an error by")
    rhs = operators.right_hand_sides(problem, lattice, sources, background_velocities)
    weights = _make_solver(problem, lattice, tolerance)(rhs)
    fields = operators.evaluate_on_grid(problem, lattice, weights)
    left = rhs - operators.make_operator(problem, lattice)(weights)
    other = problem.replace(layer=check.layer, envelope_velocity=check.envelope_velocity)
    others = solve_weights(
        other, check.lattice, sources, background_velocities, _CHECK_RESIDUAL * tolerance
    )
    change = fields - operators.evaluate_on_grid(other, check.lattice, others)
    # A homogeneous model scatters rounding errors, of which no share is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    axes = tuple(range(1, fields.ndim))
    energy = jnp.mean(jnp.abs(fields) ** 2, axis=axes) + floor**2
    distance = jnp.sqrt(jnp.mean(jnp.abs(change) ** 2, axis=axes) / energy)
    residual = jnp.sqrt(_energy(left) / (_energy(rhs) + floor**2))
    estimate = _ERROR_OVER_CHANGE * distance
    estimate = jnp.where(residual > tolerance, jnp.maximum(estimate, residual), estimate)
    return Solution(
        weights=weights, fields=fields, error_estimate=estimate, residual=residual
    )


def _energy(columns: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(columns) ** 2, axis=0)
