"""Whole surveys in one call: many velocities, frequencies and sources.

A solver is prepared once for each frequency and serves all velocities: with plane waves on
one lattice, so that it is compiled once; a network's features are evaluated once for each
source. The sources are right-hand sides of one system. `survey_run` does the same for
surveys larger than memory.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import tqdm

from meta_lrpinn.physics import problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers.bounds import Bounds, bounds_of
from meta_lrpinn.solvers.protocol import Conditions, Prepared, check_positions
from meta_lrpinn.solvers.settings import PlaneWaves, Solver, check_settings


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
            ValueError: if the problem is too large.
        """
        return self.settings.prepare(
            bounds, float(frequency), self.sources, self.receivers, self.conditions
        )

    def check_sizes(self, bounds: Bounds) -> None:
        """Refuses, before anything is solved, frequencies that cannot be solved for.

        Args:
            bounds: Of all velocities.

        Raises:
            ValueError: if the first or the highest is out of range, or the problem too
                large there.
        """
        for frequency in (np.min(self.frequencies), np.max(self.frequencies)):
            self.prepare(bounds, frequency)


def make_plan(
    grid: VelocityModel,
    frequencies: Sequence[float] | np.ndarray,
    sources: np.ndarray,
    settings: Solver | None,
    receivers: np.ndarray | None,
    conditions: Conditions,
) -> Plan:
    """A plan, checked.

    Args:
        grid: A model on the grid of all velocities.
        frequencies, sources, settings, receivers: As of `solve_survey`.
        conditions: Everything else.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    settings = check_settings(PlaneWaves() if settings is None else settings)
    sources, receivers = check_positions(grid, sources, receivers, conditions.free_surface)
    frequencies = problem.check_frequencies(frequencies)
    return Plan(frequencies, sources, receivers, settings, conditions)


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
    tolerance that is not reached ends nothing; `Survey.converged` says where.

    Args:
        models: Velocity models on one grid.
        frequencies: Frequencies [Hz].
        sources: Source positions (n_sources, ndim) [km], the same for all.
        settings: Which solver, and how it is to work; by default `PlaneWaves()`, of
            which all velocities of a frequency share lattice and compiled program.
        receivers: Positions (n_receivers, ndim) [km]; default: the models' grid.
        amplitude: A of the background field; default: fundamental solution.
        memory: GiB that the vectors and fields of one solve may take; sources are
            split into batches that fit. Plane waves without a tolerance only.
        seed: Seed of all that is random.
        free_surface: Whether u = 0 at the top of the models; as of `solve`.
        progress: Show a progress bar.

    Returns:
        The survey.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    began = time.perf_counter()
    models = list(models)
    if not models:
        raise ValueError("a survey needs at least one model")
    _check_one_grid(models)
    conditions = Conditions(
        amplitude=amplitude, memory=memory, seed=seed, free_surface=free_surface
    )
    plan = make_plan(models[0], frequencies, sources, settings, receivers, conditions)
    shape = models[0].shape if plan.receivers is None else (len(plan.receivers),)
    size = (len(models), len(plan.frequencies))
    check_memory(
        8.0 * np.prod([*size, len(plan.sources), *shape], dtype=float),
        f"{np.prod(size) * len(plan.sources):,} wavefields",
        "give receivers, or write them into a file by run_survey",
    )
    scattered = np.empty((*size, len(plan.sources), *shape), np.complex64)
    estimates = np.full((*size, len(plan.sources)), np.nan)
    unknowns = np.zeros(size, int)
    tolerance = plan.settings.tolerance
    reached = None if tolerance is None else np.zeros(estimates.shape, bool)
    bounds = bounds_of(models[0], (model.velocity for model in models))
    with tqdm.tqdm(total=size[0] * size[1], disable=not progress, unit="solve") as bar:
        for column, frequency in enumerate(plan.frequencies):
            prepared = plan.prepare(bounds, frequency)
            for row, model in enumerate(models):
                solved = prepared.solve(model)
                scattered[row, column] = solved.fields
                unknowns[row, column] = solved.stats.unknowns or 0
                if solved.error_estimates is not None:
                    estimates[row, column] = solved.error_estimates
                if solved.converged is not None:
                    if reached is None:
                        reached = np.ones(estimates.shape, bool)
                    reached[row, column] = solved.converged
                bar.update()
    return Survey(
        frequencies=plan.frequencies,
        sources=plan.sources,
        receivers=plan.receivers,
        scattered=scattered,
        unknowns=unknowns,
        error_estimates=estimates,
        converged=reached,
        elapsed=time.perf_counter() - began,
    )


def _check_one_grid(models: Sequence[VelocityModel]) -> None:
    if len({(m.shape, m.spacing, m.origin) for m in models}) != 1:
        raise ValueError("the models of a survey must share one grid")
