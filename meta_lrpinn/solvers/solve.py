"""`solve`: one call from a velocity model to its scattered wavefield."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from meta_lrpinn._version import __version__
from meta_lrpinn.physics import background
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.background import background_of_sources
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import (
    finite_differences,
    gradient_training,
    network_features,
    plane_waves,
    random_waves,
)
from meta_lrpinn.solvers import free_surface as surfaces
from meta_lrpinn.solvers import settings as choices
from meta_lrpinn.solvers.request import Request, Solution, split_seed
from meta_lrpinn.wavefield import Provenance, Wavefield

_IMPLEMENTATIONS: dict[type, Callable[[Request, Any], Solution]] = {
    choices.PlaneWaves: plane_waves.solve,
    choices.RandomWaves: random_waves.solve,
    choices.FiniteDifferences: finite_differences.solve,
    choices.NetworkFeatures: network_features.solve,
    choices.GradientTraining: gradient_training.solve,
}


@overload
def solve(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    settings: choices.Settings | None = None,
    **options: Any,
) -> Wavefield:
    """At one frequency [Hz]: its wavefield."""
    ...


@overload
def solve(
    model: VelocityModel,
    frequency: Sequence[float] | np.ndarray,
    source: np.ndarray,
    settings: choices.Settings | None = None,
    **options: Any,
) -> tuple[Wavefield, ...]:
    """At several frequencies [Hz]: a wavefield of each, in their order."""
    ...


# The overloads leave out the options, which have no part in the type of the result.
def solve(  # pyright: ignore[reportInconsistentOverload]
    model: VelocityModel,
    frequency: float | Sequence[float] | np.ndarray,
    source: np.ndarray,
    settings: choices.Settings | None = None,
    *,
    amplitude: complex | None = None,
    background_velocity: complex | None = None,
    thickness: float | None = None,
    reflection: float | None = None,
    free_surface: bool = False,
    truth: np.ndarray | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Wavefield | tuple[Wavefield, ...]:
    """Scattered wavefield of one or several sources, at one or several frequencies.

    Args:
        model: Velocity model.
        frequency: Frequency, or several, (n_frequencies,) [Hz].
        source: Source position (ndim,), or several, (n_sources, ndim) [km].
        settings: Which solver, and how it is to work; by default `PlaneWaves()`.
        amplitude: A of the background field; default: fundamental solution.
        background_velocity: v₀ [km/s]; default: the velocity at each source, which is
            v/(1 − i/2Q), complex, where the model has a quality Q.
        thickness: Thickness of the absorbing layer [km], 0 for none; default: the
            solver's own.
        reflection: Amplitude that the layer reflects; default: the solver's own.
        free_surface: Whether u = 0 at the top of the model, where there is no absorbing
            layer then; the background has an image source, and sources must lie deeper.
        truth: Known δu on the grid, of several frequencies (n_frequencies, ...); records
            of the history then have their relative L2 distance from it. By finite
            differences only the last record has it: that of the field returned.
        seed: Seed of all that is random.
        progress: Show a progress bar.

    Returns:
        The wavefield; of several frequencies a tuple with that of each, in their order.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    settings = choices.PlaneWaves() if settings is None else settings
    if isinstance(frequency, Sequence | np.ndarray) and np.ndim(frequency) == 1:
        several, frequencies = True, problems.check_frequencies(frequency)
    else:
        several, frequencies = False, [frequency]
    _check_room(model, source, len(frequencies))
    truths = truth if several and truth is not None else [truth] * len(frequencies)
    if len(truths) != len(frequencies):
        raise ValueError(f"{len(frequencies)} frequencies have {len(truths)} known fields")
    requests = [
        _checked(
            model,
            one,
            source,
            amplitude=amplitude,
            background_velocity=background_velocity,
            thickness=thickness,
            reflection=reflection,
            free_surface=free_surface,
            truth=known,
            seed=seed,
            progress=progress,
        )
        for one, known in zip(frequencies, truths, strict=True)
    ]
    fields = tuple(_solve(request, source, settings, seed) for request in requests)
    return fields if several else fields[0]


def _check_room(model: VelocityModel, source: np.ndarray, frequencies: int) -> None:
    """Refuses more wavefields than there is memory for: δu and u₀ of every source."""
    if not isinstance(model, VelocityModel) or np.ndim(source) != 2:
        return
    number = len(source) * frequencies
    check_memory(
        2 * 16.0 * number * np.prod(model.shape),
        f"{number:,} wavefields on {' x '.join(map(str, model.shape))} points",
        "solve for fewer sources or frequencies at a time, or by run_survey into a file",
    )


def _solve(
    request: Request, source: np.ndarray, settings: choices.Settings, seed: int
) -> Wavefield:
    """The wavefield of a checked request, whose `source` decides the shape of arrays."""
    began = time.perf_counter()
    name = choices.name_of(settings)
    provenance = Provenance(
        version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seed=int(seed),
        thickness=request.thickness,
        reflection=request.reflection,
    )
    loaded = settings
    if isinstance(settings, choices.NetworkFeatures | choices.GradientTraining):
        network = network_features.as_network(settings.network, request)
        loaded = dataclasses.replace(settings, network=network)
        provenance = dataclasses.replace(provenance, initialisation=network.checksum())
    solver = _IMPLEMENTATIONS[type(settings)]
    if request.free_surface:
        solution = surfaces.solve(solver, request, loaded)
    else:
        solution = solver(request, loaded)
    fields = background_of_sources(
        request.model.grid_points(),
        request.frequency,
        request.sources,
        request.background_velocities,
        request.amplitude,
        float(request.model.lower[-1]) if request.free_surface else None,
    ).reshape(solution.fields.shape)
    pick = (lambda values: values) if np.ndim(source) == 2 else (lambda values: values[0])
    estimates = solution.error_estimates
    return Wavefield(
        model=request.model,
        frequency=request.frequency,
        source=pick(request.sources),
        amplitude=request.amplitude,
        background_velocity=pick(request.background_velocities),
        scattered=pick(solution.fields),
        background=pick(fields.astype(solution.fields.dtype)),
        solver=name,
        settings=settings,
        elapsed=time.perf_counter() - began,
        provenance=provenance,
        stats=solution.stats,
        history=solution.history,
        error_estimates=None if estimates is None else pick(np.asarray(estimates)),
        converged=solution.converged,
        evaluate=solution.evaluate,
        free_surface=request.free_surface,
    )


def _checked(
    model: VelocityModel,
    frequency: Any,
    source: np.ndarray,
    *,
    amplitude: complex | None,
    background_velocity: complex | None,
    thickness: float | None,
    reflection: float | None,
    free_surface: bool,
    truth: np.ndarray | None,
    seed: int,
    progress: bool,
) -> Request:
    """The arguments of `solve`, checked, with their defaults."""
    if not isinstance(model, VelocityModel):
        raise ValueError(
            f"model must be a VelocityModel, got {type(model).__name__}; make one of an "
            "array by VelocityModel(velocity, spacing)"
        )
    frequency = problems.check_frequency(frequency)
    problems.check_scale(model, frequency)
    problems.check_layer(model, frequency, thickness, reflection)
    model.check_contains(source, what="source")
    sources = np.atleast_2d(np.asarray(source, float))
    if not len(sources):
        raise ValueError("at least one source is needed")
    if free_surface:
        surfaces.check_sources(model, sources)
    if background_velocity is None:
        velocities = problems.velocities_at(model, sources)
    else:
        velocities = np.full(len(sources), problems.check_velocity(background_velocity))
    shape = (*np.shape(source)[:-1], *model.shape)
    if truth is not None and np.shape(truth) != shape:
        raise ValueError(f"the known field has shape {np.shape(truth)}, expected {shape}")
    if amplitude is None:
        amplitude = background.default_amplitude(model.ndim)
    return Request(
        model=model,
        frequency=frequency,
        sources=sources,
        amplitude=problems.check_amplitude(amplitude),
        background_velocities=velocities,
        thickness=thickness,
        reflection=reflection,
        truth=None if truth is None else np.reshape(truth, (-1, *model.shape)),
        keys=split_seed(seed),
        progress=progress,
        free_surface=free_surface,
    )


def reference_wavefield(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    *,
    tolerance: float | None = 0.003,
    refinement: int | None = None,
    maximum_refinement: int = 8,
    scheme_order: int = 4,
    **problem: Any,
) -> Wavefield:
    """The wavefield by finite differences, refined until it no longer changes.

    The short name of `solve` with `FiniteDifferences`.

    Args:
        model: As for `solve`.
        frequency: As for `solve` [Hz].
        source: As for `solve` [km].
        tolerance: As of `FiniteDifferences`, like the next three.
        refinement: Cells per cell of the model.
        maximum_refinement: Where refinement ends.
        scheme_order: 2 or 4.
        **problem: Keyword arguments of `solve`.

    Returns:
        The wavefield.

    Raises:
        ValueError: if an argument is out of its range, or the factors would not fit into
            the machine's memory.
    """
    settings = choices.FiniteDifferences(
        tolerance=tolerance,
        refinement=refinement,
        maximum_refinement=maximum_refinement,
        scheme_order=scheme_order,
    )
    return solve(model, frequency, source, settings, **problem)
