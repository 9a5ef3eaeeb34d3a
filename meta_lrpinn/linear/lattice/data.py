"""Scattered wavefields at receivers as a function of the squared slowness, and its adjoint.

With K(m) a = b(m) and data d = Φ a, the adjoint state of a cotangent d̄ solves Kᵀ λ = Φᵀ d̄.
Kᵀ is K with k and −k exchanged, so the same preconditioners serve. At a quadrature point q
of weight w_q,

    Σ d̄ ∂d/∂m_q = −ω² w_q S_q Λ(x_q) (u₀ + δu)(x_q),      Λ = Σ_k λ_{−k} φ_k,

and the interpolation takes it to the nodes of the model.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from meta_lrpinn.linear.lattice.operator import (
    Discretisation,
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
    state = _States(
        problem=problem,
        lattice=lattice,
        sources=np.asarray(sources, float),
        background_velocities=np.asarray(background_velocities),
        receivers=np.asarray(receivers, float),
        tolerance=tolerance,
    )
    shapes = (len(sources), len(receivers)), (len(sources), *lattice.shape)
    return host.differentiable(state.forward, state.backward, shapes)


@dataclasses.dataclass(frozen=True)
class _States:
    """Wavefields and their adjoint states; arguments as of `data_function`."""

    problem: HelmholtzProblem
    lattice: Lattice
    sources: np.ndarray
    background_velocities: np.ndarray
    receivers: np.ndarray
    tolerance: float
    latest: dict[bytes, System] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def discretisation(self) -> Discretisation:
        """That of the lattice."""
        return discretise(self.problem, self.lattice)

    def system(self, slowness: np.ndarray) -> System:
        """K of a squared slowness, kept: the adjoint of the same comes next."""
        key = slowness.tobytes()
        if key not in self.latest:
            self.latest.clear()
            form = weak_form(self.discretisation, host.in_double(slowness))
            self.latest[key] = System(form)
        return self.latest[key]

    def forward(self, slowness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Data (n_sources, n_receivers) and weights (n_sources, *lattice.shape)."""
        system = self.system(slowness)
        columns = right_hand_sides(system.form, self.sources, self.background_velocities)
        weights = system.solve(columns, self.tolerance).solution
        return evaluate(self.problem, self.lattice, weights, self.receivers), weights

    def backward(
        self, slowness: np.ndarray, weights: np.ndarray, cotangent: np.ndarray
    ) -> np.ndarray:
        """Cotangent of the squared slowness, real where that is."""
        system = self.system(slowness)
        columns = evaluation_transposed(
            self.problem, self.lattice, host.in_double(cotangent), self.receivers
        )
        adjoint = system.solve(_mirrored(columns), self.tolerance).solution
        states = host.in_double(weights), adjoint
        gradient = _correlation(system, *states, self.sources, self.background_velocities)
        return gradient if np.iscomplexobj(slowness) else np.real(gradient)


def _mirrored(columns: np.ndarray) -> np.ndarray:
    """Weights (c, ...) of k as those of −k."""
    return np.flip(columns, axis=tuple(range(1, columns.ndim)))


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
        for own, other, source, v0 in zip(
            weights, adjoint, sources, background_velocities, strict=True
        ):
            field = contract(own, values)
            field += background_field(discretisation, part, source, v0)
            total = total + contract(other, values) * field
        gradient += contract(total, [back[0][:, part], *back[1:]])
    return np.transpose(-(discretisation.omega**2) * gradient)
