"""`run_survey`: every velocity, frequency and source, block by block into a file.

A block is one frequency of some velocities and some sources, and one chunk of the file.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from meta_lrpinn.files import writing
from meta_lrpinn.files.velocity_stacks import Velocities, open_velocities
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.results import survey_files
from meta_lrpinn.runtime import executors
from meta_lrpinn.solvers.protocol import Bounds, Conditions, Prepared, bounds_of
from meta_lrpinn.solvers.settings import Solver
from meta_lrpinn.solvers.survey import Plan, make_plan, solve_models

# Of the progress in a log file.
_SECONDS_BETWEEN_LINES = 30.0
# Chunks of a size that file systems and object stores like.
_CHUNK_BYTES = 64 * 2**20
# A stop or a lost worker costs a block for each worker: a few minutes. Small surveys are
# divided, too, so that several workers have something to do. Not tuned.
_MOST_MODELS, _LEAST_BLOCKS = 32, 16
# A block may take this part of the memory; the solver's vectors have the rest. Not tuned.
_PART_OF_MEMORY = 0.25
_BYTES = np.dtype(np.complex64).itemsize


@dataclasses.dataclass(frozen=True)
class SurveyRun:
    """What one call of `run_survey` did."""

    out: str  # where the wavefields are
    shape: tuple[int, int, int]  # (n_models, n_frequencies, n_sources)
    solved: int  # wavefields solved by this call; the others were there
    chunks: int  # in all
    # Wavefields of all that missed the tolerance; without one, those of this call whose
    # iterations ended early, or None.
    missed: int | None
    elapsed: float  # [s], compilation included

    @property
    def converged(self) -> bool | None:
        """Whether no wavefield was missed; None where no tolerance was asked for."""
        return None if self.missed is None else self.missed == 0

    @property
    def throughput(self) -> float:
        """Wavefields per second of this call, compilation included."""
        return self.solved / self.elapsed


class Block(NamedTuple):
    """Where a chunk stands in arrays of (n_models, n_frequencies, n_sources)."""

    models: slice
    frequencies: slice  # of one
    sources: slice

    @property
    def wavefields(self) -> int:
        """How many it holds."""
        return math.prod(part.stop - part.start for part in self)


@dataclasses.dataclass(frozen=True)
class Job:
    """What all blocks of a survey have in common; equal if the survey is."""

    output: survey_files.Output
    checksum: str  # of the description
    plan: Plan = dataclasses.field(compare=False)
    bounds: Bounds = dataclasses.field(compare=False)


def run_survey(
    velocities: str | os.PathLike | Velocities | Sequence[VelocityModel],
    frequencies: Sequence[float],
    sources: np.ndarray,
    out: str | os.PathLike,
    settings: Solver | None = None,
    *,
    receivers: np.ndarray | None = None,
    amplitude: complex | None = None,
    memory: float = 4.0,
    models_per_chunk: int | None = None,
    seed: int = 0,
    free_surface: bool = False,
    cluster: str | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> SurveyRun:
    """Solves for every velocity, frequency and source, into a zarr file.

    The same call goes on where one was stopped: a chunk is there whole, or is solved
    again. `xarray.open_zarr(out)` opens the result, while it grows too. A tolerance that
    is not reached ends nothing; the array `converged` says where. Arguments that are not
    listed are those of `solve_survey`.

    Args:
        velocities: Models on one grid, or a file of them (`open_velocities`), which
            workers read themselves.
        out: Path of the zarr file, or URL; workers write to it themselves.
        memory: GiB that the fields and vectors of a process may take; it decides how
            large chunks are.
        models_per_chunk: Models of a chunk at most.
        cluster: Address of a Dask scheduler; the wavefields are the same.
        workers: Processes of a Dask cluster on this machine instead.
        progress: Show a progress bar with the rate and the time left.

    Returns:
        What was done.

    Raises:
        ValueError: if an argument is out of its range, or `out` is something else.
        WorkersLost: if a chunk ended several workers.
    """
    began = time.perf_counter()
    velocities = open_velocities(velocities)
    grid = velocities.grid
    conditions = Conditions(
        amplitude=amplitude, memory=memory, seed=seed, free_surface=free_surface
    )
    plan = make_plan(grid, frequencies, sources, settings, receivers, conditions)
    points = int(np.prod(grid.shape)) if plan.receivers is None else len(plan.receivers)
    shape = (len(velocities), len(plan.frequencies), len(plan.sources))
    sizes = block_sizes(shape[0], shape[2], points, memory, models_per_chunk)
    bounds, digest = _scan(velocities)
    # What cannot be solved for is refused before anything is solved.
    for frequency in (np.min(plan.frequencies), np.max(plan.frequencies)):
        plan.prepare(bounds, frequency)
    description = _description(plan, grid, shape[0], digest, sizes)
    survey_files.check_room(out, 8 * int(np.prod(shape)) * points)
    with contextlib.ExitStack() as stack:
        solve_all = stack.enter_context(executors.mapper(cluster, workers))
        if "://" not in os.fspath(out):
            stack.enter_context(writing.locked(out))
        output = survey_files.open_output(out, description, plan, grid, shape[0], sizes)
        output.clear_partial()
        checksum = hashlib.sha256(repr(description).encode()).hexdigest()
        job = Job(output, checksum, plan, bounds)
        everything = list(blocks(shape, sizes))
        is_there = output.solved(sizes).transpose(1, 2, 0).ravel()
        missing = [b for b, there in zip(everything, is_there, strict=True) if not there]
        ended_early = _run(job, velocities, missing, shape, solve_all, progress)
        output.clear_partial()  # of workers that were lost
        missed = output.missed()
        if missed is None and ended_early:
            missed = ended_early
    return SurveyRun(
        out=output.url,
        shape=shape,
        solved=_count(missing),
        chunks=len(everything),
        missed=missed,
        elapsed=time.perf_counter() - began,
    )


def _run(
    job: Job,
    velocities: Velocities,
    missing: list[Block],
    shape: tuple[int, int, int],
    solve_all: executors.Mapper,
    progress: bool,
) -> int:
    """Solves blocks; returns how many wavefields have not converged."""
    total, missed = int(np.prod(shape)), 0
    tasks = (
        (job, block, velocities.part(block.models.start, block.models.stop))
        for block in missing
    )
    with tqdm.tqdm(
        total=total,
        initial=total - _count(missing),
        disable=not progress,
        unit="field",
        mininterval=0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES,
    ) as bar:
        for number, early in solve_all(solve_block, tasks):
            missed += early
            bar.update(number)
    return missed


def solve_block(task: tuple[Job, Block, Velocities]) -> tuple[int, int]:
    """Solves one block and writes it.

    Args:
        task: The survey, which block, and its velocities.

    Returns:
        Number of wavefields, and of those that have not converged.
    """
    job, block, velocities = task
    prepared = _prepared(
        job, block.frequencies.start, block.sources.start, block.sources.stop
    )
    fields, estimates, unknowns, converged = (
        np.stack(values) for values in zip(*solve_models(prepared, velocities), strict=True)
    )
    is_asked = job.plan.settings.tolerance is not None
    job.output.write(block, fields, estimates, unknowns, converged if is_asked else None)
    return block.wavefields, int(np.sum(~converged))


@functools.lru_cache(maxsize=1)
def _prepared(job: Job, frequency: int, first: int, last: int) -> Prepared:
    """The solver of blocks that differ in their models only, which follow each other."""
    plan = dataclasses.replace(job.plan, sources=job.plan.sources[first:last])
    return plan.prepare(job.bounds, plan.frequencies[frequency])


def _scan(velocities: Velocities) -> tuple[Bounds, str]:
    """Bounds of all velocities and SHA-256 of their values, in one pass."""
    digest = hashlib.sha256()

    def values():
        for model in velocities:
            digest.update(np.asarray(model.velocity, float).tobytes())
            yield model.velocity

    bounds = bounds_of(velocities.grid, values())
    if bounds.lowest.quality is not None:
        digest.update(np.asarray(bounds.lowest.quality, float).tobytes())
    return bounds, digest.hexdigest()


def _description(
    plan: Plan,
    grid: VelocityModel,
    models: int,
    checksum: str,
    sizes: tuple[int, int],
) -> dict[str, Any]:
    """All that the wavefields and their chunks depend on, as JSON has it."""
    amplitude = plan.conditions.amplitude
    return {
        "format": 1,
        "velocities": checksum,
        "models": models,
        "shape": list(grid.shape),
        "spacing": list(grid.spacing),
        "origin": list(grid.origin),
        "frequencies": plan.frequencies.tolist(),
        "sources": plan.sources.tolist(),
        "receivers": None if plan.receivers is None else plan.receivers.tolist(),
        "solver": plan.settings.name,
        "settings": _plain(plan.settings),
        "amplitude": None if amplitude is None else str(amplitude),
        "memory": plan.conditions.memory,
        "seed": plan.conditions.seed,
        "models_per_chunk": sizes[0],
        "sources_per_chunk": sizes[1],
        # Surveys of versions without it go on.
        **({"free_surface": True} if plan.conditions.free_surface else {}),
    }


def _plain(value: Any) -> Any:
    """Settings as plain values; of a network the checksum of its parameters."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Network):
        return value.checksum()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    return str(value)


def block_sizes(
    models: int, sources: int, points: int, memory: float, most: int | None = None
) -> tuple[int, int]:
    """Models and sources of a block.

    Args:
        models: Number of velocities of the survey.
        sources: Number of sources.
        points: Numbers of one wavefield: receivers, or points of the grid.
        memory: GiB that one process may take.
        most: Models of a block at most; by default by size and number.

    Raises:
        ValueError: if one wavefield does not fit, or `most` is not positive.
    """
    if most is not None and most < 1:
        raise ValueError(f"models_per_chunk must be at least 1, got {most}")
    bytes_of_one = points * _BYTES
    room = _PART_OF_MEMORY * memory * 2**30
    if bytes_of_one > room:
        raise ValueError(
            f"one wavefield takes {bytes_of_one / 2**30:.3g} GiB, more than a quarter of "
            f"the memory of {memory:g} GiB; give receivers or more memory"
        )
    budget = min(_CHUNK_BYTES, room)
    per_source = int(np.clip(budget // bytes_of_one, 1, sources))
    if most is None:
        most = min(_MOST_MODELS, -(-models // _LEAST_BLOCKS))
    per_model = int(np.clip(budget // (bytes_of_one * per_source), 1, min(most, models)))
    return per_model, per_source


def blocks(shape: tuple[int, int, int], sizes: tuple[int, int]) -> Iterator[Block]:
    """All blocks, those that share a frequency and sources one after the other.

    Args:
        shape: (n_models, n_frequencies, n_sources) of the survey.
        sizes: Models and sources of a block.
    """
    models, frequencies, sources = shape
    starts = itertools.product(
        range(frequencies), range(0, sources, sizes[1]), range(0, models, sizes[0])
    )
    for frequency, source, model in starts:
        yield Block(
            slice(model, min(model + sizes[0], models)),
            slice(frequency, frequency + 1),
            slice(source, min(source + sizes[1], sources)),
        )


def _count(several: list[Block]) -> int:
    return sum(block.wavefields for block in several)
