"""Exact wavefields of point sources, in double precision on the host.

They test every solver: a homogeneous medium, a homogeneous medium seen from the wrong
background, and a round inclusion, whose scattered field is a series of Bessel (2D) or
spherical Bessel (3D) functions. Constant density: the field and its normal derivative
are continuous. Time convention e^{+iωt}, outgoing waves carry H⁽²⁾. Complex velocities
v/(1 − i/2Q) stand for a quality factor Q throughout; without an amplitude A, that of the
fundamental solution is taken.
"""

from collections.abc import Callable

import chex
import numpy as np
import scipy.special

from meta_lrpinn.physics import background
from meta_lrpinn.physics.background import point_source


def background_difference(
    offset: np.ndarray,
    wavenumber: complex,
    other_wavenumber: complex,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Difference of two `point_source` fields, which is finite at the source.

    Args:
        offset: Displacement from the source, (..., 2) or (..., 3) [km], real or complex.
        wavenumber: k [rad/km].
        other_wavenumber: k of the field that is subtracted [rad/km].
        amplitude: A of both.

    Returns:
        Complex (...).
    """
    chex.assert_shape(offset, (..., {2, 3}))
    ndim = np.shape(offset)[-1]
    if amplitude is None:
        amplitude = background.default_amplitude(ndim)
    # One distance for both, else their infinities would not cancel.
    distance = background.distance_of(
        offset, background.SMALLEST_PHASE / max(abs(wavenumber), abs(other_wavenumber))
    )
    if ndim == 2:
        return amplitude * (
            scipy.special.hankel2(0, wavenumber * distance)
            - scipy.special.hankel2(0, other_wavenumber * distance)
        )
    mean, half = (wavenumber + other_wavenumber) / 2, (wavenumber - other_wavenumber) / 2
    return (
        -2j * amplitude * np.exp(-1j * mean * distance) * np.sin(half * distance) / distance
    )


def shifted_background(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    velocity: complex,
    background_velocity: complex,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Scattered field of a homogeneous medium seen from another background.

    The total field is the medium's own u₀, hence δu = u₀(v) − u₀(v₀), which is finite at
    the source.

    Args:
        points: Coordinates (n, ndim) [km].
        frequency: f [Hz].
        source: Source position (ndim,) [km].
        velocity: Velocity v of the medium [km/s].
        background_velocity: Velocity v₀ of the background field [km/s].
        amplitude: A of both fields.

    Returns:
        δu, complex (n,).
    """
    omega = 2 * np.pi * frequency
    offset = np.asarray(points, float) - np.asarray(source, float)
    return background_difference(
        offset, omega / velocity, omega / background_velocity, amplitude
    )


def circular_inclusion(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    centre: np.ndarray,
    radius: float,
    velocity_inside: complex,
    velocity_outside: complex,
    amplitude: complex | None = None,
    terms: int | None = None,
) -> np.ndarray:
    """Scattered field of a line source near a circular inclusion, 2D.

    Graf's addition theorem (Abramowitz and Stegun 9.1.79) expands u₀ about the centre,
    A Σ_n H_n⁽²⁾(k r_s) J_n(k r) cos nθ; outside δu = Σ b_n H_n⁽²⁾(k r) cos nθ, inside
    u = Σ c_n J_n(k₁ r) cos nθ, with u and ∂u/∂r continuous at r = a.

    Args:
        points: Coordinates (n, ndim) [km].
        frequency: f [Hz].
        source: Source position (ndim,) [km], outside the inclusion.
        centre: Centre of the inclusion (ndim,) [km].
        radius: Its radius a [km].
        velocity_inside: Velocity within [km/s].
        velocity_outside: Velocity around it, also v₀ of the background [km/s].
        amplitude: A.
        terms: Number of orders n; by default as many as double precision can use.

    Returns:
        δu = u − u₀ inside and outside, complex (n,).

    Raises:
        ValueError: if a quantity is not positive, or the source lies in the inclusion.
    """
    velocities = velocity_inside, velocity_outside
    return _inclusion(
        2, points, frequency, source, centre, radius, velocities, amplitude, terms
    )


def spherical_inclusion(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    centre: np.ndarray,
    radius: float,
    velocity_inside: complex,
    velocity_outside: complex,
    amplitude: complex | None = None,
    terms: int | None = None,
) -> np.ndarray:
    """Scattered field of a point source near a spherical inclusion, 3D.

    As `circular_inclusion`, with u₀ = −ikA Σ_n (2n+1) h_n⁽²⁾(k r_s) j_n(k r) P_n(cos θ)
    (Abramowitz and Stegun 10.1.45–46).
    """
    velocities = velocity_inside, velocity_outside
    return _inclusion(
        3, points, frequency, source, centre, radius, velocities, amplitude, terms
    )


def _radial(
    bessel: Callable, ndim: int, order: int, z: np.ndarray | complex
) -> tuple[np.ndarray, np.ndarray]:
    """A Bessel function of z and its slope; in 3D a spherical one over √(π/2)."""
    half = (ndim - 2) / 2
    value, next_value = (bessel(n + half, z) / z**half for n in (order, order + 1))
    return value, order / z * value - next_value


def _series(ndim: int, order: int, wavenumber: complex, cosine: np.ndarray):
    """Weight in u₀ of an order of `_radial`, and its function of the angle."""
    if ndim == 2:
        return (2.0 if order else 1.0), scipy.special.eval_chebyt(order, cosine)
    weight = -1j * wavenumber * (2 * order + 1) * np.pi / 2
    return weight, scipy.special.eval_legendre(order, cosine)


def _inclusion(
    ndim, points, frequency, source, centre, radius, velocities, amplitude, terms
) -> np.ndarray:
    for name, value, unit in (
        ("frequency", frequency, "Hz"),
        ("radius", radius, "km"),
        ("velocity inside", velocities[0], "km/s"),
        ("velocity outside", velocities[1], "km/s"),
    ):
        check_positive(value, name, unit)
    points, source, centre = (np.asarray(a, float) for a in (points, source, centre))
    chex.assert_shape([points, source, centre], [(None, ndim), (ndim,), (ndim,)])
    source_distance = np.linalg.norm(source - centre)
    if source_distance <= radius:
        raise ValueError(
            f"source must lie outside the inclusion: it is {source_distance:g} km from "
            f"the centre, the radius is {radius:g} km"
        )
    if amplitude is None:
        amplitude = background.default_amplitude(ndim)
    inner, outer = (2 * np.pi * frequency / velocity for velocity in velocities)
    # Bessel functions are divided by their argument, which is not to be zero at the centre.
    distance = np.maximum(np.linalg.norm(points - centre, axis=-1), 1e-30)
    is_inside = distance < radius
    cosine = (points - centre) @ (source - centre) / distance / source_distance
    cosine = np.clip(cosine, -1.0, 1.0)
    scattered = np.zeros(len(points), complex)
    near, far = distance[is_inside], distance[~is_inside]
    for order in range(_largest_order(outer, inner, radius) if terms is None else terms):
        weight, angular = _series(ndim, order, outer, cosine)
        at_source, _ = _radial(scipy.special.hankel2, ndim, order, outer * source_distance)
        edges = _coefficients(ndim, order, outer, inner, radius)
        reflected, transmitted = np.array(edges) * (amplitude * weight * at_source)
        if not (np.isfinite(reflected) and np.isfinite(transmitted)):
            break
        beyond, _ = _radial(scipy.special.hankel2, ndim, order, outer * far)
        at_edge, _ = _radial(scipy.special.hankel2, ndim, order, outer * radius)
        within, _ = _radial(scipy.special.jv, ndim, order, inner * near)
        scattered[~is_inside] += reflected * (beyond / at_edge) * angular[~is_inside]
        scattered[is_inside] += transmitted * within * angular[is_inside]
    if np.any(is_inside):
        scattered[is_inside] -= point_source(points[is_inside] - source, outer, amplitude)
    return scattered


def _coefficients(ndim, order, outer, inner, radius) -> tuple[complex, complex]:
    """Outgoing wave at the edge, and wave within, over the incident one, by continuity.

    They are NaN where an order is too high for double precision.
    """
    # Products such as H_n(k r_s) J_n(k a) are moderate, their factors are not: every
    # quotient is formed before it is multiplied.
    at_edge, slope_at_edge = _radial(scipy.special.jv, ndim, order, outer * radius)
    within, within_slope = _radial(scipy.special.jv, ndim, order, inner * radius)
    without, without_slope = _radial(scipy.special.hankel2, ndim, order, outer * radius)
    if not (np.isfinite(without) and np.isfinite(without_slope)) or at_edge == 0:
        return np.nan, np.nan
    ratio = outer * without_slope / without
    slope_at_edge, within_slope = outer * slope_at_edge, inner * within_slope
    determinant = within_slope - ratio * within
    reflected = (at_edge * within_slope - slope_at_edge * within) / -determinant
    return reflected, (slope_at_edge - ratio * at_edge) / determinant


def _largest_order(outer: complex, inner: complex, radius: float) -> int:
    """Orders that can matter, k a + c (k a)^{1/3}; c is generous (Wiscombe 1980)."""
    size = max(abs(outer), abs(inner)) * radius
    return int(np.ceil(size + 20 * size ** (1 / 3) + 30))


def check_positive(value: complex, name: str, unit: str) -> None:
    """Refuses a quantity that is not positive; a velocity may have a loss of energy.

    Raises:
        ValueError: if it is not finite and positive, or has a negative imaginary part.
    """
    if not (np.isfinite(value) and np.real(value) > 0):
        raise ValueError(f"{name} must be positive, got {value} {unit}")
    if np.imag(value) < 0:
        raise ValueError(f"{name} must not have a negative imaginary part, got {value}")
