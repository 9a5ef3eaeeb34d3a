"""Task sets drawn part by part, so that a call can go on where one was stopped."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from meta_lrpinn.files import writing
from meta_lrpinn.learning import configs, task_sets
from meta_lrpinn.learning.task_sets import Drawn
from meta_lrpinn.learning.tasks import Task
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import executors
from meta_lrpinn.runtime.machine import check_memory

_STATE = "state.json"
_MOST_POINTS = 10_000_000  # of a wavefield, which are interpolated together
# Draws the next tasks, given how many there are.
Draw = Callable[[np.random.Generator, int], list[Drawn]]


def of_models(distribution: configs.TaskDistribution, frequencies: np.ndarray) -> Draw:
    """The velocities of a task at every frequency, each with a source of its own.

    Args:
        distribution: Grid, velocities per task, source depth, layer, and whether
            wavefields are known.
        frequencies: Frequencies [Hz].
    """
    size, points = distribution.largest_size, distribution.known_points
    width = (size - 1) * distribution.spacing

    def draw(rng, done):
        del done
        models = task_sets.draw_velocities(distribution, rng, size)
        groups = []
        for frequency in frequencies:
            source_x = rng.uniform(0, width)
            tasks = task_sets.make_tasks(models, frequency, [source_x], distribution)
            seed = int(rng.integers(2**31)) if points else 0
            groups.append(Drawn(tasks, points, seed))
        return groups

    return draw


def at_random(
    distribution: configs.TaskDistribution, number: int, sources: int = 1
) -> Draw:
    """Tasks drawn as meta-training draws them, those of several sources together.

    Args:
        distribution: What to draw from.
        number: Number of tasks in all.
        sources: Tasks that share velocities, frequency and layer.
    """

    def draw(rng, done):
        return [task_sets.draw_unsolved(distribution, rng, min(sources, number - done))]

    return draw


def even_frequencies(distribution: configs.TaskDistribution) -> np.ndarray:
    """The frequencies of a fixed set of tasks [Hz], evenly spaced over the range."""
    return np.linspace(
        distribution.minimum_frequency,
        distribution.maximum_frequency,
        distribution.fixed_frequencies,
    )


def fixed_tasks(distribution: configs.TaskDistribution, seed: int) -> Task:
    """The fixed set of tasks of a distribution, the same for the same seed.

    They are those that `make_task_set` writes, stacked in their order: the published
    560 for 40 models at 14 frequencies.

    Args:
        distribution: With `fixed_models` above zero.
        seed: Seed.
    """
    rng = np.random.default_rng(seed)
    draw = of_models(distribution, even_frequencies(distribution))
    tasks: list[Task] = []
    for _ in range(distribution.fixed_models):
        for drawn in draw(rng, len(tasks)):
            tasks += drawn.solved()
    return task_sets.stack_tasks(tasks)


def make_task_set(
    path: Path,
    distribution: configs.TaskDistribution,
    *,
    random: int | None = None,
    sources: int = 1,
    models: int = 40,
    frequencies: Sequence[float] | np.ndarray | None = None,
    wavefields: bool = False,
    points: int = 3072,
    seed: int = 0,
    cluster: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> int:
    """Draws tasks and writes them as one file, going on where a call was stopped.

    By default as many as the paper's: 40 velocity models, or groups of as many as a task
    of the distribution has, each at 14 frequencies.

    Args:
        path: File to write, .npz; its manifest is beside it.
        distribution: Grid, layer and velocities per task.
        random: So many tasks drawn as meta-training draws them, instead of models at
            frequencies.
        sources: Tasks that share velocities and frequency; with `random` only.
        models: Velocity models, or groups of them.
        frequencies: Frequencies at which each is solved [Hz]; by default evenly spaced
            over the distribution's range. Not with `random`.
        wavefields: Add the solved wavefields.
        points: Points of each wavefield.
        seed: Seed.
        cluster: Address of a Dask scheduler, on whose workers wavefields are solved.
        workers: Processes on this machine for them instead.
        progress: Show a progress bar.

    Returns:
        Number of tasks; the same ones wherever they are solved.

    Raises:
        ValueError: if an argument is out of its range, or the file's folder of parts
            holds tasks of other settings.
        OSError: if no scheduler answers.
    """
    _check_numbers(seed, sources=sources, models=models, points=points)
    if wavefields and not distribution.absorbing:
        raise ValueError("wavefields need a preset with an absorbing layer")
    known = points if wavefields else 0
    distribution = dataclasses.replace(distribution, known_points=known)
    if random is not None:
        if random < 1:
            raise ValueError(f"random must be at least 1, got {random}")
        if frequencies is not None:
            raise ValueError("frequencies are of models; random tasks have the preset's")
        draw, number = at_random(distribution, random, sources), random
        settings: dict[str, Any] = {"sources": sources}
    else:
        if frequencies is None:
            frequencies = even_frequencies(distribution)
        frequencies = problems.check_frequencies(frequencies)
        _check_scale(distribution, frequencies)
        distribution = dataclasses.replace(
            distribution,
            minimum_frequency=float(min(frequencies)),
            maximum_frequency=float(max(frequencies)),
        )
        draw, number = of_models(distribution, frequencies), models * len(frequencies)
        settings = {"frequencies": frequencies.tolist()}
    check_memory(
        2 * float(number) * task_sets.bytes_of_task(distribution),
        f"{number:,} tasks, which are read whole,",
        "make fewer, or several files with other seeds",
    )
    with executors.mapper(cluster, workers) as solve_all:
        collect(
            path,
            draw,
            number,
            seed,
            distribution,
            settings,
            solve_all=solve_all,
            progress=progress,
        )
    return number


def _check_numbers(seed: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if numbers["points"] > _MOST_POINTS:
        raise ValueError(
            f"points must be at most {_MOST_POINTS:,}, got {numbers['points']}"
        )
    if not 0 <= seed <= configs.LARGEST_SEED:
        raise ValueError(f"seed must be from 0 to {configs.LARGEST_SEED}, got {seed}")


def _check_scale(distribution: configs.TaskDistribution, frequencies: np.ndarray) -> None:
    """Refuses frequencies that are not in Hz."""
    shape = (distribution.largest_size,) * 2
    velocity = np.full(shape, distribution.minimum_velocity)
    model = VelocityModel(velocity, distribution.spacing)
    for frequency in (min(frequencies), max(frequencies)):
        problems.check_scale(model, frequency)


def collect(
    path: Path,
    draw: Draw,
    number: int,
    seed: int,
    distribution: configs.TaskDistribution,
    settings: Mapping[str, Any],
    part: int = 100,
    solve_all: executors.Mapper = map,
    progress: bool = True,
) -> None:
    """Draws tasks and writes them as one file, going on where a call was stopped.

    Until all are there, they are kept in a folder beside the file, `part` by `part`,
    with the state of the random generator.

    Args:
        path: File to write, .npz.
        draw: Next tasks.
        number: How many in all.
        seed: Of the drawing.
        distribution: What is drawn from.
        settings: What else the tasks depend on; plain values.
        part: Tasks, at least, between two writes.
        solve_all: Where wavefields are solved, see `executors.mapper`.
        progress: Show a progress bar.

    Raises:
        ValueError: if the folder holds tasks of other settings, or is damaged.
        BlockingIOError: if another call is drawing this file.
    """
    folder = path.with_suffix(".parts")
    settings = {
        "number": number,
        "seed": seed,
        "distribution": dataclasses.asdict(distribution),
        **settings,
    }
    with writing.locked(folder):
        sizes = _draw_parts(folder, draw, settings, distribution, part, solve_all, progress)
        tasks = []
        for index, size in enumerate(sizes):
            stacked = task_sets.load_task_set(folder / f"{index}.npz", distribution)
            for i in range(size):
                tasks.append(jax.tree.map(lambda leaf: leaf[i], stacked))
        task_sets.save_task_set(path, tasks, distribution, seed)
        # First of all, so that what is half removed is not gone on with.
        (folder / _STATE).unlink()
        shutil.rmtree(folder)


def _draw_parts(
    folder: Path,
    draw: Draw,
    settings: Mapping[str, Any],
    distribution: configs.TaskDistribution,
    part: int,
    solve_all: executors.Mapper,
    progress: bool,
) -> list[int]:
    """Draws the parts that are missing in a folder; the number of tasks of each."""
    file = folder / _STATE
    number, seed = settings["number"], settings["seed"]
    rng = np.random.default_rng(seed)
    sizes = _read_state(file, settings, rng) if file.exists() else []
    with tqdm.tqdm(
        total=number, initial=sum(sizes), unit="task", disable=not progress
    ) as bar:
        while (done := sum(sizes)) < number:
            groups: list[Drawn] = []
            size = 0
            while size < part and done + size < number:
                drawn = draw(rng, done + size)
                groups += drawn
                size += sum(len(group.tasks) for group in drawn)
            file_of_part = folder / f"{len(sizes)}.npz"
            tasks = _solved(groups, solve_all, bar)
            task_sets.save_task_set(file_of_part, tasks, distribution, seed)
            sizes.append(size)
            state = {"settings": settings, "sizes": sizes}
            state["rng"] = rng.bit_generator.state
            text = json.dumps(state).encode()
            writing.write_together({file: lambda out, text=text: out.write(text)})
    return sizes


def _solved(
    groups: Sequence[Drawn], solve_all: executors.Mapper, bar: tqdm.tqdm
) -> list[Task]:
    """The tasks of all groups in their order, whichever is solved first."""
    solved: dict[int, list[Task]] = {}
    for index, tasks in solve_all(_solve_one, enumerate(groups)):
        solved[index] = tasks
        bar.update(len(tasks))
    return [task for index in range(len(groups)) for task in solved[index]]


def _solve_one(numbered: tuple[int, Drawn]) -> tuple[int, list[Task]]:
    index, drawn = numbered
    return index, drawn.solved()


def _read_state(
    file: Path, settings: Mapping[str, Any], rng: np.random.Generator
) -> list[int]:
    """Sizes of the parts that are there; the generator goes on after the last."""
    try:
        state = json.loads(file.read_text())
        saved, sizes = state["settings"], [int(size) for size in state["sizes"]]
        rng.bit_generator.state = state["rng"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}); remove its folder"
        ) from None
    if saved != settings:
        raise ValueError(f"{file.parent} holds tasks of other options; remove it")
    return sizes
