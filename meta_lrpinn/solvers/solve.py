"""`solve`: one call from a velocity model to its scattered wavefield."""

import datetime
import time
from collections.abc import Sequence
from typing import TypedDict, Unpack, cast, overload

import numpy as np

from meta_lrpinn._version import __version__
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers.protocol import Conditions, Distance, Prepared
from meta_lrpinn.solvers.settings import FiniteDifferences, Solver, check_settings
from meta_lrpinn.wavefield import Provenance, Wavefield


class SolveOptions(TypedDict, total=False):
    """Keyword arguments of `solve`, where they are described."""

    weights: Sequence[complex] | np.ndarray | None
    amplitude: complex | None
    background_velocity: complex | None
    thickness: float | None
    reflection: float | None
    free_surface: bool
    truth: np.ndarray | None
    seed: int
    progress: bool


@overload
def solve(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    settings: Solver | None = None,
    **options: Unpack[SolveOptions],
) -> Wavefield: ...


@overload
def solve(
    model: VelocityModel,
    frequency: Sequence[float] | np.ndarray,
    source: np.ndarray,
    settings: Solver | None = None,
    **options: Unpack[SolveOptions],
) -> tuple[Wavefield, ...]: ...


def solve(
    model: VelocityModel,
    frequency: float | Sequence[float] | np.ndarray,
    source: np.ndarray,
    settings: Solver | None = None,
    *,
    weights: Sequence[complex] | np.ndarray | None = None,
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
        weights: Of several sources, one number each, complex where they differ in phase,
            (n_sources,): they are fired together and have one wavefield, by plane waves
            and finite differences with one right-hand side. Default: a wavefield of each.
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
    settings = check_settings(settings)
    has_several, frequencies = False, [cast(float, frequency)]
    if isinstance(frequency, Sequence | np.ndarray) and np.ndim(frequency) == 1:
        has_several, frequencies = True, problem.check_frequencies(frequency)
    truths = truth if has_several and truth is not None else [truth] * len(frequencies)
    if len(truths) != len(frequencies):
        raise ValueError(f"{len(frequencies)} frequencies have {len(truths)} known fields")
    if weights is not None and np.ndim(source) != 2:
        raise ValueError("weights are of several sources, (n_sources, ndim)")
    conditions = Conditions(
        amplitude=amplitude,
        background_velocity=background_velocity,
        thickness=thickness,
        reflection=reflection,
        free_surface=free_surface,
        weights=None if weights is None else np.asarray(weights),
        seed=seed,
        progress=progress,
    )
    # All of them before any is solved, so that what cannot be solved is refused at once.
    tasks = []
    for hertz, fields in zip(frequencies, truths, strict=True):
        began = time.perf_counter()
        prepared = settings.prepare(model, hertz, source, conditions=conditions)
        distance = _distance(model, source, fields, weights is not None)
        tasks.append((prepared, distance, time.perf_counter() - began))
    setup = tasks[0][0].setup
    number = len(tasks) * (len(setup.sources) if weights is None else 1)
    check_memory(
        2 * 16.0 * number * np.prod(model.shape),  # δu and u₀
        f"{number:,} wavefields on {' x '.join(map(str, model.shape))} points",
        "solve for fewer sources or frequencies at a time, or by run_survey into a file",
    )
    wavefields = tuple(_wavefield(settings, model, source, *task) for task in tasks)
    return wavefields if has_several else wavefields[0]


def _distance(
    model: VelocityModel, source: np.ndarray, truth: np.ndarray | None, is_one: bool
) -> Distance | None:
    if truth is None:
        return None
    shape = model.shape if is_one else (*np.shape(source)[:-1], *model.shape)
    if np.shape(truth) != shape:
        raise ValueError(f"the known field has shape {np.shape(truth)}, expected {shape}")
    known = np.reshape(truth, (-1, *model.shape))
    return lambda fields, sources=slice(None): relative_l2(fields, known[sources])


def _wavefield(
    settings: Solver,
    model: VelocityModel,
    source: np.ndarray,
    prepared: Prepared,
    distance: Distance | None,
    seconds: float,
) -> Wavefield:
    """One frequency; whether arrays have an axis for the sources, `source` decides."""
    began = time.perf_counter()
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    setup, conditions = prepared.setup, prepared.setup.conditions
    solved = prepared.solve(model, distance)
    # Indices of what arrays hold for each source, and for each wavefield.
    sources = slice(None) if np.ndim(source) == 2 else 0
    fields = 0 if conditions.weights is not None else sources
    estimates, converged = solved.error_estimates, solved.converged
    return Wavefield(
        model=model,
        frequency=setup.frequency,
        source=setup.sources[sources],
        amplitude=setup.amplitude,
        background_velocity=setup.background_velocities(model)[sources],
        scattered=solved.fields[fields],
        solver=settings.name,
        settings=settings,
        elapsed=seconds + time.perf_counter() - began,
        provenance=Provenance(
            version=__version__,
            created=created,
            seed=int(conditions.seed),
            thickness=conditions.thickness,
            reflection=conditions.reflection,
            initialisation=solved.initialisation,
        ),
        stats=solved.stats,
        history=solved.history,
        error_estimates=None if estimates is None else np.asarray(estimates)[fields],
        converged=None if converged is None else bool(np.all(converged)),
        evaluate=solved.evaluate,
        free_surface=conditions.free_surface,
        weights=conditions.weights,
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
    **options: Unpack[SolveOptions],
) -> Wavefield:
    """The wavefield by finite differences, refined until it no longer changes.

    The short name of `solve` with `FiniteDifferences`, whose arguments it has.

    Raises:
        ValueError: if an argument is out of its range, or the factors would not fit into
            the machine's memory.
    """
    settings = FiniteDifferences(
        tolerance=tolerance,
        refinement=refinement,
        maximum_refinement=maximum_refinement,
        scheme_order=scheme_order,
    )
    return solve(model, frequency, source, settings, **options)
