"""Whole surveys in one call: many velocities, frequencies and sources.

With plane waves one lattice serves all velocities of a frequency, so that the solver is
compiled once per frequency; the sources are right-hand sides of one system. A network's
features are evaluated once per frequency and source, for all velocities. `surveys` does the
same for surveys larger than memory.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import grids
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import free_surface as surfaces
from meta_lrpinn.solvers import network_features, plane_waves, random_waves, shared_features
from meta_lrpinn.solvers.bounds import Bounds, bounds_of
from meta_lrpinn.solvers.request import split_seed
from meta_lrpinn.solvers.settings import (
    FiniteDifferences,
    NetworkFeatures,
    PlaneWaves,
    RandomWaves,
    Settings,
    name_of,
)
from meta_lrpinn.solvers.solve import solve

_MOST_MEMORY = 1e6  # GiB


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
    """Everything about a survey except its velocities."""

    frequencies: np.ndarray  # (n_frequencies,) Hz
    sources: np.ndarray  # (n_sources, ndim) km, the same for all velocities
    receivers: np.ndarray | None  # (n_receivers, ndim) km, None for the models' grid
    settings: Settings
    amplitude: complex | None  # A, None for the fundamental solution
    memory: float  # GiB for the vectors and fields of one solve
    seed: int
    free_surface: bool = False  # u = 0 at the top of the models

    @property
    def tolerance(self) -> float | None:
        """Of the relative error, where the settings ask for one."""
        return getattr(self.settings, "tolerance", None)


def make_plan(
    grid: VelocityModel,
    frequencies: Sequence[float] | np.ndarray,
    sources: np.ndarray,
    settings: Settings | None = None,
    *,
    receivers: np.ndarray | None = None,
    amplitude: complex | None = None,
    memory: float = 4.0,
    seed: int = 0,
    free_surface: bool = False,
) -> Plan:
    """A plan, checked.

    Args:
        grid: A model on the grid of all velocities.
        frequencies, sources, settings, receivers, amplitude, memory, seed,
            free_surface: As of `solve_survey`.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    settings = PlaneWaves() if settings is None else settings
    name_of(settings)
    sources = np.atleast_2d(np.asarray(sources, float))
    grid.check_contains(sources, what="source")
    if receivers is not None:
        receivers = np.atleast_2d(np.asarray(receivers, float))
        grid.check_contains(receivers, what="receiver")
    if free_surface:
        surfaces.check_sources(grid, sources)
    split_seed(seed)
    if not 0 < memory <= _MOST_MEMORY:
        raise ValueError(
            f"memory must be positive and at most {_MOST_MEMORY:,.0f} GiB, got {memory:g}"
        )
    return Plan(
        frequencies=problems.check_frequencies(frequencies),
        sources=sources,
        receivers=receivers,
        settings=settings,
        amplitude=None if amplitude is None else problems.check_amplitude(amplitude),
        memory=memory,
        seed=seed,
        free_surface=free_surface,
    )


def shared_problem(
    models: Sequence[VelocityModel],
    frequency: float,
    sources: np.ndarray,
    layer_fraction: float | None = None,
) -> HelmholtzProblem:
    """A problem whose layer and smallest velocity serve all models of a survey.

    Args:
        models: Velocity models on one grid.
        frequency: Frequency [Hz].
        sources: Source positions (n_sources, ndim) [km].
        layer_fraction: As of `problem.make_problem`.

    Returns:
        The problem of the smallest velocity at every grid point, in a layer for the
        largest; of networks, for the mean of all.

    Raises:
        ValueError: if the models are on different grids, or a source lies outside.
    """
    _check_one_grid(models)
    for source in sources:
        models[0].check_contains(source, what="source")
    representative = np.max if layer_fraction is None else np.mean
    for_layer = models[0].replace_velocity(
        representative([m.velocity for m in models], axis=0)
    )
    lowest = models[0].replace_velocity(np.min([m.velocity for m in models], axis=0))
    problem = problems.make_problem(
        for_layer, frequency, sources[0], layer_fraction=layer_fraction
    )
    return problem.replace(model=lowest)


def solve_survey(
    models: Sequence[VelocityModel],
    frequencies: Sequence[float] | np.ndarray,
    sources: np.ndarray,
    settings: Settings | None = None,
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
    plan = make_plan(
        models[0], frequencies, sources, settings,
        receivers=receivers, amplitude=amplitude, memory=memory, seed=seed,
        free_surface=free_surface,
    )  # fmt: skip
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
    reached = None if plan.tolerance is None else np.zeros(estimates.shape, bool)
    bounds = bounds_of(models[0], (model.velocity for model in models))
    with tqdm.tqdm(total=size[0] * size[1], disable=not progress, unit="solve") as bar:
        for column, frequency in enumerate(plan.frequencies):
            solve_model = frequency_solver(plan, bounds, frequency)
            for row, model in enumerate(models):
                solved = solve_model(model)
                scattered[row, column] = solved.fields
                estimates[row, column] = solved.error_estimates
                unknowns[row, column] = solved.unknowns
                if reached is not None:
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


class Solved(NamedTuple):
    """All sources of a plan in one velocity at one frequency."""

    fields: np.ndarray  # δu (n_sources, n_receivers) or (n_sources, nz, nx), complex
    error_estimates: np.ndarray  # (n_sources,), NaN where there is none
    unknowns: int
    # (n_sources,) whether the tolerance was reached; None where none was asked for
    converged: np.ndarray | None = None


def check_sizes(plan: Plan, bounds: Bounds) -> None:
    """Refuses, before anything is solved, frequencies that cannot be solved for.

    Args:
        plan: The survey.
        bounds: Of all its velocities.

    Raises:
        ValueError: if the first or the highest is out of range, or the solver's matrix
            would be too large at the highest.
    """
    highest = float(np.max(plan.frequencies))
    for frequency in (float(np.min(plan.frequencies)), highest):
        problems.check_scale(bounds.lowest, frequency)
    settings = plan.settings
    if plan.free_surface:
        bounds = bounds.mirrored()
    if isinstance(settings, PlaneWaves):
        _shared_lattice(plan, settings, bounds, highest)
    elif isinstance(settings, RandomWaves):
        problem = problems.make_problem(bounds.highest, highest, plan.sources[0])
        random_waves.number_of_waves(problem.replace(model=bounds.lowest), settings)
    elif isinstance(settings, FiniteDifferences):
        model = bounds.lowest
        points = settings.tolerance and grids.FIRST_POINTS_PER_WAVELENGTH
        first = settings.refinement or grids.refinement_for(model, highest, points)
        layer = grids.graded_layer(model, highest, first)
        grids.check_size(model, highest, first, layer)


def frequency_solver(
    plan: Plan, bounds: Bounds, frequency: float
) -> Callable[[VelocityModel], Solved]:
    """A solver for any velocity of a survey at one frequency.

    Args:
        plan: The survey; its frequencies are not used.
        bounds: Of all its velocities.
        frequency: Frequency [Hz].

    Raises:
        ValueError: if the problem is too large.
    """
    settings = plan.settings
    if plan.free_surface:
        return _surface_solver(plan, bounds, frequency)
    if isinstance(settings, PlaneWaves) and settings.tolerance is None:
        return _shared_solver(plan, settings, bounds, frequency)
    if isinstance(settings, NetworkFeatures) and settings.is_shareable:
        return _feature_solver(plan, settings, bounds, frequency)
    return _separate_solver(plan, frequency)


def _surface_solver(
    plan: Plan, bounds: Bounds, frequency: float
) -> Callable[[VelocityModel], Solved]:
    """Below a free surface: of the mirrored models, less the mirror image."""
    points = plan.receivers
    if points is not None:
        points = surfaces.with_images(points, bounds.lowest)
    whole = dataclasses.replace(plan, receivers=points, free_surface=False)
    solve_whole = frequency_solver(whole, bounds.mirrored(), frequency)

    def solve_model(model):
        found = solve_whole(surfaces.mirrored_model(model))
        if plan.receivers is None:
            fields = surfaces.odd_part(model, found.fields)
        else:
            fields = surfaces.odd_values(found.fields, plan.receivers, model)
        scale = surfaces.growth(found.fields, fields)
        estimates, converged = found.error_estimates * scale, found.converged
        if converged is not None:
            converged = converged & (estimates <= plan.tolerance)
        return Solved(fields, estimates, found.unknowns, converged)

    return solve_model


def _separate_solver(plan: Plan, frequency: float) -> Callable[[VelocityModel], Solved]:
    """By any solver, a call of `solve` for each model."""

    def solve_model(model):
        field = solve(
            model,
            frequency,
            plan.sources,
            plan.settings,
            amplitude=plan.amplitude,
            seed=plan.seed,
        )
        values = field.scattered if plan.receivers is None else field.at(plan.receivers)
        errors = np.nan if field.error_estimates is None else field.error_estimates
        errors = np.broadcast_to(errors, len(plan.sources))
        converged = None
        if field.converged is not None:
            # Where one source misses the tolerance, others may have reached it.
            converged = field.converged | (errors <= plan.tolerance)
        return Solved(values, errors, field.stats.unknowns or 0, converged)

    return solve_model


def _feature_solver(
    plan: Plan, settings: NetworkFeatures, bounds: Bounds, frequency: float
) -> Callable[[VelocityModel], Solved]:
    """By a network's features, which are evaluated once for each source."""
    grid = bounds.lowest
    network = network_features.find_network(
        settings.network, grid.ndim, split_seed(plan.seed).network
    )
    # The layer for a velocity in the middle of all: networks are trained in one for the
    # mean velocity.
    middle = grid.replace_velocity((grid.velocity + bounds.highest.velocity) / 2)
    receivers = grid.grid_points() if plan.receivers is None else plan.receivers
    shape = grid.shape if plan.receivers is None else (len(receivers),)

    def make(source):
        problem = problems.make_problem(
            middle,
            frequency,
            source,
            amplitude=plan.amplitude,
            layer_fraction=network.layer_fraction,
        ).replace(model=grid)
        return problem, shared_features.make_solver(
            network, problem, receivers, settings.precision
        )

    first, solver = make(plan.sources[0])
    each = shared_features.bytes_of(network, first, len(receivers))
    # Those that memory has no room for are made again for every velocity.
    room = int(plan.memory * 2**30 // each)
    made = {0: solver}

    def solver_of(index):
        if index in made:
            return made[index]
        _, solver = make(plan.sources[index])
        if len(made) < room:
            made[index] = solver
        return solver

    def solve_model(model):
        solved = [solver_of(index)(model) for index in range(len(plan.sources))]
        fields, errors = zip(*solved, strict=True)
        return Solved(
            np.stack(fields).reshape(-1, *shape), np.array(errors), solver.unknowns
        )

    return solve_model


def _shared_solver(
    plan: Plan, settings: PlaneWaves, bounds: Bounds, frequency: float
) -> Callable[[VelocityModel], Solved]:
    """By plane waves on one lattice."""
    sources = plan.sources
    problem, lattice = _shared_lattice(plan, settings, bounds, frequency)
    prepared = lattices.prepare(problem, lattice)
    shape = problem.model.shape if plan.receivers is None else (len(plan.receivers),)
    batch = _sources_per_batch(lattice, shape, len(sources), plan.memory)

    def solve_model(model):
        own = problem.replace(model=model)
        with jax.enable_x64(True):
            own_v0 = np.asarray(model.complex_velocity_at(jnp.asarray(sources)))
        fields, errors = [], []
        for start in range(0, len(sources), batch):
            part = slice(start, start + batch)
            solution = prepared.solve(model, sources[part], own_v0[part])
            field = solution.fields
            if plan.receivers is not None:
                field = lattices.evaluate(own, lattice, solution.weights, plan.receivers)
            fields.append(field)
            errors.append(solution.error_estimate)
        return Solved(np.concatenate(fields), np.concatenate(errors), lattice.number)

    return solve_model


def _shared_lattice(
    plan: Plan, settings: PlaneWaves, bounds: Bounds, frequency: float
) -> tuple[HelmholtzProblem, lattices.Lattice]:
    """Problem of the smallest velocities and lattice for all of them."""
    problem = problems.make_problem(
        bounds.highest, frequency, plan.sources[0], amplitude=plan.amplitude
    ).replace(model=bounds.lowest)
    if settings.unknowns is not None:
        ratio = lattices.wavenumber_ratio_for(problem, settings.unknowns)
    elif settings.tolerance is not None:
        ratio = lattices.wavenumber_ratio_for_tolerance(problem, settings.tolerance)
    else:
        ratio = lattices.default_wavenumber_ratio(problem)
    return problem, lattices.make_lattice(problem, ratio, velocities=bounds.steepest())


def _sources_per_batch(
    lattice: lattices.Lattice, shape: tuple[int, ...], number: int, memory: float
) -> int:
    each = plane_waves.bytes_of_source(lattice, int(np.prod(shape)))
    return int(np.clip(memory * 2**30 // each, 1, number))
