"""Whole surveys in one call: many velocities, frequencies and sources.

With plane waves one lattice serves all velocities of a frequency, so that the solver is
compiled once per frequency; a matrix is factored once per velocity and frequency, and the
sources are its right-hand sides.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from meta_lrpinn import problem as problems
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.solvers.plane_waves import DEFAULT_WAVENUMBER_RATIO, checked_lattice
from meta_lrpinn.solvers.settings import PlaneWaves, Settings
from meta_lrpinn.solvers.solve import solve
from meta_lrpinn.velocity import VelocityModel


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
    elapsed: float  # [s], compilation included

    @property
    def throughput(self) -> float:
        """Wavefields per second, compilation included."""
        models, frequencies, sources = self.scattered.shape[:3]
        return models * frequencies * sources / self.elapsed


def shared_problem(
    models: Sequence[VelocityModel],
    frequency: float,
    sources: np.ndarray,
    layer_share: float | None = None,
) -> HelmholtzProblem:
    """A problem whose layer and smallest velocity serve all models of a survey.

    Args:
        models: Velocity models on one grid.
        frequency: Frequency, Hz.
        sources: Source positions (n_sources, ndim), km.
        layer_share: As of `problem.make_problem`.

    Returns:
        The problem of the smallest velocity at every grid point, in a layer for the
        largest; of networks, for the mean of all.

    Raises:
        ValueError: the models are on different grids, or a source lies outside.
    """
    _check_one_grid(models)
    for source in sources:
        models[0].check_contains(source, what="source")
    representative = np.max if layer_share is None else np.mean
    for_layer = models[0].replace_velocity(
        representative([m.velocity for m in models], axis=0)
    )
    lowest = models[0].replace_velocity(np.min([m.velocity for m in models], axis=0))
    problem = problems.make_problem(
        for_layer, frequency, sources[0], layer_share=layer_share
    )
    return problem.replace(model=lowest)


def solve_survey(
    models: Sequence[VelocityModel],
    frequencies: Sequence[float],
    sources: np.ndarray,
    settings: Settings | None = None,
    *,
    receivers: np.ndarray | None = None,
    amplitude: complex | None = None,
    memory: float = 4.0,
    seed: int = 0,
    progress: bool = False,
) -> Survey:
    """Solve for every velocity, frequency and source.

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
        progress: Show a progress bar.

    Returns:
        The survey.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    began = time.perf_counter()
    settings = PlaneWaves() if settings is None else settings
    models, sources = list(models), np.atleast_2d(np.asarray(sources, float))
    if not models or not len(frequencies):
        raise ValueError("a survey needs at least one model and one frequency")
    _check_one_grid(models)
    models[0].check_contains(sources, what="source")
    if receivers is not None:
        receivers = np.atleast_2d(np.asarray(receivers, float))
        models[0].check_contains(receivers, what="receiver")
    shape = models[0].shape if receivers is None else (len(receivers),)
    size = (len(models), len(frequencies))
    scattered = np.empty((*size, len(sources), *shape), np.complex64)
    estimates = np.full((*size, len(sources)), np.nan)
    unknowns = np.zeros(size, int)
    is_shared = isinstance(settings, PlaneWaves) and settings.tolerance is None
    solve_column = _shared_column if is_shared else _separate_column
    with tqdm.tqdm(total=size[0] * size[1], disable=not progress, unit="solve") as bar:
        for column, frequency in enumerate(frequencies):
            solved = solve_column(
                models, frequency, sources, settings, receivers, amplitude, memory, seed
            )
            for row, (fields, errors, number) in enumerate(solved):
                scattered[row, column] = fields
                estimates[row, column] = errors
                unknowns[row, column] = number
                bar.update()
    return Survey(
        frequencies=np.asarray(frequencies, float),
        sources=sources,
        receivers=receivers,
        scattered=scattered,
        unknowns=unknowns,
        error_estimates=estimates,
        elapsed=time.perf_counter() - began,
    )


def _check_one_grid(models: Sequence[VelocityModel]) -> None:
    if len({(m.shape, m.spacing, m.origin) for m in models}) != 1:
        raise ValueError("the models of a survey must share one grid")


# One frequency: for each model its fields (n_sources, ...), error estimates (n_sources,)
# or a number for all, and number of unknowns.
Column = Iterator[tuple[np.ndarray, Any, int]]


def _separate_column(
    models, frequency, sources, settings, receivers, amplitude, memory, seed
) -> Column:
    """By any solver, a call of `solve` for each model."""
    del memory
    for model in models:
        field = solve(model, frequency, sources, settings, amplitude=amplitude, seed=seed)
        values = field.scattered if receivers is None else field.at(receivers)
        errors = np.nan if field.error_estimates is None else field.error_estimates
        yield values, errors, field.stats.unknowns or 0


def _shared_column(
    models, frequency, sources, settings, receivers, amplitude, memory, seed
) -> Column:
    """By plane waves on one lattice, compiled once."""
    del seed
    with jax.enable_x64(settings.precision == "double"):
        problem = shared_problem(models, frequency, sources)
        if amplitude is not None:
            amplitude = problems.check_amplitude(amplitude)
            problem = problem.replace(amplitude=np.asarray(amplitude))
        ratio = DEFAULT_WAVENUMBER_RATIO[problem.ndim]
        if settings.unknowns is not None:
            ratio = lattices.wavenumber_ratio_for(problem, settings.unknowns)
        velocities = [model.velocity for model in models]
        lattice = checked_lattice(problem, ratio, len(sources), velocities)
        shape = problem.model.shape if receivers is None else (len(receivers),)
        batch = _sources_per_batch(lattice, shape, len(sources), memory)
        for model in models:
            own = problem.replace(model=model)
            own_v0 = np.array([problems.velocity_at(model, s) for s in sources])
            fields, errors = [], []
            for start in range(0, len(sources), batch):
                part = slice(start, start + batch)
                field, error = _solve(own, lattice, sources[part], own_v0[part], receivers)
                fields.append(np.asarray(field))
                errors.append(np.broadcast_to(np.asarray(error), len(field)))
            yield np.concatenate(fields), np.concatenate(errors), lattice.number


def _sources_per_batch(
    lattice: lattices.Lattice, shape: tuple[int, ...], number: int, memory: float
) -> int:
    # Right-hand sides, solutions, thirty search directions with their images and two
    # fields of each source, 16 bytes a number.
    each = 16 * (70 * lattice.number + 2 * int(np.prod(shape)))
    return int(np.clip(memory * 2**30 // each, 1, number))


@jax.jit
def _solve(
    problem: HelmholtzProblem,
    lattice: lattices.Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    receivers: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    solution = lattices.solve(problem, lattice, sources, background_velocities)
    if receivers is None:
        return solution.fields, solution.error_estimate
    points = jnp.asarray(receivers, jnp.asarray(problem.lower).dtype)
    fields = lattices.evaluate(problem, lattice, solution.weights, points).T
    return fields, solution.error_estimate
