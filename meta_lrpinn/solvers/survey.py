"""Whole surveys in one call: many velocities, frequencies and sources.

A solver is prepared once for each frequency and serves all velocities: with plane waves on
one lattice; a network's features are evaluated once for each source. The sources are
right-hand sides of one system. `survey_run` does the same for surveys larger than memory.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tqdm

from meta_lrpinn.physics import problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers.protocol import (
    Bounds,
    Conditions,
    Prepared,
    bounds_of,
    check_positions,
)
from meta_lrpinn.solvers.settings import Solver, check_settings


@dataclasses.dataclass(frozen=True)
class Survey:
    """Scattered wavefields of all combinations."""

    frequencies: np.ndarray  # (n_frequencies,) Hz
    sources: np.ndarray  # (n_sources, ndim) km
    receivers: np.ndarray | None  # (n_receivers, ndim) km, None for the models' grid
    # (n_models, n_frequencies, n_sources, n_receivers), or the grid's shape at the end
    scattered: np.ndarray
    unknowns: np.ndarray  # (n_models, n_frequencies) complex unknowns of each solve
    # (n_models, n_frequencies, n_sources) own estimates of the relative error, or NaN
    error_estimates: np.ndarray
    # (n_models, n_frequencies, n_sources) whether a tolerance that was asked for was
    # reached; None where none was
    converged: np.ndarray | None
    elapsed: float  # [s], compilation included

    @property
    def throughput(self) -> float:
        """Wavefields per second, compilation included."""
        models, frequencies, sources = self.scattered.shape[:3]
        return models * frequencies * sources / self.elapsed


def solve_survey(
    models: Sequence[VelocityModel],
    frequencies: Sequence[float] | np.ndarray,
    sources: np.ndarray,
    settings: Solver | None = None,
    *,
    receivers: np.ndarray | None = None,
    amplitude: complex | None = None,
    memory: float = 4.0,
    seed: int = 0,
    free_surface: bool = False,
    progress: bool = False,
) -> Survey:
    """Solves for every velocity, frequency and source, and keeps all wavefields.

    `run_survey` does the same piece by piece, into a file, on one machine or many. A
    tolerance that is not reached ends nothing; `Survey.converged` says where. Arguments
    that are not listed are those of `solve`.

    Args:
        models: Velocity models on one grid.
        frequencies: Frequencies [Hz].
        sources: Source positions (n_sources, ndim) [km], the same for all.
        receivers: Positions (n_receivers, ndim) [km]; default: the models' grid.
        memory: GiB that the vectors and fields of one solve may take; plane waves split
            the sources into batches that fit.

    Returns:
        The survey.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    began = time.perf_counter()
    models = list(models)
    if not models:
        raise ValueError("a survey needs at least one model")
    if len({(m.shape, m.spacing, m.origin) for m in models}) != 1:
        raise ValueError("the models of a survey must share one grid")
    conditions = Conditions(
        amplitude=amplitude, memory=memory, seed=seed, free_surface=free_surface
    )
    plan = make_plan(models[0], frequencies, sources, settings, receivers, conditions)
    shape = models[0].shape if plan.receivers is None else (len(plan.receivers),)
    size = (len(models), len(plan.frequencies), len(plan.sources))
    check_memory(
        8.0 * np.prod([*size, *shape], dtype=float),
        f"{np.prod(size):,} wavefields",
        "give receivers, or write them into a file by run_survey",
    )
    scattered = np.empty((*size, *shape), np.complex64)
    estimates, converged = np.empty(size), np.empty(size, bool)
    unknowns = np.empty(size[:2], int)
    bounds = bounds_of(models[0], (model.velocity for model in models))
    with tqdm.tqdm(total=size[0] * size[1], disable=not progress, unit="solve") as bar:
        for column, frequency in enumerate(plan.frequencies):
            results = solve_models(plan.prepare(bounds, frequency), models)
            for row, (fields, errors, number, has_converged) in enumerate(results):
                scattered[row, column] = fields
                estimates[row, column] = errors
                unknowns[row, column] = number
                converged[row, column] = has_converged
                bar.update()
    # Without a tolerance only iterations that ended early are worth telling.
    is_asked = plan.settings.tolerance is not None or not np.all(converged)
    return Survey(
        frequencies=plan.frequencies,
        sources=plan.sources,
        receivers=plan.receivers,
        scattered=scattered,
        unknowns=unknowns,
        error_estimates=estimates,
        converged=converged if is_asked else None,
        elapsed=time.perf_counter() - began,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything about a survey except its velocities; checked by `make_plan`."""

    frequencies: np.ndarray  # (n_frequencies,) Hz
    sources: np.ndarray  # (n_sources, ndim) km, the same for all velocities
    receivers: np.ndarray | None  # (n_receivers, ndim) km, None for the models' grid
    settings: Solver
    conditions: Conditions

    def prepare(self, bounds: Bounds, frequency: float) -> Prepared:
        """The solver of one frequency for velocities within bounds.

        Raises:
            ValueError: if the frequency is out of range, or the problem too large.
        """
        return self.settings.prepare(
            bounds, float(frequency), self.sources, self.receivers, self.conditions
        )


def make_plan(
    grid: VelocityModel,
    frequencies: Sequence[float] | np.ndarray,
    sources: np.ndarray,
    settings: Solver | None,
    receivers: np.ndarray | None,
    conditions: Conditions,
) -> Plan:
    """A plan for velocities on the grid of a model, checked; as of `solve_survey`.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    settings = check_settings(settings)
    sources, receivers = check_positions(grid, sources, receivers, conditions.free_surface)
    frequencies = problem.check_frequencies(frequencies)
    return Plan(frequencies, sources, receivers, settings, conditions)


def solve_models(
    prepared: Prepared, models: Iterable[VelocityModel]
) -> Iterator[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
    """Solves one model after the other, for all sources.

    Yields:
        Fields (n_sources, ...), single precision; estimates of their relative errors
        (n_sources,), NaN where the solver has none; number of unknowns; and whether
        nothing was missed (n_sources,), true where no tolerance is asked for.
    """
    number = len(prepared.setup.sources)
    for model in models:
        solved = prepared.solve(model)
        errors, converged = solved.error_estimates, solved.converged
        yield (
            np.asarray(solved.fields, np.complex64),
            np.full(number, np.nan) if errors is None else errors,
            solved.stats.unknowns or 0,
            np.ones(number, bool) if converged is None else converged,
        )
