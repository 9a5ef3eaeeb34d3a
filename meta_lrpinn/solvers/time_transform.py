"""Between frequency and time, with time going as e^{+iωt}.

A field known at the multiples of 1/P, u(t) = Σ_k U(k/P) e^{2πikt/P} / P, repeats itself
after the period P: what arrives later than P is seen too early. Periods are therefore
longer than the record, and longer still until nothing is left at their end.
"""

import math

import numpy as np

# Starts of a Ricker wavelet before its peak, in periods of the peak frequency: there it
# is below 1e-8 of its peak.
_DELAY_PERIODS = 1.5
# Samples in a period of the highest frequency, where no step is given.
_SAMPLES_PER_PERIOD = 5
# Frequencies longer than this part of the largest are needed, over the tolerance.
_SPECTRUM_SHARE = 0.1


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
    """Frequency at which the spectrum of a wavelet is largest [Hz].

    Args:
        samples: (n,).
        step: Between them [s].
    """
    count = 16 * len(samples)  # padded, so that the peak lies between few of them
    return float((np.argmax(np.abs(np.fft.rfft(samples, count))[1:]) + 1) / (count * step))


def needed(spectrum: np.ndarray, tolerance: float) -> np.ndarray:
    """Indices of the frequencies that matter.

    Args:
        spectrum: Of the wavelet at k/P, k = 0, 1, ..., (n,).
        tolerance: Relative error of the traces.

    Returns:
        Those from 1 up: at frequency zero there are no waves (see `has_mean`).
    """
    size = np.abs(spectrum)
    return np.flatnonzero(size[1:] > _SPECTRUM_SHARE * tolerance * size.max()) + 1


def has_mean(spectrum: np.ndarray, tolerance: float) -> bool:
    """Whether frequency zero matters; arguments as of `needed`."""
    size = np.abs(spectrum)
    return bool(size[0] > 10 * _SPECTRUM_SHARE * tolerance * size.max())


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
