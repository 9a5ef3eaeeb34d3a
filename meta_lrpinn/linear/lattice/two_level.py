"""Two-level solve of the system of all plane waves.

Only waves that can travel somewhere in the model need a matrix. For shorter ones the
operator is elliptic and nearly diagonal. The system of all N waves is therefore solved by
minimal residuals (GCR), preconditioned by the factored block of the n longest waves and
by the diagonal of the others.
"""

import jax
import jax.numpy as jnp
from flax import struct

from meta_lrpinn.linear import gcr
from meta_lrpinn.linear.lattice import operator as operators
from meta_lrpinn.linear.lattice.operator import evaluate_on_grid, right_hand_sides
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.precision import Array, full_precision
from meta_lrpinn.problem import HelmholtzProblem

# The second solution has the longest waves, one in so many, and iterates to so many
# times the residual in a layer of this fraction of the strength.
_FEWER_WAVES, _CHECK_RESIDUAL, _CHECK_STRENGTH = 1.5, 2.0, 0.7
_RESIDUAL = 2e-3
# Error over the change between the two solutions, calibrated by experiments.calibration.
_ERROR_OVER_CHANGE = 0.5


def _make_solver(form, factors, problem, lattice, tolerance):
    """Returns (rhs (N, c), kept) → weights (N, c), from integrals and the factored block.

    `kept` is the number of waves in use; the weights of the others are zero. The block
    may be that of a form which differs a little.
    """
    dense, indices = lattice.dense, jnp.asarray(lattice.indices)
    operator = operators.make_operator(problem, lattice, form)
    entries = jax.lax.stop_gradient(operators.diagonal(problem, lattice, form))[:, None]

    def mirror(columns):
        extent = jnp.asarray(lattice.extent)
        shape = tuple(2 * size + 1 for size in lattice.extent)
        grid = jnp.zeros((*shape, columns.shape[1]), columns.dtype)
        grid = grid.at[tuple((indices + extent).T)].set(columns, unique_indices=True)
        return grid[tuple((extent - indices).T)]

    def solver(rhs, kept):
        in_use = jnp.arange(lattice.number)[:, None] < kept

        def matvec(columns):
            return in_use * operator(in_use * columns)

        def precondition(columns):
            longest = jax.scipy.linalg.lu_solve(factors, columns[:dense])
            others = columns[dense:] / entries[dense:]
            return jnp.concatenate([longest, others]) * in_use

        def solve(matvec, columns):
            if kept == dense == lattice.number:  # then that is no approximation
                return precondition(columns)
            return gcr.minimal_residual(matvec, precondition, columns, tolerance)

        def transposed(_, columns):
            # The weak form is symmetric and its test functions are the conjugate waves,
            # so the transpose is K with k and −k exchanged.
            return mirror(solve(matvec, mirror(columns)))

        return jax.lax.custom_linear_solve(matvec, in_use * rhs, solve, transposed)

    return solver


def _factored(problem, lattice, form):
    """LU factors of the block of the longest waves."""
    fixed = jax.lax.stop_gradient(form)
    return jax.scipy.linalg.lu_factor(operators.assemble(problem, lattice, fixed))


@full_precision
def solve_weights(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: Array,
    background_velocities: Array,
    tolerance: float = _RESIDUAL,
) -> jax.Array:
    """Output weights of several sources, the right-hand sides of one system.

    Pure and differentiable: the gradient to the velocity is the adjoint solve with the
    same factors.

    Args:
        problem: Velocity, frequency and layer; its own source is not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim) [km].
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        tolerance: Relative residual at which iterations end.

    Returns:
        Complex weights (N, n_sources).
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    form = operators.weak_form(problem, lattice)
    factors = _factored(problem, lattice, form)
    return _make_solver(form, factors, problem, lattice, tolerance)(rhs, lattice.number)


class Solution(struct.PyTreeNode):
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (N, n_sources) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    error_estimate: jax.Array  # (n_sources,) relative L2 on the grid
    residual: jax.Array  # (n_sources,) what the iterations left, over the right-hand side


@full_precision
def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: Array,
    background_velocities: Array,
    tolerance: float = _RESIDUAL,
) -> Solution:
    """Wavefields of several sources on the model's grid, and how far to trust them.

    Every source is solved for a second time with all worse that can be wrong: without
    the shortest third of the waves, on fewer quadrature points, in a weaker layer, and
    with a larger residual; the factors serve both. Half of the change is the
    estimate.

    Args:
        problem, lattice, sources, background_velocities, tolerance: As in
            `solve_weights`.
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    form = operators.weak_form(problem, lattice)
    factors = _factored(problem, lattice, form)
    weights = _make_solver(form, factors, problem, lattice, tolerance)(rhs, lattice.number)
    fields = evaluate_on_grid(problem, lattice, weights)
    # A homogeneous model scatters rounding errors, of which no fraction is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    left = rhs - operators.make_operator(problem, lattice, form)(weights)
    sizes = [jnp.sum(jnp.abs(columns) ** 2, axis=0) for columns in (left, rhs)]
    residual = jnp.sqrt(sizes[0] / (sizes[1] + floor**2))

    layer = problem.layer
    layer = layer.replace(strength=_CHECK_STRENGTH * jnp.asarray(layer.strength))
    other, coarser = problem.replace(layer=layer), lattice.with_check_nodes()
    rhs = right_hand_sides(other, coarser, sources, background_velocities)
    form = operators.weak_form(other, coarser)
    looser = _CHECK_RESIDUAL * tolerance
    solver = _make_solver(form, factors, other, coarser, looser)
    check = solver(rhs, round(lattice.number / _FEWER_WAVES))
    change = _energy(evaluate_on_grid(other, coarser, check) - fields)
    if problem.ndim == 3:  # u₀ is A e^{−ikr}/r
        floor = floor * jnp.asarray(problem.omega) / problem.model.minimum
    change = jnp.sqrt(change / (_energy(fields) + floor**2))
    estimate = _ERROR_OVER_CHANGE * change
    # Iterations that ended early may have done so in both.
    is_left = residual > _CHECK_RESIDUAL * tolerance
    return Solution(
        weights=weights,
        fields=fields,
        error_estimate=jnp.where(is_left, jnp.maximum(estimate, residual), estimate),
        residual=residual,
    )


def _energy(fields: jax.Array) -> jax.Array:
    """Mean square over the grid, (n_sources,)."""
    return jnp.mean(jnp.abs(fields) ** 2, axis=tuple(range(1, fields.ndim)))
