"""Wavelets, the frequencies they have, and the way back to time."""

import numpy as np
import pytest

from meta_lrpinn.solvers import seismograms

PEAK, STEP = 5.0, 0.004


def wavelet(number=400):
    return seismograms.ricker(STEP * np.arange(number), PEAK)


def test_ricker_begins_at_rest_and_peaks_at_its_delay():
    values = wavelet()
    assert abs(values[0]) < 1e-7
    assert STEP * np.argmax(values) == pytest.approx(seismograms.ricker_delay(PEAK))
    assert values.max() == pytest.approx(1)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_band_ends_where_the_spectrum_does(tolerance):
    highest = seismograms.ricker_band(PEAK, tolerance)
    ratio = (highest / PEAK) ** 2
    assert ratio * np.exp(1 - ratio) == pytest.approx(0.1 * tolerance)
    assert seismograms.ricker_band(1e6 * PEAK, tolerance) == pytest.approx(1e6 * highest)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_step_samples_the_band_whatever_the_unit(scale):
    step = seismograms.round_step(scale * 19.0)
    assert 5 <= 1 / (19.0 * scale * step) < 10
    assert float(f"{step:.0e}") == pytest.approx(step)  # one digit


def test_a_wave_that_is_late_by_a_time_arrives_then():
    """From spectrum to time and back, with time going as e^{+iωt}."""
    number, lag = 500, 0.8
    period = number * STEP
    spectrum = STEP * np.fft.rfft(wavelet(), number)
    indices, _ = seismograms.needed(spectrum, 1e-4)
    late = spectrum[indices] * np.exp(-2j * np.pi * indices / period * lag)
    found = seismograms.to_time(late, indices, period, number)
    times = STEP * np.arange(number)
    np.testing.assert_allclose(found, seismograms.ricker(times - lag, PEAK), atol=1e-4)
    some = seismograms.at_times(late, indices, period, times[::50])
    np.testing.assert_allclose(some, found[::50], atol=1e-5)


def test_only_frequencies_of_the_wavelet_are_needed():
    period = 500 * STEP
    spectrum = np.fft.rfft(wavelet(), 500)
    many, few = (seismograms.needed(spectrum, tolerance)[0] for tolerance in (1e-4, 1e-1))
    assert set(few) < set(many) and 0 not in many
    assert many[-1] / period == pytest.approx(seismograms.ricker_band(PEAK, 1e-4), abs=1)


def test_a_mean_is_told_from_none():
    for values, expected in ((wavelet(), False), (np.abs(wavelet()), True)):
        assert seismograms.needed(np.fft.rfft(values, 500), 1e-3)[1] is expected
