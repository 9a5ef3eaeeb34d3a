"""Weights of all plane waves, the wavefields they give, and what these are worth.

The system is complex symmetric, its test functions being conjugate waves, and is solved by
conjugate residuals, preconditioned by the inverse for the nearest separable model. Where
that model is too far from the true one, iterations stall in the waves that travel. The
block of these is then factored, and solved for exactly in each of the iterations to come.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.linear import conjugate_residual
from meta_lrpinn.linear.lattice import operator as operators
from meta_lrpinn.linear.lattice.operator import evaluate_on_grid, right_hand_sides
from meta_lrpinn.linear.lattice.separable import separable_inverse
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import Array, full_precision

# The second solution iterates to so many times the residual in a layer of this fraction of
# the strength; its waves and quadrature are those of `Lattice.for_check`.
_CHECK_RESIDUAL, _CHECK_STRENGTH = 2.0, 0.55
_RESIDUAL = 2.5e-4
# Error over the change between the two solutions, calibrated by experiments.calibration.
_ERROR_OVER_CHANGE = 0.45
# Iterations without the block: as many as cost what factoring it does, within limits, since
# factors go so much faster than FFTs, per operation. Then at most so many with it.
_FEWEST, _MOST, _FACTOR_SPEED = 60, 300, 10


def _make_solver(problem, lattice, form, tolerance):
    """Returns right-hand sides (c, *lattice.shape) → weights, iterations."""
    operator = operators.make_operator(problem, lattice, form)
    inverse = separable_inverse(problem, lattice, form)
    fixed = jax.lax.stop_gradient(form)

    def iterated(matvec, columns):
        size = conjugate_residual.norm(columns)
        scale = jnp.where(size > 0, size, 1)[(..., *(None,) * problem.ndim)]
        columns = columns / scale  # so that no product of small numbers is lost
        nothing = conjugate_residual.Iterate(jnp.zeros_like(columns), columns, jnp.array(0))
        options = {"tolerance": tolerance, "form": _symmetric}
        patience = _patience(lattice, len(columns))
        first = conjugate_residual.solve(matvec, inverse, nothing, most=patience, **options)
        if len(lattice.travelling):
            is_left = conjugate_residual.norm(first.residual) > tolerance

            def with_block(state):
                return _deflated(problem, lattice, fixed, matvec, inverse, state, options)

            first = jax.lax.cond(jnp.any(is_left), with_block, lambda state: state, first)
        return first.solution * scale, first.iterations

    def transposed(_, columns):
        # The transpose of K is K with k and −k exchanged.
        weights, iterations = iterated(operator, _mirrored(columns))
        return _mirrored(weights), iterations

    def solver(columns):
        return jax.lax.custom_linear_solve(
            operator, columns, iterated, transposed, has_aux=True
        )

    return solver


def _mirrored(columns: jax.Array) -> jax.Array:
    """Weights (c, ...) of k as those of −k."""
    return jnp.flip(columns, axis=tuple(range(1, columns.ndim)))


def _symmetric(first: jax.Array, second: jax.Array) -> jax.Array:
    """Bilinear form in which K is symmetric: Σ u_{−k} v_k."""
    return conjugate_residual.pairing(_mirrored(first), second)


def _patience(lattice: Lattice, sources: int) -> int:
    """Iterations before the block is factored."""
    block = len(lattice.travelling)
    if not block:
        return 2 * _MOST
    grid = math.prod(lattice.product_shape)
    iterating = sources * 2 * 5 * grid * np.log2(grid)
    factoring = 8 / 3 * block**3 / _FACTOR_SPEED
    return int(np.clip(factoring / iterating, _FEWEST, _MOST))


def _deflated(problem, lattice, form, matvec, inverse, start, options):
    """Goes on from an iterate with the block of travelling waves factored.

    Multiplicative: what the inverse leaves in the block is solved for there. Residuals have
    no part in the block then, so that half of the symmetric product, block, inverse,
    block, can be left out (Tang et al. 2009, J. Sci. Comput. 39, 340, A-DEF2).
    """
    rows = jnp.asarray(lattice.travelling) + jnp.asarray(lattice.extent)
    rows = (slice(None), *rows.T)
    block = operators.assemble(problem, lattice, form, lattice.travelling)
    factors = jax.scipy.linalg.lu_factor(block)

    def in_block(columns):
        solved = jax.scipy.linalg.lu_solve(factors, columns[rows].T).T
        return jnp.zeros_like(columns).at[rows].set(solved, unique_indices=True)

    def precondition(columns):
        smooth = inverse(columns)
        return smooth + in_block(columns - matvec(smooth))

    change = in_block(start.residual)
    start = conjugate_residual.Iterate(
        start.solution + change, start.residual - matvec(change), start.iterations
    )
    return conjugate_residual.solve(matvec, precondition, start, most=_MOST, **options)


@full_precision
def solve_weights(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: Array,
    background_velocities: Array,
    tolerance: float = _RESIDUAL,
) -> jax.Array:
    """Output weights of several sources, the right-hand sides of one system.

    Pure and differentiable: the gradient by the velocity is the adjoint solve with the
    same preconditioner.

    Args:
        problem: Velocity, frequency and layer; its own source is not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim) [km].
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        tolerance: Relative residual at which iterations end.

    Returns:
        Complex weights (n_sources, *lattice.shape).
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    form = operators.weak_form(problem, lattice)
    return _make_solver(problem, lattice, form, tolerance)(rhs)[0]


class Solution(struct.PyTreeNode):
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (n_sources, *lattice.shape) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    error_estimate: jax.Array  # (n_sources,) relative L2 on the grid
    residual: jax.Array  # (n_sources,) what the iterations left, over the right-hand side
    iterations: jax.Array  # () of the solution, for the source that took the most


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
    with a larger residual. A part of the change is the estimate.

    Args:
        problem, lattice, sources, background_velocities, tolerance: As in
            `solve_weights`.
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    form = operators.weak_form(problem, lattice)
    weights, iterations = _make_solver(problem, lattice, form, tolerance)(rhs)
    fields = evaluate_on_grid(problem, lattice, weights)
    # A homogeneous model scatters rounding errors, of which no fraction is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    left = rhs - operators.make_operator(problem, lattice, form)(weights)
    sizes = [conjugate_residual.norm(rows) ** 2 for rows in (left, rhs)]
    residual = jnp.sqrt(sizes[0] / (sizes[1] + floor**2))

    layer = problem.layer
    layer = layer.replace(strength=_CHECK_STRENGTH * jnp.asarray(layer.strength))
    other, coarser = problem.replace(layer=layer), lattice.for_check()
    rhs = right_hand_sides(other, coarser, sources, background_velocities)
    form, looser = operators.weak_form(other, coarser), _CHECK_RESIDUAL * tolerance
    check, _ = _make_solver(other, coarser, form, looser)(rhs)
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
        iterations=iterations,
    )


def _energy(fields: jax.Array) -> jax.Array:
    """Mean square over the grid, (n_sources,)."""
    return jnp.mean(jnp.abs(fields) ** 2, axis=tuple(range(1, fields.ndim)))
