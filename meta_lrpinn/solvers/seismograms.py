"""`time_traces`: seismograms at receivers from solves at many frequencies.

Time goes as e^{+iωt}. A field known at the multiples of 1/P, Σ_k U(k/P) e^{2πikt/P} / P,
repeats itself after the period P: what arrives later than P is seen too early. Periods are
therefore longer than the record, and longer still until nothing is left at their end.
"""

import dataclasses
import functools
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tqdm
from scipy import spatial

from meta_lrpinn.physics import background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers.protocol import check_positions
from meta_lrpinn.solvers.settings import Solver, check_settings
from meta_lrpinn.solvers.solve import solve

if TYPE_CHECKING:
    import xarray

# The first period over the record, and how often it is doubled at most; not tuned.
_FIRST_PERIOD, _DOUBLINGS = 1.25, 4
# The part of a period at its end where nothing must be left; not tuned.
_END = 0.1
# Rounding leaves more than any smaller tolerance.
_LEAST_TOLERANCE = 1e-9
# Guards against other units: no record asks for so many frequencies, or samples a period.
_MOST_FREQUENCIES, _MOST_SAMPLES = 20_000, 2**24
# Starts of a Ricker wavelet before its peak, in periods of the peak frequency: there it
# is below 1e-8 of its peak.
_DELAY_PERIODS = 1.5
# Samples in a period of the highest frequency, where no step is given; two would do, but
# not look like a wave.
_SAMPLES_PER_PERIOD = 5
# Frequencies matter that have this fraction of the tolerance, relative to the strongest:
# what is left out adds up. Not tuned.
_SPECTRUM_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Traces:
    """Total wavefield as a function of time; zero is when the wavelet starts.

    The solution of ∂²u/∂t²/v² − Δu = s(t) δ(x − x_s).
    """

    model: VelocityModel
    sources: np.ndarray  # (n_sources, ndim) [km]
    receivers: np.ndarray  # (n_receivers, ndim) [km]
    times: np.ndarray  # (n_times,) [s]
    data: np.ndarray  # (n_sources, n_receivers, n_times)
    wavelet: np.ndarray  # (n_times,), s
    delay: float  # from zero to the peak of the wavelet [s]
    frequencies: np.ndarray  # (n_frequencies,) that were solved [Hz]
    wrap_around: float  # left at the end of the period, over the largest value
    # Whether that is below the tolerance, and every solve reached its own if it has one.
    converged: bool
    solver: str
    settings: Solver
    elapsed: float  # [s]
    snapshot_times: np.ndarray  # (n_snapshots,) [s]
    snapshots: np.ndarray  # (n_snapshots, n_sources, nz, [ny,] nx), zero at the source
    free_surface: bool = False  # u = 0 at the top of the model

    @property
    def step(self) -> float:
        """Time between samples [s]."""
        return float(self.times[1] - self.times[0])

    def to_xarray(self) -> "xarray.Dataset":
        """Traces and wavelet with coordinates, units and settings.

        Raises:
            ValueError: if xarray is not installed.
        """
        from meta_lrpinn.results import storage, trace_files

        return storage.to_xarray(trace_files.contents(self))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the traces, all of them or nothing.

        Args:
            path: Ending in .nc, .zarr, .h5 or .npz, with what `to_xarray` gives, or in
                .sgy or .segy.

        Raises:
            ValueError: if the ending is another, or the format's library is missing.
        """
        from meta_lrpinn.results import trace_files

        trace_files.save(self, path)

    def movie(self, path: str | os.PathLike) -> None:
        """Writes the snapshots of the first source as an animation, .gif.

        Raises:
            ValueError: if there are none, or the ending is another.
        """
        from meta_lrpinn.results import trace_files

        trace_files.save_movie(self, path)


def time_traces(
    model: VelocityModel,
    source: np.ndarray,
    receivers: np.ndarray,
    peak_frequency: float | None = None,
    *,
    record: float,
    step: float | None = None,
    wavelet: np.ndarray | None = None,
    transform_tolerance: float = 1e-3,
    settings: Solver | None = None,
    free_surface: bool = False,
    snapshots: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> Traces:
    """Seismograms of one or several sources.

    The frequencies are the multiples of 1/P at which the wavelet has a part above a tenth
    of the tolerance. The period P is doubled, at most four times, until what is left at its
    end is below the tolerance, so that nothing of it is seen at the beginning. If more is
    left after that, `Traces.wrap_around` says how much, and `Traces.converged` is False.
    Frequencies already solved are kept.

    Frequency zero is left out: there are no waves at it, and in 2D no limit. Of a wavelet
    with a mean, such as a Gaussian, every trace then lacks a constant, which is found from
    its being zero at time zero; snapshots keep lacking theirs.

    Where all receivers stand on a free surface, their traces are zero, and nothing is
    computed unless snapshots are asked for.

    A quality factor Q is the same at all frequencies, which is causal where velocities
    grow as f^γ, γ = (2/π) arctan(1/2Q) (Kjartansson 1979); those of the model hold at the
    peak of the wavelet's spectrum.

    Arguments that are not listed are those of `solve`.

    Args:
        model: Velocity model.
        source: Source position (ndim,), or several, (n_sources, ndim) [km].
        receivers: Receiver positions (n_receivers, ndim) [km].
        peak_frequency: Of a Ricker wavelet [Hz].
        record: Length of the traces [s].
        step: Time between samples [s]; default: fine enough for the wavelet.
        wavelet: Samples of s(t) from zero on instead, `step` apart.
        transform_tolerance: Largest error of the way to time, over the largest value of
            the traces; the solver has its own.
        snapshots: Number of wavefields to keep, evenly spaced over the record.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    began = time.perf_counter()
    settings = check_settings(settings)
    sources, positions = check_positions(model, source, receivers, free_surface)
    receivers = cast(np.ndarray, positions)
    _check_apart(model, sources, receivers)
    step, samples, delay = _wavelet(
        peak_frequency, wavelet, step, record, transform_tolerance
    )
    number = round(record / step) + 1
    frames = np.linspace(0, record, snapshots)
    # As `VelocityModel.check_contains`, half a thousandth of a cell is rounding.
    depth = receivers[:, -1] - model.lower[-1]
    if free_surface and not snapshots and np.all(depth <= 5e-4 * model.spacing[0]):
        warnings.warn("all receivers stand on the free surface, where u = 0", stacklevel=2)
        data = np.zeros((number, len(sources), len(receivers)))
        fields = np.zeros((0, len(sources), *model.shape), np.float32)
        frequencies, wrap_around, converged = np.empty(0), 0.0, True
    else:
        peak = peak_frequency or peak_of(samples, step)
        options = {"settings": settings, "seed": seed, "free_surface": free_surface}
        where = model, sources, receivers, snapshots > 0
        data, fields, frequencies, wrap_around, converged = _in_time(
            functools.cache(functools.partial(_solve, *where, peak, options)),
            functools.partial(_check_sizes, *where),
            samples,
            step,
            frames,
            record,
            transform_tolerance,
            progress,
        )
    return Traces(
        model=model,
        sources=sources,
        receivers=receivers,
        times=step * np.arange(number),
        data=np.moveaxis(data[:number], 0, -1),
        wavelet=np.pad(samples, (0, number))[:number],
        delay=delay,
        frequencies=frequencies,
        wrap_around=wrap_around,
        converged=wrap_around < transform_tolerance and converged,
        solver=settings.name,
        settings=settings,
        free_surface=free_surface,
        elapsed=time.perf_counter() - began,
        snapshot_times=frames,
        snapshots=fields,
    )


def _check_apart(model: VelocityModel, sources: np.ndarray, receivers: np.ndarray) -> None:
    distance, _ = spatial.KDTree(sources).query(receivers)
    if distance.min() < 1e-3 * min(model.spacing):
        position = receivers[np.argmin(distance)].tolist()
        raise ValueError(f"a receiver stands on a source, where u is infinite: {position}")


def _wavelet(
    peak_frequency: float | None,
    wavelet: np.ndarray | None,
    step: float | None,
    record: float,
    tolerance: float,
) -> tuple[float, np.ndarray, float]:
    """Time step, samples of the wavelet, and the time of its peak."""
    positive = {"peak_frequency": peak_frequency, "step": step, "record": record}
    for name, value in positive.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value}")
    if not _LEAST_TOLERANCE <= tolerance < 1:
        raise ValueError(
            "transform_tolerance is a relative error, from "
            f"{_LEAST_TOLERANCE:g} to below 1, got {tolerance:g}"
        )
    if (wavelet is None) == (peak_frequency is None):
        raise ValueError("give a peak frequency or a wavelet, one of them")
    if peak_frequency is not None:
        highest = ricker_band(peak_frequency, tolerance)
        step = round_step(highest) if step is None else step
        if 2 * highest * step > 1:
            raise ValueError(
                f"a step of {step} s does not sample {highest:.3g} Hz, which the wavelet "
                f"has; at most {1 / (2 * highest):.3g} s"
            )
        delay = ricker_delay(peak_frequency)
        length = 2 * delay
    else:
        samples = np.asarray(wavelet, float)
        if step is None:
            raise ValueError("a wavelet needs the step of its samples")
        if samples.ndim != 1 or not np.all(np.isfinite(samples)) or not samples.any():
            raise ValueError(f"wavelet must be samples in time, got {samples.shape}")
        delay = float(step * np.argmax(np.abs(samples)))
        length = step * len(samples)
    if record < step:
        raise ValueError(f"a record of {record} s is shorter than a step of {step} s")
    number = _FIRST_PERIOD * max(record, length) / step
    if number > _MOST_SAMPLES:
        raise ValueError(
            f"{max(record, length):g} s in steps of {step:g} s are {number:.3g} samples, "
            f"more than {_MOST_SAMPLES:,}; is the time in s and the frequency in Hz?"
        )
    if peak_frequency is not None:  # not before it is known that they are few
        samples = ricker(step * np.arange(int(np.ceil(length / step)) + 1), peak_frequency)
    return step, samples, delay


def _in_time(
    solve_at: Any,
    check_sizes: Callable[[np.ndarray, int], None],
    samples: np.ndarray,
    step: float,
    frames: np.ndarray,
    record: float,
    tolerance: float,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]:
    """Solves over ever longer periods, until nothing wraps around.

    `solve_at` is `_solve` at a frequency and keeps what it has solved, `frames` are the
    times of snapshots; other arguments are as of `time_traces`.

    Returns:
        Traces of a period, (n_times, n_sources, n_receivers); snapshots, (n_snapshots,
        n_sources, nz, [ny,] nx); the frequencies that were solved [Hz]; what wraps around;
        and whether no solve missed its tolerance.
    """
    shortest = round(max(_FIRST_PERIOD * record, len(samples) * step) / step)
    for doublings in range(_DOUBLINGS + 1):
        count = shortest * 2**doublings
        period = count * step
        spectrum = step * np.fft.rfft(samples, count)
        indices, has_mean = needed(spectrum, tolerance)
        # Halves of a step are other floats of the same frequency.
        frequencies = np.array([float(f"{k / period:.12g}") for k in indices])
        check_sizes(frequencies, count)
        bar = tqdm.tqdm(frequencies, disable=not progress, unit="frequency")
        traces, fields, converged = map(np.stack, zip(*map(solve_at, bar), strict=True))
        weights = spectrum[indices]
        data = to_time(weights[:, None, None] * traces, indices, period, count)
        if has_mean:
            data = data - data[0]  # nothing has arrived at time zero
        window = round(record / step) + 1 if has_mean else None
        wrap_around = _left_at_end(data, window)
        if wrap_around < tolerance:
            break
    fields = weights.reshape(-1, *(1,) * (fields.ndim - 1)) * fields
    snapshots = at_times(fields, indices, period, frames)
    return data, snapshots, frequencies, wrap_around, bool(np.all(converged))


def _check_sizes(
    model: VelocityModel,
    sources: np.ndarray,
    receivers: np.ndarray,
    with_fields: bool,
    frequencies: np.ndarray,
    samples: int,
) -> None:
    """Refuses more frequencies [Hz], traces or snapshots than there is room for."""
    number = len(frequencies)
    if number > _MOST_FREQUENCIES:
        raise ValueError(
            f"the record needs {number} frequencies up to {frequencies[-1]:.4g} Hz; "
            "ask for a shorter one"
        )
    # Spectra, twice, and a period of every trace; wavefields of snapshots, thrice.
    check_memory(
        len(sources) * len(receivers) * (32.0 * number + 16.0 * samples),
        f"{len(sources):,} x {len(receivers):,} traces of {samples:,} samples",
        "ask for fewer sources or receivers, or a shorter record",
    )
    if with_fields:
        check_memory(
            3 * 8.0 * len(sources) * number * float(np.prod(model.shape)),
            f"snapshots of {len(sources):,} sources from {number:,} frequencies",
            "ask for a movie of one source, or a shorter record",
        )


def _solve(
    model: VelocityModel,
    sources: np.ndarray,
    receivers: np.ndarray,
    with_fields: bool,
    peak: float,
    options: Mapping[str, Any],
    frequency: float,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Total wavefields of unit sources at one frequency; `peak` is that of the model [Hz].

    Returns:
        At the receivers, (n_sources, n_receivers); for snapshots on the grid, (n_sources,
        nz, [ny,] nx), else (0,); and whether the tolerance was not missed.
    """
    # The fundamental solution is that of (Δ + k²) u = δ.
    amplitude = -background.default_amplitude(model.ndim)
    model = dispersed(model, frequency / peak)
    field = solve(model, frequency, sources, amplitude=amplitude, **options)
    whole = field.total.filled(0) if with_fields else np.empty(0)
    traces = field.at(receivers, "total")
    return traces, np.asarray(whole, np.complex64), field.converged is not False


def _left_at_end(data: np.ndarray, window: int | None) -> float:
    """What wraps around to the beginning, over the largest value of all.

    Args:
        data: One period, (n, ...).
        window: Samples of a record whose wavelet has a mean. What it leaves behind in 2D
            falls like 1/t, and a constant is taken off it: its change over a record at the
            end of the period is what counts then, else the largest value there.
    """
    if window is None:
        end = data[-max(1, round(_END * len(data))) :]
    else:
        end = data[-window:] - data[-1]
    largest = float(np.abs(data).max())
    return float(np.abs(end).max()) / largest if largest > 0 else 0.0


def dispersed(model: VelocityModel, ratio: float) -> VelocityModel:
    """A model of constant Q at another frequency; the same where it is lossless.

    Args:
        model: The model, at the frequency of its velocities.
        ratio: The other frequency over that one.
    """
    if model.quality is None:
        return model
    quality = np.asarray(model.quality, float)
    factor = ratio ** (2 / np.pi * np.arctan(0.5 / quality))
    return model.replace_velocity(np.asarray(model.velocity) * factor)


def ricker(times: np.ndarray, peak_frequency: float) -> np.ndarray:
    """Ricker wavelet of peak one, (1 − 2a) e^{−a} with a = (π f (t − t₀))².

    Args:
        times: (n_times,) [s].
        peak_frequency: f, where its spectrum is largest [Hz].

    Returns:
        (n_times,); the peak is at t₀ = `ricker_delay(f)`.
    """
    squared = (np.pi * peak_frequency * (times - ricker_delay(peak_frequency))) ** 2
    return (1 - 2 * squared) * np.exp(-squared)


def ricker_delay(peak_frequency: float) -> float:
    """Time from the start of a Ricker wavelet to its peak [s]."""
    return _DELAY_PERIODS / peak_frequency


def ricker_band(peak_frequency: float, tolerance: float) -> float:
    """Highest frequency whose part of a Ricker wavelet is above a tolerance [Hz].

    The spectrum is (f/f_p)² exp(1 − (f/f_p)²) of its largest value.
    """
    squared = 1.0
    for _ in range(60):  # x = 1 + ln x − ln ε contracts for x > 1
        squared = 1 + math.log(squared) - math.log(_SPECTRUM_SHARE * tolerance)
    return peak_frequency * math.sqrt(squared)


def round_step(highest_frequency: float) -> float:
    """A time step that samples a frequency, one digit long [s]."""
    step = 1 / (_SAMPLES_PER_PERIOD * highest_frequency)
    digit = 10.0 ** math.floor(math.log10(step))
    return math.floor(step / digit * (1 + 1e-9)) * digit


def peak_of(samples: np.ndarray, step: float) -> float:
    """Frequency at which a wavelet (n,), `step` [s] apart, has the most [Hz]."""
    count = 16 * len(samples)  # padded, so that the peak lies between few of them
    return float((np.argmax(np.abs(np.fft.rfft(samples, count))[1:]) + 1) / (count * step))


def needed(spectrum: np.ndarray, tolerance: float) -> tuple[np.ndarray, bool]:
    """Which frequencies matter.

    Args:
        spectrum: Of the wavelet at k/P, k = 0, 1, ..., (n,).
        tolerance: Relative error of the traces.

    Returns:
        Their k from 1 up, since at frequency zero there are no waves; and whether that
        matters nevertheless.
    """
    size = np.abs(spectrum)
    least = _SPECTRUM_SHARE * tolerance * size.max()
    return np.flatnonzero(size[1:] > least) + 1, bool(size[0] > 10 * least)


def to_time(
    values: np.ndarray, indices: np.ndarray, period: float, number: int
) -> np.ndarray:
    """A field over one period.

    Args:
        values: Complex at the frequencies indices/period, (n_frequencies, ...).
        indices: (n_frequencies,) int.
        period: P [s].
        number: Samples of a period.

    Returns:
        Real (number, ...), at the times P j/number.
    """
    whole = np.zeros((number // 2 + 1, *values.shape[1:]), complex)
    whole[indices] = values
    return np.fft.irfft(whole, number, axis=0) * (number / period)


def at_times(
    values: np.ndarray, indices: np.ndarray, period: float, times: np.ndarray
) -> np.ndarray:
    """As `to_time`, at few given times, (n_times, ...) single precision."""
    phases = np.exp(2j * np.pi * np.outer(times, indices) / period).astype(np.complex64)
    flat = values.reshape(len(indices), -1)
    fields = 2 / period * np.real(phases @ flat)
    return fields.reshape(len(times), *values.shape[1:]).astype(np.float32)
