"""Scattered wavefields at receivers as a function of the squared slowness, and its adjoint.

With K(m) a = b(m) and data d = Φ a, the adjoint state of a cotangent d̄ solves Kᵀ λ = Φᵀ d̄.
Kᵀ is K with k and −k exchanged, so the same preconditioners serve. At a quadrature point q
of weight w_q,

    Σ d̄ ∂d/∂m_q = −ω² w_q S_q Λ(x_q) (u₀ + δu)(x_q),      Λ = Σ_k λ_{−k} φ_k,

and the interpolation takes it to the nodes of the model.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from meta_lrpinn.linear.lattice.operator import (
    background_field,
    contract,
    discretise,
    evaluate,
    evaluation_transposed,
    right_hand_sides,
    slabs,
    weak_form,
)
from meta_lrpinn.linear.lattice.solution import System
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime import host


def data_function(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: np.ndarray,
    background_velocities: np.ndarray,
    receivers: np.ndarray,
    tolerance: float,
) -> Callable[[jax.Array], jax.Array]:
    """Data on a lattice, to be traced by JAX and differentiated in reverse.

    Args:
        problem: Frequency, layer and grid; its own velocity and source are not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim) [km].
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        receivers: Receiver positions (n_receivers, ndim) [km].
        tolerance: Relative residual at which iterations end, of data and adjoint.

    Returns:
        Squared slowness at the model's nodes, (nz, nx) or (nz, ny, nx) [s²/km²] → δu
        (n_sources, n_receivers), complex. It runs on the host, under `jit` as well.
    """
    sources, receivers = np.asarray(sources, float), np.asarray(receivers, float)
    # Made when data are first asked for: most solves with receivers have no use for it.
    discretisation = functools.cache(lambda: discretise(problem, lattice))

    def system_of(slowness):
        return System(weak_form(discretisation(), slowness))

    def forward(system):
        columns = right_hand_sides(system.form, sources, background_velocities)
        weights = system.solve(columns, tolerance).solution
        return evaluate(problem, lattice, weights, receivers), weights

    def backward(system, weights, cotangent):
        columns = evaluation_transposed(problem, lattice, cotangent, receivers)
        # Weights of k as those of −k.
        columns = np.flip(columns, axis=tuple(range(1, columns.ndim)))
        adjoint = system.solve(columns, tolerance).solution
        return _correlation(system, weights, adjoint, sources, background_velocities)

    shapes = (len(sources), len(receivers)), (len(sources), *lattice.shape)
    return host.differentiable(system_of, forward, backward, shapes)


def _correlation(
    system: System,
    weights: np.ndarray,
    adjoint: np.ndarray,
    sources: np.ndarray,
    background_velocities: np.ndarray,
) -> np.ndarray:
    """Σ d̄ ∂d/∂m at the model's nodes, complex, of the velocity's shape."""
    discretisation = system.form.discretisation
    axes = discretisation.axes
    waves = [axis.waves.T for axis in axes]
    back = [(axis.interpolation.T * axis.weights).toarray() for axis in axes]
    gradient = np.zeros(system.form.slowness.shape, complex)
    for part, _ in slabs(system.form):
        values = [waves[0][part], *waves[1:]]
        total = np.zeros(())
        for row, adjoint_row, source, v0 in zip(
            weights, adjoint, sources, background_velocities, strict=True
        ):
            field = contract(row, values)
            field += background_field(discretisation, part, source, v0)
            total = total + contract(adjoint_row, values) * field
        gradient += contract(total, [back[0][:, part], *back[1:]])
    return np.transpose(-(discretisation.omega**2) * gradient)
