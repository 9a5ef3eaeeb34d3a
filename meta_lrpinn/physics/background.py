"""The background wavefield of a point source in a homogeneous medium.

Time convention e^{+iωt}: outgoing waves carry H₀⁽²⁾(kr) in 2D and e^{−ikr}/r in 3D.
Both are analytic in the squared distance, so they accept the complex coordinates of
an absorbing layer, where they decay (docs/theory.md).
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from meta_lrpinn.runtime.precision import Array, namespace

# |z| where the two expansions of the Hankel function meet, by precision: the series
# cancels above, like e^{2|z|} towards the imaginary axis, the integral is short below.
_CROSSOVER = {jnp.complex64: 2.0, jnp.complex128: 4.0}
# The last term of the series is below rounding at the crossover, and the fits are those
# measured in `_far_coefficients`.
_SERIES_TERMS = {jnp.complex64: 10, jnp.complex128: 20}
_FAR_DEGREE = {jnp.complex64: 8, jnp.complex128: 20}
# Measured: half as many leave 3e-10 at the crossover of single precision and 5e-14 at that
# of double precision, so many 2e-14 and less.
_HERMITE_NODES = 64
# Nearer to the source than this, over 1/k, u₀ keeps its value: it is infinite there. A
# guard, not tuned.
SMALLEST_PHASE = 1e-9


def default_amplitude(ndim: int) -> complex:
    """A of the fundamental solution, (Δ + ω²m₀)u₀ = δ: i/4 in 2D, −1/(4π) in 3D."""
    return {2: 0.25j, 3: complex(-1 / (4 * np.pi))}[ndim]


def hankel0(z: jax.Array) -> jax.Array:
    """Hankel function of the second kind and order zero, H₀⁽²⁾(z), for Re z ≥ 0.

    Below |z| = 4 (2 in single precision) the ascending series (Abramowitz and Stegun
    9.1.12–13); above, √(2/πz) e^{−i(z−π/4)} π^{−1/2} ∫ e^{−t²} (1 − it²/2z)^{−1/2} dt
    (A&S 9.2 and DLMF 10.9.20 with u = t²), its slow factor a polynomial in 1/z. Relative
    error below 1e-12 in double precision and 1e-5 in single, for −π/2 ≤ arg z ≤ 0.

    Args:
        z: Complex (or real) arguments of any shape, not zero.
    """
    z = jnp.asarray(z)
    z = z.astype(jnp.result_type(z.dtype, jnp.complex64))
    crossover = _CROSSOVER[z.dtype.type]
    is_near = jnp.abs(z) < crossover
    # Each branch sees harmless arguments where the other is used, so that neither
    # overflows nor poisons the gradient.
    near = _hankel0_series(jnp.where(is_near, z, 1.0))
    far = _hankel0_far(jnp.where(is_near, 2 * crossover, z), crossover)
    return jnp.where(is_near, near, far)


def _hankel0_series(z: jax.Array) -> jax.Array:
    quarter = -(z * z) / 4
    term = jnp.ones_like(z)
    bessel_j, tail, harmonic = term, jnp.zeros_like(z), 0.0
    for k in range(1, _SERIES_TERMS[z.dtype.type]):
        term = term * quarter / k**2
        harmonic += 1 / k
        bessel_j = bessel_j + term
        tail = tail - harmonic * term
    bessel_y = 2 / np.pi * ((jnp.log(z / 2) + np.euler_gamma) * bessel_j + tail)
    return bessel_j - 1j * bessel_y


def _hankel0_far(z: Any, crossover: float) -> Any:
    xp, t = namespace(z), crossover / z
    factor = xp.zeros_like(z)
    for coefficient in _far_coefficients(crossover, _FAR_DEGREE[z.dtype.type])[::-1]:
        factor *= t
        factor += coefficient
    return xp.sqrt(2 / (np.pi * z)) * xp.exp(-1j * (z - np.pi / 4)) * factor


@functools.lru_cache
def _far_coefficients(crossover: float, degree: int) -> tuple[complex, ...]:
    """Polynomial in crossover/z of the slowly varying factor of H₀⁽²⁾(z).

    The factor π^{−1/2} ∫ e^{−t²} (1 − it²/2z)^{−1/2} dt, by Gauss–Hermite quadrature, is
    analytic in t = crossover/z in the quarter disk |t| ≤ 1, −π/2 ≤ arg z ≤ 0, so a
    least-squares fit on its boundary holds everywhere inside: 3e-14 at
    degree 20 and 4, 5e-7 at degree 8 and 2.
    """
    nodes, weights = np.polynomial.hermite.hermgauss(_HERMITE_NODES)
    angle = np.linspace(0, np.pi / 2, 400)
    radius = (1 - np.cos(np.linspace(0, np.pi, 401)[1:])) / 2
    boundary = np.concatenate([np.exp(1j * angle), radius, 1j * radius])
    inverse = boundary[:, None] / crossover
    integral = (weights / np.sqrt(1 - 0.5j * nodes**2 * inverse)).sum(axis=1)
    powers = np.vander(boundary, degree + 1, increasing=True)
    fit = np.linalg.lstsq(powers, integral / np.sqrt(np.pi), rcond=None)[0]
    return tuple(complex(coefficient) for coefficient in fit)


def complex_distance(offset: Array) -> jax.Array:
    """Distance √(Σ offset²), continued analytically to complex offsets.

    It is `SMALLEST_PHASE` at least, which keeps u₀ finite at the source itself, where the
    contrast m − m₀ that multiplies it vanishes.

    Args:
        offset: Displacement from the source, shape (..., ndim), over 1/k; real or complex.

    Returns:
        Complex array (...) on the branch with non-negative real part.
    """
    squared = jnp.sum(jnp.asarray(offset) ** 2, axis=-1)
    squared = squared.astype(jnp.result_type(squared.dtype, jnp.complex64))
    smallest = SMALLEST_PHASE**2
    return jnp.sqrt(jnp.where(jnp.abs(squared) < smallest, smallest, squared))


def background_field(
    offset: Array, wavenumber: Array | float, amplitude: Array | complex
) -> jax.Array:
    """Background wavefield u₀ of a point source, complex (...).

    A H₀⁽²⁾(k r) in 2D and A e^{−ikr}/r in 3D, with k = ω/v₀ (Cheng and Alkhalifah
    2025, eq. 3).

    Args:
        offset: Displacement from the source, shape (..., ndim) [km]; complex inside an
            absorbing layer (see `physics.absorbing.stretched_offset`).
        wavenumber: k = ω/v₀ [rad/km], broadcastable to (...).
        amplitude: A, complex, broadcastable to (...).
    """
    chex.assert_shape(offset, (..., {2, 3}))
    ndim = jnp.shape(offset)[-1]
    # In radians, so that neither floor nor squares depend on the unit of length.
    wavenumber = jnp.asarray(wavenumber)
    phase = complex_distance(offset * wavenumber[..., None])
    if ndim == 2:
        return hankel0(phase) * amplitude
    return jnp.exp(-1j * phase) / phase * wavenumber * amplitude


def mirrored(points: np.ndarray, surface: float) -> np.ndarray:
    """Images of points (n, ndim) behind a horizontal surface at a depth [km]."""
    images = np.array(points, float)
    images[:, -1] = 2 * surface - images[:, -1]
    return images


def background_of_sources(
    points: np.ndarray,
    frequency: float,
    sources: np.ndarray,
    velocities: np.ndarray,
    amplitude: complex,
    surface: float | None = None,
) -> np.ndarray:
    """Background wavefields u₀ of several sources, complex128 (n_sources, n).

    Args:
        points: Coordinates (n, ndim) [km].
        frequency: Frequency [Hz].
        sources: Source positions (n_sources, ndim) [km].
        velocities: v₀ of each (n_sources,) [km/s].
        amplitude: A.
        surface: Depth of a free surface [km], by which each source has an image.
    """
    if surface is not None:
        options = frequency, sources, velocities, amplitude
        below = background_of_sources(points, *options)
        return below - background_of_sources(mirrored(points, surface), *options)
    offsets = np.asarray(points, float)[None] - np.asarray(sources, float)[:, None]
    pairs = zip(offsets, 2 * np.pi * frequency / np.asarray(velocities), strict=True)
    fields = [point_source(offset, k, amplitude) for offset, k in pairs]
    return np.reshape(fields, offsets.shape[:2])


def point_source(
    offset: np.ndarray, wavenumber: complex, amplitude: complex | None = None
) -> np.ndarray:
    """The double-precision host form of `background_field`, which compiles nothing.

    Args:
        offset: Displacement from the source, (..., 2) or (..., 3) [km]; real, or
            complex in an absorbing layer.
        wavenumber: k = ω/v₀ [rad/km]; complex, Im k < 0, with attenuation.
        amplitude: A; by default that of the fundamental solution.

    Returns:
        Complex (...).
    """
    offset = np.asarray(offset)
    chex.assert_shape(offset, (..., {2, 3}))
    ndim = offset.shape[-1]
    if amplitude is None:
        amplitude = default_amplitude(ndim)
    squared = np.sum(offset**2, axis=-1)
    return field_at_distance(squared, wavenumber, amplitude, ndim)


def field_at_distance(
    squared: np.ndarray, wavenumber: complex, amplitude: complex, ndim: int
) -> np.ndarray:
    """`point_source` at squared distances (...) [km²], real or complex."""
    distance = _root(squared, SMALLEST_PHASE / abs(wavenumber))
    if ndim == 2:
        return amplitude * _hankel0_on_host(wavenumber * distance)
    return amplitude * np.exp(-1j * wavenumber * distance) / distance


def distance_of(offset: np.ndarray, smallest: float) -> np.ndarray:
    """The host form of `complex_distance`, complex (...)."""
    return _root(np.sum(np.asarray(offset) ** 2, axis=-1), smallest)


def _root(squared, smallest: float) -> np.ndarray:
    distance = np.sqrt(np.asarray(squared, complex))
    return np.where(np.abs(distance) < smallest, smallest, distance)


def _hankel0_on_host(z: np.ndarray) -> np.ndarray:
    """H₀⁽²⁾(z). Real arguments, which most are, take a fifth of the time of complex ones.

    For these the far expansion, which holds for −π/2 ≤ arg z ≤ 0, takes a third of the time
    of the library's function.
    """
    is_real = np.imag(z) == 0
    crossover = _CROSSOVER[jnp.complex128]
    is_far = ~is_real & (np.abs(z) >= crossover) & (np.imag(z) <= 0)
    values = np.empty_like(z)
    real, far, other = np.real(z)[is_real], z[is_far], z[~(is_real | is_far)]
    values[is_real] = scipy.special.j0(real) - 1j * scipy.special.y0(real)
    values[is_far] = _hankel0_far(far, crossover)
    values[~(is_real | is_far)] = scipy.special.hankel2(0, other)
    return values
