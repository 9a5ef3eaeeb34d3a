"""Seismograms against exact ones, and their files."""

import dataclasses
import types

import numpy as np
import pytest
import scipy.special

import meta_lrpinn as ml
from meta_lrpinn.solvers import seismograms as record

PEAK = 5.0


def ricker(times):
    return record.ricker(times, PEAK)


def homogeneous_trace(times, travel_time, wavelet=ricker):
    """Exact 2D trace of a wavelet at a distance r = v T in a homogeneous medium.

    The wavelet convolved with 1/(2π √(t² − T²)), by the substitution t = T cosh θ.
    """
    angle = np.linspace(0, np.arccosh(max(times[-1] / travel_time, 1)), 4001)
    late = times[:, None] - travel_time * np.cosh(angle)
    values = np.where(late > 0, wavelet(late), 0)
    return np.trapezoid(values, angle, axis=-1) / (2 * np.pi)


@pytest.fixture(scope="module")
def homogeneous():
    model = ml.VelocityModel(np.full((9, 17), 2.0), 0.05)
    receivers = np.array([[0.3, 0.1], [0.7, 0.3]])
    return ml.time_traces(model, (0.1, 0.1), receivers, PEAK, record=0.9, snapshots=10)


def test_homogeneous_medium_is_exact(homogeneous):
    for receiver, trace in zip(homogeneous.receivers, homogeneous.data[0], strict=True):
        distance = np.linalg.norm(receiver - homogeneous.sources[0])
        exact = homogeneous_trace(homogeneous.times, distance / 2.0)
        np.testing.assert_allclose(trace, exact, atol=2e-3 * np.abs(exact).max())


def test_nothing_arrives_before_its_time(homogeneous):
    distances = np.linalg.norm(homogeneous.receivers - homogeneous.sources, axis=-1)
    largest = np.abs(homogeneous.data).max()
    for distance, trace in zip(distances, homogeneous.data[0], strict=True):
        is_early = homogeneous.times < distance / 2.0
        assert np.abs(trace[is_early]).max() < 1e-3 * largest
    assert homogeneous.wrap_around < 1e-3


def test_constant_quality_is_causal_and_exact():
    """u = −(i/4) H₀⁽²⁾(ω s r) with s ∝ (iω)^{−γ}, Re s = 1/v at the peak (Kjartansson)."""
    velocity, quality, distance = 2.0, 20.0, 0.5
    model = ml.VelocityModel(np.full((9, 17), velocity), 0.05, quality=quality)
    traces = ml.time_traces(model, (0.1, 0.2), [(0.1 + distance, 0.2)], PEAK, record=0.9)
    step, count = traces.step, 2**15
    frequencies = np.fft.rfftfreq(count, step)[1:]
    exponent = 2 / np.pi * np.arctan(0.5 / quality)
    slowness = (1j * frequencies / PEAK) ** -exponent
    slowness /= velocity * np.cos(np.pi * exponent / 2)
    field = -0.25j * scipy.special.hankel2(0, 2 * np.pi * frequencies * slowness * distance)
    spectrum = np.fft.rfft(traces.wavelet, count)
    spectrum[1:] *= field
    spectrum[0] = 0
    exact = np.fft.irfft(spectrum, count)[: len(traces.times)]
    largest = np.abs(exact).max()
    np.testing.assert_allclose(traces.data[0, 0], exact, atol=3e-3 * largest)
    lossless = homogeneous_trace(traces.times, distance / velocity)
    assert largest < 0.9 * np.abs(lossless).max()
    # The fastest waves of the band, three times the peak, are 2.7 % faster.
    is_early = traces.times < 0.95 * distance / velocity
    assert np.abs(traces.data[0, 0][is_early]).max() < 2e-3 * largest


def test_snapshots_are_the_wavefield_of_their_times(homogeneous):
    assert homogeneous.snapshots.shape == (10, 1, 9, 17)
    index = np.argmin(np.abs(homogeneous.times - homogeneous.snapshot_times[5]))
    row, column = 2, 6  # where the first receiver stands
    step = np.abs(np.diff(homogeneous.data[0, 0])).max()
    value = homogeneous.snapshots[5, 0, row, column]
    assert value == pytest.approx(homogeneous.data[0, 0, index], abs=step)


def lag(trace, other, step):
    """How much later a trace is than another, by correlation, to a part of a step."""
    correlation = np.correlate(trace, other, "full")
    peak = np.argmax(correlation)
    left, middle, right = correlation[peak - 1 : peak + 2]
    part = (left - right) / (2 * (left - 2 * middle + right))
    return step * (peak + part - (len(other) - 1))


@pytest.mark.slow
def test_arrival_times_in_a_velocity_that_grows_with_depth():
    """v = v₀ + kz: T = arcosh(1 + k² d²/(2 v_s v_r))/k (Slotnick 1959)."""
    start, growth = 1.5, 1.0
    depth = 0.025 * np.arange(41)
    model = ml.VelocityModel((start + growth * depth)[:, None] * np.ones((41, 61)), 0.025)
    # Half a Fresnel zone, 0.3 km, from the edges, beyond which the velocity is constant.
    source, receivers = np.array([0.2, 0.4]), np.array([[1.2, 0.5], [1.0, 0.7]])
    traces = ml.time_traces(model, source, receivers, PEAK, record=1.2)
    for receiver, trace in zip(receivers, traces.data[0], strict=True):
        squared = np.sum((receiver - source) ** 2)
        ends = (start + growth * source[1]) * (start + growth * receiver[1])
        travel_time = np.arccosh(1 + growth**2 * squared / (2 * ends)) / growth
        exact = homogeneous_trace(traces.times, travel_time)
        # Hundredths of the period of 200 ms: rays bend, the wave's shape hardly changes.
        assert abs(lag(trace, exact, traces.step)) < 0.003


def solved_as(value):
    """A `solve` whose field at one receiver is a function of the frequency."""

    def solve(model, frequency, sources, **options):
        traces = np.full((1, 1), value(frequency))
        return types.SimpleNamespace(at=lambda points, part: traces, converged=None)

    return solve


def answers(monkeypatch, decay):
    """Traces of damped waves instead of solves; returns the frequencies asked for."""
    asked = []

    def value(frequency):
        asked.append(frequency)
        # Of e^{−t/decay} for t > 0: seen too early where a period is no longer.
        return 1 / (1 / decay + 2j * np.pi * frequency)

    monkeypatch.setattr(record, "solve", solved_as(value))
    return asked


def test_periods_grow_until_nothing_is_left_and_no_frequency_is_solved_twice(monkeypatch):
    model = ml.VelocityModel(np.full((3, 3), 2.0), 0.1)
    counts = []
    for decay in (0.02, 0.4):
        with monkeypatch.context() as patch:
            asked = answers(patch, decay)
            traces = ml.time_traces(model, (0, 0), [[0.2, 0.2]], PEAK, record=1.0)
        assert len(set(asked)) == len(asked) == len(traces.frequencies)
        assert traces.wrap_around < 1e-3 and traces.converged
        is_early = traces.times < 0.05
        assert np.abs(traces.data[0, 0, is_early]).max() < 3e-3 * np.abs(traces.data).max()
        counts.append(len(asked))
    assert counts[1] >= 2 * counts[0]


def test_what_is_left_after_the_longest_period_is_said(monkeypatch):
    """Of a resonance that outlasts twenty times the record."""
    model = ml.VelocityModel(np.full((3, 3), 2.0), 0.1)

    def value(frequency):
        return 1 / ((0.25 + 2j * np.pi * frequency) ** 2 + (2 * np.pi * PEAK) ** 2)

    monkeypatch.setattr(record, "solve", solved_as(value))
    where = (model, (0, 0), [[0.2, 0.2]], PEAK)
    traces = ml.time_traces(*where, record=1.0)
    assert traces.converged is False and traces.wrap_around > 1e-3
    looser = ml.time_traces(*where, record=1.0, transform_tolerance=0.05)
    assert looser.converged is True


def test_a_tolerance_that_the_solver_missed_is_said(monkeypatch):
    """At one frequency of all."""
    solve, missed = record.solve, []

    def missing(*arguments, **options):
        field = solve(*arguments, **options)
        missed.append(field.frequency)
        return dataclasses.replace(field, converged=len(missed) != 3)

    monkeypatch.setattr(record, "solve", missing)
    model = ml.VelocityModel(np.full((11, 11), 2.0), 0.05)
    traces = ml.time_traces(model, (0.1, 0.1), [[0.3, 0.3]], 3.0, record=0.5)
    assert traces.converged is False and traces.wrap_around < 1e-3


def test_a_given_wavelet_is_as_good_as_a_ricker(monkeypatch):
    model = ml.VelocityModel(np.full((3, 3), 2.0), 0.1)
    answers(monkeypatch, 0.05)
    options = {"record": 1.0, "step": 0.01}
    ricker = ml.time_traces(model, (0, 0), [[0.2, 0.2]], PEAK, **options)
    samples = record.ricker(0.01 * np.arange(61), PEAK)
    given = ml.time_traces(model, (0, 0), [[0.2, 0.2]], wavelet=samples, **options)
    np.testing.assert_allclose(given.data, ricker.data, rtol=1e-9, atol=1e-12)
    assert given.delay == pytest.approx(ricker.delay)


def test_a_wavelet_with_a_mean_is_solved(homogeneous):
    """A Gaussian, of which the solver lacks frequency zero only."""
    gaussian = lambda times: np.exp(-(((times - 0.2) / 0.05) ** 2))  # noqa: E731
    step = 0.004
    traces = ml.time_traces(
        homogeneous.model, (0.1, 0.1), homogeneous.receivers, step=step, record=0.9,
        wavelet=gaussian(step * np.arange(101)),
    )  # fmt: skip
    assert traces.converged
    for receiver, trace in zip(traces.receivers, traces.data[0], strict=True):
        distance = np.linalg.norm(receiver - traces.sources[0])
        exact = homogeneous_trace(traces.times, distance / 2.0, gaussian)
        np.testing.assert_allclose(trace, exact, atol=2e-3 * np.abs(exact).max())


def test_receivers_on_a_free_surface_record_zeros_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "solve", None)
    model = ml.VelocityModel(np.full((9, 17), 2.0), 0.05, (0.0, 0.3))
    receivers = [[0.3, 0.3], [0.5, 0.30001]]
    arguments = model, (0.1, 0.4), receivers, PEAK
    with pytest.warns(UserWarning, match="all receivers stand on the free surface"):
        traces = ml.time_traces(*arguments, record=0.5, free_surface=True)
    assert traces.converged and traces.data.shape == (1, 2, len(traces.times))
    assert not traces.data.any() and not len(traces.frequencies)
    traces.save(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"receivers": [[0.0, 0.0]]}, "a receiver stands on a source"),
        ({"receivers": [[9.0, 0.0]]}, "receiver .* outside"),
        ({"peak_frequency": None}, "a peak frequency or a wavelet"),
        ({"wavelet": [1.0, -1.0]}, "a peak frequency or a wavelet"),
        ({"peak_frequency": -1.0}, "peak_frequency must be positive"),
        ({"record": 0.0}, "record must be positive"),
        ({"step": 0.1}, "does not sample .* Hz, which the wavelet has; at most"),
        ({"peak_frequency": None, "wavelet": [1.0, -1.0]}, "needs the step"),
        ({"record": 1e5}, "needs .* frequencies up to .* Hz; ask for a shorter"),
    ],
)
def test_bad_input_is_one_line(options, message):
    arguments = {"receivers": [[0.2, 0.2]], "peak_frequency": PEAK, "record": 1.0}
    model = ml.VelocityModel(np.full((3, 3), 2.0), 0.1)
    with pytest.raises(ValueError, match=message) as error:
        ml.time_traces(model, (0.0, 0.0), **{**arguments, **options})
    assert "\n" not in str(error.value)


# Files --------------------------------------------------------------------------------


@pytest.fixture
def traces():
    model = ml.VelocityModel(np.full((5, 6), 2.0), 0.1)
    rng = np.random.default_rng(0)
    times = 0.004 * np.arange(50)
    return record.Traces(
        model=model,
        sources=np.array([[0.1, 0.0125], [0.2, 0.1]]),
        receivers=np.array([[0.1234, 0.0], [0.3, 0.25], [0.5, 0.4]]),
        times=times,
        data=rng.normal(size=(2, 3, 50)),
        wavelet=record.ricker(times, PEAK),
        delay=0.3,
        frequencies=np.arange(1.0, 20.0),
        wrap_around=1e-4,
        converged=True,
        solver="finite_differences",
        settings=ml.FiniteDifferences(),
        elapsed=1.0,
        snapshot_times=np.linspace(0, 0.2, 4),
        snapshots=rng.normal(size=(4, 2, 5, 6)).astype(np.float32),
    )


@pytest.mark.parametrize("ending", ["nc", "zarr", "h5"])
def test_files_hold_traces_with_coordinates(traces, tmp_path, ending):
    xarray = pytest.importorskip("xarray")
    path = tmp_path / f"traces.{ending}"
    traces.save(path)
    engine = "zarr" if ending == "zarr" else "h5netcdf"
    options = {"consolidated": False} if ending == "zarr" else {}
    with xarray.open_dataset(path, engine=engine, **options) as data:
        assert data.traces.dims == ("source", "receiver", "time")
        np.testing.assert_array_equal(data.traces, traces.data.astype(np.float32))
        np.testing.assert_array_equal(data.time, traces.times)
        np.testing.assert_array_equal(data.receiver_z, traces.receivers[:, 1])
        assert data.time.units == "s" and data.attrs["wavelet_delay"] == 0.3


def test_numpy_file(traces, tmp_path):
    traces.save(tmp_path / "traces.npz")
    with np.load(tmp_path / "traces.npz") as file:
        np.testing.assert_array_equal(file["traces"], traces.data.astype(np.float32))
        np.testing.assert_array_equal(file["source_x"], traces.sources[:, 0])


def test_segy_file(traces, tmp_path):
    segyio = pytest.importorskip("segyio")
    traces.save(tmp_path / "traces.sgy")
    with segyio.open(str(tmp_path / "traces.sgy"), ignore_geometry=True) as file:
        assert segyio.tools.dt(file) == 4000
        expected = traces.data.reshape(6, 50).astype(np.float32)
        np.testing.assert_array_equal(file.trace.raw[:], expected)
        header = file.header[4]
        field = segyio.TraceField
        assert (header[field.FieldRecord], header[field.TraceNumber]) == (2, 2)
        scale = -header[field.SourceGroupScalar]
        assert header[field.GroupX] / scale == 300.0
        assert header[field.SourceX] / scale == 200.0
        assert file.header[0][field.SourceDepth] / scale == 12.5
        assert file.header[0][field.GroupX] / scale == 123.4


def test_movie(traces, tmp_path):
    image = pytest.importorskip("PIL.Image")
    traces.movie(tmp_path / "film.gif")
    with image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({}, "traces.txt", "written as"),
        ({}, "film.avi", "movies are written as .gif"),
        ({"times": 0.0000005 * np.arange(50)}, "traces.sgy", "whole microseconds"),
        ({"snapshots": np.empty((0, 2, 5, 6))}, "film.gif", "no snapshots"),
    ],
)
def test_files_that_cannot_be_are_refused(traces, tmp_path, change, name, message):
    traces = dataclasses.replace(traces, **change)
    write = traces.movie if name.startswith("film") else traces.save
    with pytest.raises(ValueError, match=message):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
