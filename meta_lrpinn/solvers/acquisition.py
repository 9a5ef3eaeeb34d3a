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
import numpy as np
from flax import struct

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.precision import Array
from meta_lrpinn.solvers.plane_waves import data_function
from meta_lrpinn.solvers.protocol import Conditions, make_setup


class Acquisition(struct.PyTreeNode):
    """Sources and receivers at one frequency, with the lattice to solve on; a pytree."""

    lattice: lattices.Lattice
    sources: Array  # (n_sources, ndim) [km]
    receivers: Array  # (n_receivers, ndim) [km]
    # Velocity (nz, nx) or (nz, ny, nx) [km/s] → data (n_sources, n_receivers)
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
    problem = setup.problem(model, setup.sources[0])
    ratio = wavenumber_ratio or lattices.default_wavenumber_ratio(problem)
    lattice = lattices.make_lattice(problem, ratio)
    data = data_function(setup, problem, lattice)
    return Acquisition(lattice, setup.sources, np.atleast_2d(receivers), data)


def receiver_data(acquisition: Acquisition, velocity: jax.Array) -> jax.Array:
    """Scattered wavefields at the receivers, pure and differentiable in the velocity.

    Args:
        acquisition: From `make_acquisition`.
        velocity: On the grid of its model, (nz, nx) or (nz, ny, nx) [km/s].

    Returns:
        Complex (n_sources, n_receivers), in the precision that JAX works in.
    """
    return acquisition.data(velocity)
