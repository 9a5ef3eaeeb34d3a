"""Files of tasks, drawn part by part, so that a call can go on where one was stopped."""

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
from meta_lrpinn.files.readers.contents import one_line
from meta_lrpinn.learning import configs, task_sets
from meta_lrpinn.learning.configs import TaskDistribution, TrainingConfig
from meta_lrpinn.learning.task_sets import Drawn, Task, TaskSampler
from meta_lrpinn.physics.problem import check_frequencies, check_scale
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import executors
from meta_lrpinn.runtime.machine import check_memory

_MOST_POINTS = 10_000_000  # of a wavefield, which are interpolated together
# Draws the next tasks, given how many there are.
Draw = Callable[[np.random.Generator, int], list[Drawn]]


def make_task_set(
    path: Path,
    distribution: TaskDistribution,
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
        ValueError: if an argument is out of its range, or as of `collect`.
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
            frequencies = task_sets.even_frequencies(distribution)
        frequencies = check_frequencies(frequencies)
        _check_scale(distribution, frequencies)
        distribution = dataclasses.replace(
            distribution,
            minimum_frequency=float(min(frequencies)),
            maximum_frequency=float(max(frequencies)),
        )
        draw, number = at_frequencies(distribution, frequencies), models * len(frequencies)
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


def at_random(distribution: TaskDistribution, number: int, sources: int = 1) -> Draw:
    """Draws `number` tasks as meta-training does, those of so many sources together."""
    return lambda rng, done: [
        task_sets.draw_unsolved(distribution, rng, min(sources, number - done))
    ]


def at_frequencies(distribution: TaskDistribution, frequencies: np.ndarray) -> Draw:
    """Draws velocities, which are solved at every frequency [Hz]."""
    return lambda rng, _: task_sets.draw_at_frequencies(distribution, rng, frequencies)


def save_task_set(
    path: str | Path, tasks: list[Task], distribution: TaskDistribution, seed: int
) -> None:
    """Writes tasks as one .npz file, with a manifest (.json) beside it.

    They are of equal shapes and spacing, all with their wavefields, or none; distribution
    and seed are what they were drawn from.
    """
    path = Path(path)
    stacked = task_sets.stack_tasks(tasks)
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
    """All tasks of a file of `save_task_set`, leaves (tasks, ...).

    Raises:
        ValueError: if it is not a task set, or not on the grid of the distribution.
    """
    unknown = dataclasses.replace(distribution, known_points=0)
    example = task_sets.stack_tasks(task_sets.draw_tasks(unknown, np.random.default_rng(0)))
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


def file_sampler(
    paths: Sequence[str | Path], distribution: TaskDistribution, training: TrainingConfig
) -> TaskSampler:
    """Sampler of the tasks of files of `save_task_set`.

    Raises:
        ValueError: if they have too few tasks, or do not fit the distribution.
    """
    sets = [load_task_set(path, distribution) for path in paths]
    name = ", ".join(map(str, paths))
    if len({jax.tree.structure(tasks) for tasks in sets}) > 1:
        raise ValueError(f"of {name}, only some hold wavefields")
    if len({None if t.points is None else t.points.shape[1:] for t in sets}) > 1:
        raise ValueError(f"{name} hold wavefields at different numbers of points")
    everything = jax.tree.map(lambda *leaves: np.concatenate(leaves), *sets)
    return task_sets.set_sampler(everything, training, name)


def collect(
    path: Path,
    draw: Draw,
    number: int,
    seed: int,
    distribution: TaskDistribution,
    settings: Mapping[str, Any],
    part: int = 100,
    solve_all: executors.Mapper = map,
    progress: bool = True,
) -> None:
    """Writes so many tasks of `draw` as one file, going on where a call was stopped.

    Until all are there, they are kept in a folder beside the file, `part` by `part`,
    with the state of the random generator.

    Args:
        path, number, seed, distribution, progress: As of `make_task_set`.
        draw: Next tasks.
        settings: What else the tasks depend on; plain values.
        part: Tasks, at least, between two writes.
        solve_all: Where wavefields are solved, see `executors.mapper`.

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
    state, rng = folder / "state.json", np.random.default_rng(seed)
    with writing.locked(folder):
        sizes = _read_state(state, settings, rng) if state.exists() else []
        with tqdm.tqdm(
            total=number, initial=sum(sizes), unit="task", disable=not progress
        ) as bar:
            while (done := sum(sizes)) < number:
                groups = _draw_part(draw, rng, done, min(done + part, number))
                tasks = _solved(groups, solve_all, bar)
                save_task_set(folder / f"{len(sizes)}.npz", tasks, distribution, seed)
                sizes.append(len(tasks))
                _write_state(state, settings, sizes, rng)
        tasks = []
        for index, size in enumerate(sizes):
            stacked = load_task_set(folder / f"{index}.npz", distribution)
            tasks += [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(size)]
        save_task_set(path, tasks, distribution, seed)
        # First of all, so that what is half removed is not gone on with.
        state.unlink()
        shutil.rmtree(folder)


def _draw_part(draw: Draw, rng: np.random.Generator, first: int, last: int) -> list[Drawn]:
    """Groups of tasks from number `first`, until there are `last` or more."""
    groups: list[Drawn] = []
    while first < last:
        drawn = draw(rng, first)
        groups += drawn
        first += sum(len(group.tasks) for group in drawn)
    return groups


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


def _write_state(
    file: Path, settings: Mapping[str, Any], sizes: list[int], rng: np.random.Generator
) -> None:
    state = {"settings": settings, "sizes": sizes, "rng": rng.bit_generator.state}
    text = json.dumps(state).encode()
    writing.write_together({file: lambda out: out.write(text)})


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


def _check_scale(distribution: TaskDistribution, frequencies: np.ndarray) -> None:
    """Refuses frequencies that are not in Hz."""
    shape = (distribution.largest_size,) * 2
    velocity = np.full(shape, distribution.minimum_velocity)
    model = VelocityModel(velocity, distribution.spacing)
    for frequency in (min(frequencies), max(frequencies)):
        check_scale(model, frequency)


def _check_array(what: str, array: np.ndarray, expected: np.ndarray, number: int) -> None:
    """Raises ValueError unless an array of a file is one of so many tasks."""
    shape = (number, *expected.shape[1:])
    if array.shape != shape:
        raise ValueError(f"{what} of shape {array.shape}, training expects {shape}")
    if not np.can_cast(array.dtype, expected.dtype, "same_kind"):
        raise ValueError(f"{what} of type {array.dtype}, training expects numbers")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{what} with values that are not finite")
