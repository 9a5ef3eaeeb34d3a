"""Where meta-training's tasks come from: a distribution to draw from, or a file.

Every task of a batch has arrays of the same shapes, whatever the size of its model:
models smaller than the largest are continued by their edge values, as the absorbing
layer demands anyway, and the layer begins where the model ends.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from meta_lrpinn import generators, reference
from meta_lrpinn.files import writing
from meta_lrpinn.files.readers.contents import one_line
from meta_lrpinn.learning.configs import TaskDistribution, TrainingConfig
from meta_lrpinn.learning.tasks import Task, TaskSampler
from meta_lrpinn.physics.problem import (
    default_thickness,
    make_problem,
    sample_points,
    velocity_at,
)
from meta_lrpinn.physics.velocity import VelocityModel


def make_tasks(
    models: list[VelocityModel],
    frequency: float,
    sources_x: Sequence[float] | np.ndarray,
    distribution: TaskDistribution,
) -> list[Task]:
    """Tasks of several models of the same size, continued to the largest size.

    Args:
        models: g velocity models on one grid.
        frequency: Frequency [Hz].
        sources_x: Horizontal positions of the sources [km], a task each.
        distribution: Source depth, layer and largest size.

    Returns:
        The tasks, with NumPy leaves in single precision; they share a layer.
    """
    mean = VelocityModel(
        np.mean([model.velocity for model in models], axis=0), models[0].spacing
    )
    sources = [np.array([x, distribution.source_depth]) for x in sources_x]
    v0 = np.array([[velocity_at(m, source) for m in models] for source in sources])
    thickness = 0.0
    if distribution.absorbing:
        fastest = float(v0.mean(axis=1).max())
        thickness = default_thickness(mean, frequency, fastest, distribution.layer_fraction)
    missing = distribution.largest_size - mean.shape[0]
    velocities = np.stack(
        [np.pad(m.velocity, ((0, missing),) * m.ndim, mode="edge") for m in models]
    )

    def task_at(source, v0_of_models):
        problem = make_problem(
            mean,
            frequency,
            source,
            thickness=thickness,
            layer_fraction=distribution.layer_fraction,
        )
        task = Task(
            problem=problem.replace(
                model=VelocityModel(velocities[0], models[0].spacing),
                background_velocity=v0_of_models[0],
            ),
            velocities=velocities,
            background_velocities=v0_of_models,
        )
        return jax.tree.map(_single_precision, task)

    return [task_at(*arguments) for arguments in zip(sources, v0, strict=True)]


def _single_precision(leaf: np.ndarray) -> np.ndarray:
    is_complex = np.iscomplexobj(leaf)
    return np.asarray(leaf, np.complex64 if is_complex else np.float32)


def bytes_of_task(distribution: TaskDistribution) -> int:
    """Bytes of the arrays of a task, of which velocities and wavefields are nearly all."""
    velocities, points = distribution.velocities_per_task, distribution.known_points
    each = 4 * distribution.largest_size**2 + 8 * points
    return velocities * each + 8 * points


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


def draw_velocities(
    distribution: TaskDistribution, rng: np.random.Generator, size: int
) -> list[VelocityModel]:
    """Draws the velocities of a task.

    Args:
        distribution: What to draw from.
        rng: Generator, which is advanced.
        size: Grid points along each axis.

    Returns:
        As many random models as a task of the distribution has.
    """
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


def draw_tasks(
    distribution: TaskDistribution, rng: np.random.Generator, sources: int = 1
) -> list[Task]:
    """Tasks of `draw_unsolved`, with their wavefields if the distribution says so."""
    return draw_unsolved(distribution, rng, sources).solved()


def draw_unsolved(
    distribution: TaskDistribution, rng: np.random.Generator, sources: int = 1
) -> Drawn:
    """Draws a frequency, velocities, and sources anywhere along the top.

    Args:
        distribution: What to draw from.
        rng: Generator, which is advanced.
        sources: Number of sources.

    Returns:
        A task for each source; they share frequency, velocities and layer.
    """
    low, high = distribution.minimum_frequency, distribution.maximum_frequency
    if distribution.log_frequency:
        frequency = np.exp(rng.uniform(np.log(low), np.log(high)))
    else:
        frequency = rng.uniform(low, high)
    size = int(rng.integers(distribution.smallest_size, distribution.largest_size + 1))
    models = draw_velocities(distribution, rng, size)
    places = rng.uniform(0, (size - 1) * distribution.spacing, sources)
    tasks = make_tasks(models, frequency, places, distribution)
    if not distribution.known_points:
        return Drawn(tasks)
    return Drawn(tasks, distribution.known_points, int(rng.integers(2**31)))


def stack_tasks(tasks: list[Task]) -> Task:
    """Tasks of equal shapes as one pytree with a leading task axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def streaming_sampler(
    distribution: TaskDistribution, training: TrainingConfig
) -> TaskSampler:
    """Sampler of new tasks for ever.

    Args:
        distribution: What to draw.
        training: How many tasks a batch has, and whether its algorithm draws query tasks
            or takes the support tasks, at other points.

    Returns:
        `(seed, step)` → (support, query), batches of NumPy arrays.
    """

    def sample(seed, step):
        rng = np.random.default_rng([seed, step])

        def batch():
            number = range(training.tasks_per_batch)
            return stack_tasks([draw_tasks(distribution, rng)[0] for _ in number])

        support = batch()
        return support, batch() if training.algorithm.draws_query else support

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
        number: Points of each task, p.
        seed: Of the points.

    Returns:
        The tasks with `points` (p, ndim) and `scattered` (g, p), complex64.
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


def save_task_set(
    path: str | Path, tasks: list[Task], distribution: TaskDistribution, seed: int
) -> None:
    """Writes tasks as one .npz file, with a manifest beside it.

    Args:
        path: File to write, .npz; the manifest is the same with .json.
        tasks: Tasks of equal shapes and spacing; all with their wavefields, or none.
        distribution: What they were drawn from.
        seed: Of the drawing.
    """
    path = Path(path)
    stacked = stack_tasks(tasks)
    leaves = jax.tree_util.tree_flatten_with_path(stacked)[0]
    arrays = {jax.tree_util.keystr(name): leaf for name, leaf in leaves}
    arrays["spacing"] = np.asarray(tasks[0].problem.model.spacing)
    manifest = {
        "tasks": len(tasks),
        "seed": seed,
        "distribution": dataclasses.asdict(distribution),
        "frequencies": [round(float(t.problem.omega) / (2 * np.pi), 6) for t in tasks],
        "sources": [np.round(t.problem.source, 6).tolist() for t in tasks],
    }
    text = json.dumps(manifest, indent=1) + "\n"
    writing.write_together(
        {
            path.with_suffix(".json"): lambda file: file.write(text.encode()),
            path: lambda file: np.savez_compressed(file, **arrays),
        }
    )


def load_task_set(path: str | Path, distribution: TaskDistribution) -> Task:
    """Reads a file of `save_task_set`.

    Args:
        path: The .npz file.
        distribution: What training expects; its grid must be the file's.

    Returns:
        All tasks as one pytree with a leading task axis; with `scattered` if the file
        has it.

    Raises:
        ValueError: if the file is not a task set, or one of other grids.
    """
    unknown = dataclasses.replace(distribution, known_points=0)
    example = stack_tasks(draw_tasks(unknown, np.random.default_rng(0)))
    try:
        # Of a damaged file NumPy would not close what it had opened itself.
        with open(path, "rb") as opened, np.load(opened) as file:
            if ".scattered" in file:
                # Of these the file says how many there are.
                known = {"points": file[".points"], "scattered": file[".scattered"]}
                example = example.replace(**known)
            leaves, structure = jax.tree_util.tree_flatten_with_path(example)
            arrays = [file[jax.tree_util.keystr(name)] for name, _ in leaves]
            spacing = tuple(file["spacing"].tolist())
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error) or type(error).__name__
        raise ValueError(one_line(f"{path} is not a task set: {reason}")) from None
    expected = example.problem.model.spacing
    if spacing != expected:
        raise ValueError(
            f"{path} has a grid spacing of {spacing} km, training expects {expected} km"
        )
    number = len(np.atleast_1d(arrays[0]))
    for (name, leaf), array in zip(leaves, arrays, strict=True):
        _check_array(f"{path} holds {jax.tree_util.keystr(name)}", array, leaf, number)
    return jax.tree_util.tree_unflatten(structure, arrays)


def _check_array(what: str, array: np.ndarray, expected: np.ndarray, number: int) -> None:
    """Raises ValueError unless an array of a file is one of so many tasks."""
    shape = (number, *expected.shape[1:])
    if array.shape != shape:
        raise ValueError(f"{what} of shape {array.shape}, training expects {shape}")
    if not np.can_cast(array.dtype, expected.dtype, "same_kind"):
        raise ValueError(f"{what} of type {array.dtype}, training expects numbers")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{what} with values that are not finite")


def file_sampler(
    paths: Sequence[str | Path],
    distribution: TaskDistribution,
    training: TrainingConfig,
) -> TaskSampler:
    """Sampler of the tasks of files, the support and query tasks of a batch distinct.

    Args:
        paths: Task sets; see `save_task_set`.
        distribution: What training expects of their grids.
        training: As in `streaming_sampler`.

    Raises:
        ValueError: if the files have too few tasks, or do not fit.
    """
    sets = [load_task_set(path, distribution) for path in paths]
    name = ", ".join(map(str, paths))
    if len({jax.tree.structure(tasks) for tasks in sets}) > 1:
        raise ValueError(f"of {name}, only some hold wavefields")
    if len({None if t.points is None else t.points.shape[1:] for t in sets}) > 1:
        raise ValueError(f"{name} hold wavefields at different numbers of points")
    everything = jax.tree.map(lambda *leaves: np.concatenate(leaves), *sets)
    return set_sampler(everything, training, name)


def set_sampler(tasks: Task, training: TrainingConfig, name: str) -> TaskSampler:
    """Sampler of a fixed set of tasks, the support and query tasks of a batch distinct.

    Args:
        tasks: All of them, with a leading task axis.
        training: As in `streaming_sampler`.
        name: What holds them, in messages.

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
