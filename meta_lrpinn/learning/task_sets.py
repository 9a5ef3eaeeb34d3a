"""Velocity–frequency tasks: what meta-training draws and adaptation is given.

A task is one frequency and source with one or several velocity models. The networks see
points, source and frequency only, so the velocities of a task share every evaluation of
the network; an objective that eliminates the output layer solves for each of them.

Every task of a batch has arrays of the same shapes, whatever the size of its model:
models smaller than the largest are continued by their edge values, as the absorbing
layer demands anyway, and the layer begins where the model ends.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn import generators, reference
from meta_lrpinn.learning.configs import TaskDistribution, TrainingConfig
from meta_lrpinn.physics.problem import (
    HelmholtzProblem,
    default_thickness,
    make_problem,
    sample_points,
    velocity_at,
)
from meta_lrpinn.physics.velocity import VelocityModel
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


# (seed, step) → support and query tasks, each a batch with a leading task axis. They are
# distinct tasks if the algorithm draws query tasks, else the same at other points.
TaskSampler = Callable[[int, int], tuple[Task, Task]]


class Drawn(NamedTuple):
    """Tasks of the same velocities and frequency whose wavefields may be missing yet."""

    tasks: list[Task]
    points: int = 0  # of each wavefield; 0 for none
    seed: int = 0  # of these points

    def solved(self) -> list[Task]:
        """The tasks, with their wavefields if they are to have any."""
        if not self.points:
            return self.tasks
        return with_scattered(self.tasks, self.points, self.seed)


def single_task(problem: HelmholtzProblem) -> Task:
    """The task of one problem, g = 1."""
    return Task(
        problem=problem,
        velocities=jnp.asarray(problem.model.velocity)[None],
        background_velocities=jnp.asarray(problem.background_velocity)[None],
    )


def make_tasks(
    models: list[VelocityModel],
    frequency: float,
    sources_x: Sequence[float] | np.ndarray,
    distribution: TaskDistribution,
) -> list[Task]:
    """Tasks of several models of the same size, continued to the largest size.

    They share a layer, and have NumPy leaves in single precision.

    Args:
        models: g velocity models on one grid.
        frequency: Frequency [Hz].
        sources_x: Horizontal positions of the sources [km], a task each.
        distribution: Source depth, layer and largest size.
    """
    spacing, fraction = models[0].spacing, distribution.layer_fraction
    mean = VelocityModel(np.mean([model.velocity for model in models], axis=0), spacing)
    sources = [np.array([x, distribution.source_depth]) for x in sources_x]
    v0 = np.array([[velocity_at(m, source) for m in models] for source in sources])
    thickness = 0.0
    if distribution.absorbing:
        fastest = float(v0.mean(axis=1).max())
        thickness = default_thickness(mean, frequency, fastest, fraction)
    missing = distribution.largest_size - mean.shape[0]
    velocities = np.stack(
        [np.pad(m.velocity, ((0, missing),) * m.ndim, mode="edge") for m in models]
    )
    first = VelocityModel(velocities[0], spacing)
    layer = {"thickness": thickness, "layer_fraction": fraction}

    def task_at(source, v0_of_models):
        problem = make_problem(mean, frequency, source, **layer)
        problem = problem.replace(model=first, background_velocity=v0_of_models[0])
        return jax.tree.map(_single_precision, Task(problem, velocities, v0_of_models))

    return list(map(task_at, sources, v0))


def bytes_of_task(distribution: TaskDistribution) -> int:
    """Bytes of the arrays of a task, of which velocities and wavefields are nearly all."""
    velocities, points = distribution.velocities_per_task, distribution.known_points
    each = 4 * distribution.largest_size**2 + 8 * points
    return velocities * each + 8 * points


def draw_velocities(
    distribution: TaskDistribution, rng: np.random.Generator, size: int
) -> list[VelocityModel]:
    """Draws as many random models, of `size` points along each axis, as a task has."""
    return [
        generators.random_velocity(
            int(rng.integers(2**31)),
            (size, size),
            distribution.spacing,
            minimum=distribution.minimum_velocity,
            maximum=distribution.maximum_velocity,
        )
        for _ in range(distribution.velocities_per_task)
    ]


def draw_unsolved(
    distribution: TaskDistribution, rng: np.random.Generator, sources: int = 1
) -> Drawn:
    """Draws a frequency, velocities, and so many sources anywhere along the top.

    Each source has a task; they share frequency, velocities and layer.
    """
    low, high = distribution.minimum_frequency, distribution.maximum_frequency
    if distribution.log_frequency:
        frequency = np.exp(rng.uniform(np.log(low), np.log(high)))
    else:
        frequency = rng.uniform(low, high)
    size = int(rng.integers(distribution.smallest_size, distribution.largest_size + 1))
    models = draw_velocities(distribution, rng, size)
    sources_x = rng.uniform(0, (size - 1) * distribution.spacing, sources)
    tasks = make_tasks(models, frequency, sources_x, distribution)
    points = distribution.known_points
    return Drawn(tasks, points, int(rng.integers(2**31)) if points else 0)


def draw_tasks(
    distribution: TaskDistribution, rng: np.random.Generator, sources: int = 1
) -> list[Task]:
    """Tasks of `draw_unsolved`, with their wavefields if the distribution says so."""
    return draw_unsolved(distribution, rng, sources).solved()


def draw_at_frequencies(
    distribution: TaskDistribution, rng: np.random.Generator, frequencies: np.ndarray
) -> list[Drawn]:
    """Draws the velocities of a task, at each frequency [Hz] with a source of its own."""
    size, points = distribution.largest_size, distribution.known_points
    models = draw_velocities(distribution, rng, size)
    groups = []
    for frequency in frequencies:
        source_x = rng.uniform(0, (size - 1) * distribution.spacing)
        tasks = make_tasks(models, frequency, [source_x], distribution)
        groups.append(Drawn(tasks, points, int(rng.integers(2**31)) if points else 0))
    return groups


def even_frequencies(distribution: TaskDistribution) -> np.ndarray:
    """The frequencies of a fixed set of tasks [Hz], evenly spaced over the range."""
    return np.linspace(
        distribution.minimum_frequency,
        distribution.maximum_frequency,
        distribution.fixed_frequencies,
    )


def fixed_tasks(distribution: TaskDistribution, seed: int) -> Task:
    """The fixed set of tasks of a distribution, the same for the same seed.

    They are those that `task_files.make_task_set` writes, stacked in their order: the
    published 560 for 40 models at 14 frequencies.
    """
    rng, frequencies = np.random.default_rng(seed), even_frequencies(distribution)
    groups = (
        group
        for _ in range(distribution.fixed_models)
        for group in draw_at_frequencies(distribution, rng, frequencies)
    )
    return stack_tasks([task for group in groups for task in group.solved()])


def stack_tasks(tasks: Sequence[Task]) -> Task:
    """Tasks of equal shapes as one pytree with a leading task axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def streaming_sampler(
    distribution: TaskDistribution, training: TrainingConfig
) -> TaskSampler:
    """Sampler of new tasks for ever, in batches of NumPy arrays."""

    def sample(seed, step):
        rng = np.random.default_rng([seed, step])

        def batch():
            number = range(training.tasks_per_batch)
            return stack_tasks([draw_tasks(distribution, rng)[0] for _ in number])

        support = batch()
        return support, batch() if training.algorithm.draws_query else support

    return sample


def set_sampler(tasks: Task, training: TrainingConfig, name: str) -> TaskSampler:
    """Sampler of a fixed set of tasks, leaves (tasks, ...), with a name for messages.

    Raises:
        ValueError: if a batch needs more tasks.
    """
    total, size = len(tasks.velocities), training.tasks_per_batch
    draws_query = training.algorithm.draws_query
    needed = 2 * size if draws_query else size
    if total < needed:
        raise ValueError(f"{name} holds {total} tasks, a batch needs {needed}")

    def sample(seed, step):
        chosen = np.random.default_rng([seed, step]).permutation(total)[:needed]
        support = jax.tree.map(lambda leaf: leaf[chosen[:size]], tasks)
        if not draws_query:
            return support, support
        return support, jax.tree.map(lambda leaf: leaf[chosen[size:]], tasks)

    return sample


def with_scattered(tasks: list[Task], number: int, seed: int) -> list[Task]:
    """Tasks with their wavefields at random points of the model and its layer.

    By finite differences on the model's own grid and in the task's own layer, so that
    the wavefields are those that a solve over features has to represent. At 25 m
    spacing and velocities above 1.5 km/s their error is below 0.01 % at 5 Hz and 0.2 %
    at 12 Hz. A factorisation takes a tenth of a second, a source a third of that.

    Args:
        tasks: Concrete tasks that share frequency, velocities and an absorbing layer,
            as `make_tasks` gives them.
        number: Points of each task.
        seed: Of the points.
    """
    first = tasks[0].problem
    frequency = float(first.omega) / (2 * np.pi)
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, float), first.layer)
    spacing = np.asarray(first.model.spacing)
    # Not the continuation, which lies in the layer.
    nodes = np.rint((layer.upper - layer.lower)[::-1] / spacing).astype(int) + 1
    of_model = tuple(slice(count) for count in nodes)
    keys = jax.random.split(jax.random.key(seed), len(tasks))
    points = [
        np.asarray(sample_points(key, task.problem, number), float)
        for key, task in zip(keys, tasks, strict=True)
    ]
    scattered = np.empty((len(tasks), len(tasks[0].velocities), number), np.complex64)
    for member, velocity in enumerate(tasks[0].velocities):
        model = VelocityModel(np.asarray(velocity[of_model], float), first.model.spacing)
        solver = reference.factorise(model, frequency, refinement=1, layer=layer)
        for index, task in enumerate(tasks):
            field = solver.solve(
                np.asarray(task.problem.source, float),
                complex(task.problem.amplitude),
                float(task.background_velocities[member]),
            )
            scattered[index, member] = solver.interpolate(field, points[index], layer=True)
    return [
        task.replace(points=known.astype(np.float32), scattered=fields)
        for task, known, fields in zip(tasks, points, scattered, strict=True)
    ]


def _single_precision(leaf: np.ndarray) -> np.ndarray:
    is_complex = np.iscomplexobj(leaf)
    return np.asarray(leaf, np.complex64 if is_complex else np.float32)
