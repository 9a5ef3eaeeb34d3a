"""`time_traces`: seismograms at receivers from solves at many frequencies."""

import dataclasses
import os
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import tqdm
from scipy import spatial

from meta_lrpinn.physics import background
from meta_lrpinn.physics.free_surface import check_sources
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers import time_transform as transform
from meta_lrpinn.solvers.settings import PlaneWaves, Solver, check_settings
from meta_lrpinn.solvers.solve import solve

if TYPE_CHECKING:
    import xarray

# The first period over the record, and how often it is doubled at most.
_FIRST_PERIOD, _DOUBLINGS = 1.25, 4
# The end of the period, where nothing must be left.
_END = 0.1
# Rounding leaves more than any less.
_LEAST_TOLERANCE = 1e-9
_MOST_FREQUENCIES = 20_000
# Of one period; a trace of so many is longer than any record.
_MOST_SAMPLES = 2**24


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
        settings: Which solver; by default `PlaneWaves()`.
        free_surface: Whether u = 0 at the top of the model; as of `solve`.
        snapshots: Number of wavefields to keep, evenly spaced over the record.
        seed: Seed of all that is random.
        progress: Show a progress bar.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    began = time.perf_counter()
    settings = PlaneWaves() if settings is None else settings
    check_settings(settings)
    sources, receivers = (np.atleast_2d(np.asarray(a, float)) for a in (source, receivers))
    _check_positions(model, sources, receivers, free_surface)
    step, samples, delay = _wavelet(
        peak_frequency, wavelet, step, record, transform_tolerance
    )
    peak = peak_frequency or transform.peak_of(samples, step)
    options = {"settings": settings, "seed": seed, "free_surface": free_surface}
    number = round(record / step) + 1
    frames = np.linspace(0, record, snapshots)
    if free_surface and not snapshots and _all_on_surface(model, receivers):
        warnings.warn("all receivers stand on the free surface, where u = 0", stacklevel=2)
        response = _nothing(number, sources, receivers, frames, model)
    else:
        spectra = _Spectra(model, peak, sources, receivers, options, snapshots > 0)
        with tqdm.tqdm(disable=not progress, unit="frequency") as bar:
            response = _response(
                spectra, samples, step, record, transform_tolerance, frames, bar
            )
    return Traces(
        model=model,
        sources=sources,
        receivers=receivers,
        times=step * np.arange(number),
        data=np.moveaxis(response.data[:number], 0, -1),
        wavelet=_cut(samples, number),
        delay=delay,
        frequencies=response.frequencies,
        wrap_around=response.wrap_around,
        converged=response.wrap_around < transform_tolerance and response.converged,
        solver=settings.name,
        settings=settings,
        free_surface=free_surface,
        elapsed=time.perf_counter() - began,
        snapshot_times=frames,
        snapshots=response.snapshots,
    )


@dataclasses.dataclass(frozen=True)
class _Response:
    """The wavefield in time, of one wavelet."""

    data: np.ndarray  # (n_times or more, n_sources, n_receivers)
    frequencies: np.ndarray  # that were solved [Hz]
    wrap_around: float
    converged: bool  # no solve missed its tolerance
    snapshots: np.ndarray  # (n_snapshots, n_sources, nz, [ny,] nx)


def _nothing(
    number: int,
    sources: np.ndarray,
    receivers: np.ndarray,
    frames: np.ndarray,
    model: VelocityModel,
) -> _Response:
    """Zeros, for which nothing has to be solved."""
    data = np.zeros((number, len(sources), len(receivers)))
    snapshots = np.zeros((len(frames), len(sources), *model.shape), np.float32)
    return _Response(data, np.empty(0), 0.0, True, snapshots)


def _response(
    spectra: "_Spectra",
    samples: np.ndarray,
    step: float,
    record: float,
    tolerance: float,
    frames: np.ndarray,
    bar: tqdm.tqdm,
) -> _Response:
    """Solves over ever longer periods, until nothing wraps around.

    Args:
        spectra: Solves, each frequency once.
        samples: Of the wavelet.
        step: Between them [s].
        record: Length of the traces [s].
        tolerance: Of the way to time.
        frames: Times of snapshots [s].
        bar: Shows the frequencies.
    """
    number = round(record / step) + 1
    shortest = round(max(_FIRST_PERIOD * record, len(samples) * step) / step)
    doublings = 0
    while True:
        count = shortest * 2**doublings
        period = count * step
        spectrum = step * np.fft.rfft(samples, count)
        indices = transform.needed(spectrum, tolerance)
        spectra.check_sizes(indices, period, count)
        bar.total = len(indices)
        values = spectra.at(indices / period, bar)
        weights = spectrum[indices]
        data = weights[:, None, None] * values.traces
        data = transform.to_time(data, indices, period, count)
        if has_mean := transform.has_mean(spectrum, tolerance):
            data = data - data[0]  # nothing has arrived at time zero
        wrap_around = _left_at_end(data, number if has_mean else None)
        if wrap_around < tolerance or doublings == _DOUBLINGS:
            break
        doublings += 1
    fields = weights.reshape(-1, *(1,) * (values.fields.ndim - 1)) * values.fields
    return _Response(
        data=data,
        frequencies=indices / period,
        wrap_around=wrap_around,
        converged=values.converged,
        snapshots=transform.at_times(fields, indices, period, frames),
    )


def _cut(samples: np.ndarray, number: int) -> np.ndarray:
    """A wavelet (n,) as so many samples, zero after its end."""
    return np.pad(samples, (0, max(0, number - len(samples))))[:number]


def _all_on_surface(model: VelocityModel, receivers: np.ndarray) -> bool:
    # As `VelocityModel.check_contains`, half a thousandth of a cell is rounding.
    return bool(np.all(receivers[:, -1] <= model.lower[-1] + 5e-4 * model.spacing[0]))


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


def _check_positions(
    model: VelocityModel, sources: np.ndarray, receivers: np.ndarray, free_surface: bool
) -> None:
    model.check_contains(sources, what="source")
    model.check_contains(receivers, what="receiver")
    _check_apart(model, sources, receivers)
    if free_surface:
        check_sources(model, sources)


def _check_apart(model: VelocityModel, sources: np.ndarray, receivers: np.ndarray) -> None:
    distance, _ = spatial.KDTree(sources).query(receivers)
    if distance.min() < 1e-3 * min(model.spacing):
        position = receivers[np.argmin(distance)].tolist()
        raise ValueError(f"a receiver stands on a source, where u is infinite: {position}")


def _check_number(indices: np.ndarray, period: float) -> None:
    if len(indices) > _MOST_FREQUENCIES:
        raise ValueError(
            f"the record needs {len(indices)} frequencies up to "
            f"{indices[-1] / period:.4g} Hz; ask for a shorter one"
        )


def _check_samples(length: float, step: float) -> None:
    number = _FIRST_PERIOD * length / step
    if number > _MOST_SAMPLES:
        raise ValueError(
            f"{length:g} s in steps of {step:g} s are {number:.3g} samples, more than "
            f"{_MOST_SAMPLES:,}; is the time in s and the frequency in Hz?"
        )


def _wavelet(
    peak_frequency: float | None,
    wavelet: np.ndarray | None,
    step: float | None,
    record: float,
    tolerance: float,
) -> tuple[float, np.ndarray, float]:
    """Time step, samples of the wavelet, and the time of its peak."""
    for name, value in (
        ("peak_frequency", peak_frequency), ("step", step), ("record", record),
        ("transform_tolerance", tolerance),
    ):  # fmt: skip
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
        highest = transform.ricker_band(peak_frequency, tolerance)
        step = transform.round_step(highest) if step is None else step
        if 2 * highest * step > 1:
            raise ValueError(
                f"a step of {step} s does not sample {highest:.3g} Hz, which the wavelet "
                f"has; at most {1 / (2 * highest):.3g} s"
            )
        delay = transform.ricker_delay(peak_frequency)
        _check_samples(max(record, 2 * delay), step)
        times = step * np.arange(int(np.ceil(2 * delay / step)) + 1)
        samples = transform.ricker(times, peak_frequency)
    else:
        samples = np.asarray(wavelet, float)
        if step is None:
            raise ValueError("a wavelet needs the step of its samples")
        if samples.ndim != 1 or not np.all(np.isfinite(samples)) or not samples.any():
            raise ValueError(f"wavelet must be samples in time, got {samples.shape}")
        delay = float(step * np.argmax(np.abs(samples)))
    _check_samples(max(record, step * len(samples)), step)
    if record < step:
        raise ValueError(f"a record of {record} s is shorter than a step of {step} s")
    return step, samples, delay


@dataclasses.dataclass(frozen=True)
class _Values:
    """Total wavefields of unit sources."""

    traces: np.ndarray  # (n_frequencies, n_sources, n_receivers) complex
    fields: np.ndarray  # (n_frequencies, n_sources, nz, nx) complex64; or no sources
    converged: bool  # no solve missed its tolerance


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


class _Spectra:
    """Solves at frequencies, each once."""

    def __init__(self, model, peak, sources, receivers, options, with_fields):
        self._model, self._sources, self._receivers = model, sources, receivers
        self._peak = peak
        self._options = options
        self._with_fields = with_fields
        self._known: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self._missed: set[float] = set()  # frequencies whose tolerance was not reached

    def check_sizes(self, indices: np.ndarray, period: float, samples: int) -> None:
        """Refuses more frequencies, traces or snapshots than there is room for.

        Args:
            indices: Of the frequencies that are solved for.
            period: Of which they are multiples of the inverse [s].
            samples: Of one period.
        """
        _check_number(indices, period)
        frequencies = len(indices)
        sources, receivers = len(self._sources), len(self._receivers)
        # Spectra, twice, and a period of every trace; wavefields of snapshots, thrice.
        check_memory(
            sources * receivers * (32.0 * frequencies + 16.0 * samples),
            f"{sources:,} x {receivers:,} traces of {samples:,} samples",
            "ask for fewer sources or receivers, or a shorter record",
        )
        if self._with_fields:
            points = float(np.prod(self._model.shape))
            check_memory(
                3 * 8.0 * sources * frequencies * points,
                f"snapshots of {sources:,} sources from {frequencies:,} frequencies",
                "ask for a movie of one source, or a shorter record",
            )

    def at(self, frequencies: np.ndarray, bar: tqdm.tqdm) -> _Values:
        """Values at frequencies [Hz]; the bar counts those that are there."""
        # Halves of a step are other floats of the same frequency.
        keys = [float(f"{frequency:.12g}") for frequency in frequencies]
        bar.n = sum(key in self._known for key in keys)
        for key in keys:
            if key not in self._known:
                self._known[key] = self._solve(key)
                bar.update()
        traces, fields = zip(*(self._known[key] for key in keys), strict=True)
        return _Values(np.stack(traces), np.stack(fields), self._missed.isdisjoint(keys))

    def _solve(self, frequency: float) -> tuple[np.ndarray, np.ndarray]:
        # The fundamental solution is that of (Δ + k²) u = δ.
        amplitude = -background.default_amplitude(self._model.ndim)
        model = dispersed(self._model, frequency / self._peak)
        field = solve(model, frequency, self._sources, amplitude=amplitude, **self._options)
        if field.converged is False:
            self._missed.add(frequency)
        whole = field.total.filled(0) if self._with_fields else np.empty(0)
        return field.at(self._receivers, "total"), np.asarray(whole, np.complex64)
