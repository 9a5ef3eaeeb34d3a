"""Data at receivers as a differentiable function of the velocity: for inversion.

    acquisition = make_acquisition(model, 5.0, sources, receivers)

    def misfit(velocity):
        return jnp.sum(jnp.abs(receiver_data(acquisition, velocity) - observed) ** 2)

    gradient = jax.jit(jax.grad(misfit))(velocity)

The gradient is that of the adjoint-state method: one more solve with the same
preconditioner.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics.problem import HelmholtzProblem, make_problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.precision import Array
from meta_lrpinn.solvers.protocol import Conditions, Setup, make_setup

# Data and gradient to the half of the digits: what iterations leave is not smooth.
_RESIDUAL = float(np.finfo(float).eps) ** 0.5


class Acquisition(struct.PyTreeNode):
    """Sources and receivers at one frequency, with the lattice to solve on; a pytree."""

    problem: HelmholtzProblem  # frequency, layer and grid
    lattice: lattices.Lattice
    sources: Array  # (n_sources, ndim) [km]
    background_velocities: Array  # (n_sources,) [km/s]
    receivers: Array  # (n_receivers, ndim) [km]
    # Squared slowness (nz, nx) or (nz, ny, nx) [s²/km²] → data (n_sources, n_receivers)
    data: Callable[[jax.Array], jax.Array] = struct.field(pytree_node=False)


def make_acquisition(
    model: VelocityModel,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray,
    *,
    amplitude: complex | None = None,
    wavenumber_ratio: float | None = None,
) -> Acquisition:
    """Everything about a frequency that does not change with the velocity.

    Args:
        model: A model on the grid of the velocities to come; the lattice resolves waves
            as slow as its slowest.
        frequency: Frequency [Hz].
        sources: Source positions (n_sources, ndim) [km].
        receivers: Receiver positions (n_receivers, ndim) [km].
        amplitude: A of the background field; default: fundamental solution.
        wavenumber_ratio: Largest wavenumber over that of the slowest wave; default: as
            `PlaneWaves`.

    Returns:
        The acquisition; v₀ of each source is the model's velocity there.

    Raises:
        ValueError: if a source or a receiver lies outside the model.
    """
    conditions = Conditions(amplitude=amplitude)
    setup = make_setup(model, frequency, sources, receivers, conditions)
    problem = make_problem(model, frequency, setup.sources[0], amplitude=setup.amplitude)
    ratio = wavenumber_ratio or lattices.default_wavenumber_ratio(problem)
    return acquisition_of(setup, problem, lattices.make_lattice(problem, ratio))


def acquisition_of(
    setup: Setup, problem: HelmholtzProblem, lattice: lattices.Lattice
) -> Acquisition:
    """The acquisition of a setup with receivers; v₀ is that of the smallest velocity."""
    assert setup.receivers is not None
    velocities = setup.background_velocities(setup.grid)
    given = setup.sources, velocities, setup.receivers
    return Acquisition(
        problem=problem,
        lattice=lattice,
        sources=setup.sources,
        background_velocities=velocities,
        receivers=setup.receivers,
        data=lattices.data_function(problem, lattice, *given, _RESIDUAL),
    )


def receiver_data(acquisition: Acquisition, velocity: jax.Array) -> jax.Array:
    """Scattered wavefields at the receivers, pure and differentiable in the velocity.

    Args:
        acquisition: From `make_acquisition`.
        velocity: On the grid of its model, (nz, nx) or (nz, ny, nx) [km/s].

    Returns:
        Complex (n_sources, n_receivers), in the precision that JAX works in.
    """
    model = acquisition.problem.model.replace_velocity(velocity)
    return acquisition.data(jnp.asarray(model.squared_slowness))
