"""The system of all plane waves solved, for several sources, and what that is worth."""

import math

import chex
import jax
import jax.numpy as jnp

from meta_lrpinn.linear import gcr
from meta_lrpinn.linear.lattice import operator as operators
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.precision import full_precision
from meta_lrpinn.problem import HelmholtzProblem

_ENRICHMENT = 1.5
_RESIDUAL = 2e-3


def _make_solver(problem, lattice, tolerance):
    """Factors once; returns (rhs (N, c), kept) → weights (N, c).

    `kept` is the number of waves in use; the weights of the others are zero.
    """
    dense, indices = lattice.dense, jnp.asarray(lattice.indices)
    operator = operators.make_operator(problem, lattice)
    entries = jax.lax.stop_gradient(operators.diagonal(problem, lattice))[:, None]
    factors = jax.scipy.linalg.lu_factor(
        jax.lax.stop_gradient(operators.assemble(problem, lattice))
    )

    def mirror(columns):
        shape = lattice.cells
        grid = jnp.zeros((math.prod(shape), columns.shape[1]), columns.dtype)
        grid = grid.at[operators._position(indices, shape)].set(
            columns, unique_indices=True
        )
        return grid[operators._position(-indices, shape)]

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
    return _make_solver(problem, lattice, tolerance)(rhs, lattice.number)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Solution:
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (N, n_sources) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    # () relative L2 change by the shortest third of the waves, and what residual is left
    change: jax.Array


@full_precision
def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    tolerance: float = _RESIDUAL,
) -> Solution:
    """Wavefields of several sources on the model's grid, and how far to trust them.

    The first source is solved for a second time without the shortest third of the
    waves, with the same factors; the change by those is the estimate for all sources.

    Args:
        problem, lattice, sources, background_velocities, tolerance: As in
            `solve_weights`.
    """
    rhs = operators.right_hand_sides(problem, lattice, sources, background_velocities)
    solver = _make_solver(problem, lattice, tolerance)
    weights = solver(rhs, lattice.number)
    coarse = solver(rhs[:, :1], round(lattice.number / _ENRICHMENT))
    fields = operators.evaluate_on_grid(problem, lattice, weights)
    change = operators.evaluate_on_grid(problem, lattice, weights[:, :1] - coarse)[0]
    # A homogeneous model scatters rounding errors, of which no share is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    energy = jnp.mean(jnp.abs(fields[0]) ** 2) + floor**2
    change = jnp.mean(jnp.abs(change) ** 2) / energy
    left = 0.0
    if lattice.dense < lattice.number:
        residual = rhs - operators.make_operator(problem, lattice)(weights)
        left = jnp.max(_energy(residual) / (_energy(rhs) + floor**2))
    return Solution(weights=weights, fields=fields, change=jnp.sqrt(change + left))


def _energy(columns: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(columns) ** 2, axis=0)
