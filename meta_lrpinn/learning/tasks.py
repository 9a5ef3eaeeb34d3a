"""Velocity–frequency tasks: what meta-training draws and adaptation is given.

A task is one frequency and source with one or several velocity models. The networks see
points, source and frequency only, so the velocities of a task share every evaluation of
the network; an objective that eliminates the output layer solves for each of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import Array


class Task(struct.PyTreeNode):
    """One frequency and source, g velocity models; a pytree that can be stacked."""

    problem: HelmholtzProblem  # frequency, source and layer of all; one of the velocities
    velocities: Array  # (g, nz, nx) or (g, nz, ny, nx) [km/s]
    background_velocities: Array  # (g,) km/s, v₀ of each
    points: jax.Array | None = None  # (p, ndim) km, where δu is known, layer included
    scattered: jax.Array | None = None  # (g, p) complex, known δu there

    def member(
        self, velocity: jax.Array, background_velocity: jax.Array
    ) -> HelmholtzProblem:
        """The problem of one of the velocities, for use under `vmap` or `map`."""
        return self.problem.replace(
            model=self.problem.model.replace_velocity(velocity),
            background_velocity=background_velocity,
        )


def single_task(problem: HelmholtzProblem) -> Task:
    """The task of one problem, g = 1."""
    return Task(
        problem=problem,
        velocities=jnp.asarray(problem.model.velocity)[None],
        background_velocities=jnp.asarray(problem.background_velocity)[None],
    )


# (seed, step) → support and query tasks, each a batch with a leading task axis.
TaskSampler = Callable[[int, int], tuple[Task, Task]]
