"""Exact wavefields of point sources, in double precision on the host.

They test every solver: a homogeneous medium, a homogeneous medium seen from the wrong
background, and a round inclusion, whose scattered field is a series of Bessel (2D) or
spherical Bessel (3D) functions. Constant density: the field and its normal derivative
are continuous. Time convention e^{+iωt}, outgoing waves carry H⁽²⁾.
"""

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
    if amplitude is None:
        amplitude = background.default_amplitude(_dimension(offset))
    # One distance for both, else their infinities would not cancel.
    distance = background.distance_of(
        offset, background.SMALLEST_PHASE / max(abs(wavenumber), abs(other_wavenumber))
    )
    if _dimension(offset) == 2:
        return amplitude * (
            scipy.special.hankel2(0, wavenumber * distance)
            - scipy.special.hankel2(0, other_wavenumber * distance)
        )
    mean, half = (wavenumber + other_wavenumber) / 2, (wavenumber - other_wavenumber) / 2
    return (
        -2j * amplitude * np.exp(-1j * mean * distance) * np.sin(half * distance) / distance
    )


def _dimension(offset: np.ndarray) -> int:
    ndim = np.shape(offset)[-1]
    if ndim not in (2, 3):
        raise ValueError(f"offsets must have 2 or 3 columns, got {ndim}")
    return ndim


def shifted_background(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    velocity: complex,
    background_velocity: complex,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Scattered field of a homogeneous medium seen from another background.

    The total field is the medium's own u₀, hence δu = u₀(v) − u₀(v₀). In 3D δu is
    finite at the source, in 2D it has no infinite part either.

    Args:
        points: Coordinates (n, ndim) [km].
        frequency: f [Hz].
        source: Source position (ndim,) [km].
        velocity: Velocity v of the medium [km/s]; v/(1 − i/2Q) with attenuation.
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
        points: Coordinates (n, 2) [km].
        frequency: f [Hz].
        source: Source position (2,) [km], outside the inclusion.
        centre: Centre of the circle (2,) [km].
        radius: Its radius a [km].
        velocity_inside: Velocity within [km/s]; v/(1 − i/2Q) with attenuation.
        velocity_outside: Velocity around it, also v₀ of the background [km/s].
        amplitude: A; by default i/4, that of the fundamental solution.
        terms: Number of orders n; by default as many as double precision can use.

    Returns:
        δu = u − u₀ inside and outside, complex (n,).

    Raises:
        ValueError: if a quantity is not positive, or the source lies in the inclusion.
    """
    return _round_inclusion(
        _Cylinder, points, frequency, source, centre, radius,
        velocity_inside, velocity_outside, amplitude, terms,
    )  # fmt: skip


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
    (Abramowitz and Stegun 10.1.45–46). The default amplitude is −1/(4π).

    Args:
        points: Coordinates (n, 3) [km].
        frequency: f [Hz].
        source: Source position (3,) [km], outside the inclusion.
        centre: Centre of the sphere (3,) [km].
        radius: Its radius a [km].
        velocity_inside: Velocity within [km/s]; v/(1 − i/2Q) with attenuation.
        velocity_outside: Velocity around it, also v₀ of the background [km/s].
        amplitude: A.
        terms: Number of orders n; by default as many as double precision can use.

    Returns:
        δu = u − u₀ inside and outside, complex (n,).

    Raises:
        ValueError: if a quantity is not positive, or the source lies in the inclusion.
    """
    return _round_inclusion(
        _Sphere, points, frequency, source, centre, radius,
        velocity_inside, velocity_outside, amplitude, terms,
    )  # fmt: skip


class _Cylinder:
    """Radial functions, angular functions and weights of the 2D series."""

    ndim = 2
    regular = staticmethod(scipy.special.jv)
    regular_slope = staticmethod(scipy.special.jvp)
    outgoing = staticmethod(scipy.special.hankel2)
    outgoing_slope = staticmethod(scipy.special.h2vp)

    @staticmethod
    def weight(order: int, wavenumber: float) -> complex:
        return 1.0 if order == 0 else 2.0

    @staticmethod
    def angular(order: int, cosine: np.ndarray) -> np.ndarray:
        return scipy.special.eval_chebyt(order, cosine)


class _Sphere:
    """Radial functions, angular functions and weights of the 3D series."""

    ndim = 3
    regular = staticmethod(scipy.special.spherical_jn)

    @staticmethod
    def regular_slope(order, z):
        return scipy.special.spherical_jn(order, z, derivative=True)

    @staticmethod
    def outgoing(order, z):
        return scipy.special.spherical_jn(order, z) - 1j * scipy.special.spherical_yn(
            order, z
        )

    @staticmethod
    def outgoing_slope(order, z):
        return scipy.special.spherical_jn(
            order, z, derivative=True
        ) - 1j * scipy.special.spherical_yn(order, z, derivative=True)

    @staticmethod
    def weight(order: int, wavenumber: float) -> complex:
        return -1j * wavenumber * (2 * order + 1)

    @staticmethod
    def angular(order: int, cosine: np.ndarray) -> np.ndarray:
        return scipy.special.eval_legendre(order, cosine)


def _round_inclusion(
    series, points, frequency, source, centre, radius,
    velocity_inside, velocity_outside, amplitude, terms,
):  # fmt: skip
    _check_positive(frequency, radius, velocity_inside, velocity_outside)
    points, source, centre = (np.asarray(a, float) for a in (points, source, centre))
    if points.ndim != 2 or points.shape[1] != series.ndim:
        raise ValueError(f"points must have shape (n, {series.ndim}), got {points.shape}")
    source_distance = np.linalg.norm(source - centre)
    if source_distance <= radius:
        raise ValueError(
            f"source must lie outside the inclusion: it is {source_distance:g} km from "
            f"the centre, the radius is {radius:g} km"
        )
    if amplitude is None:
        amplitude = background.default_amplitude(series.ndim)
    omega = 2 * np.pi * frequency
    outer, inner = omega / velocity_outside, omega / velocity_inside
    offset = points - centre
    distance = np.linalg.norm(offset, axis=-1)
    is_inside = distance < radius
    cosine = np.where(
        distance > 0,
        offset @ (source - centre) / np.maximum(distance, 1e-300) / source_distance,
        1.0,
    )
    cosine = np.clip(cosine, -1.0, 1.0)

    scattered = np.zeros(len(points), complex)
    near, far = distance[is_inside], distance[~is_inside]
    for order in range(_largest_order(outer, inner, radius) if terms is None else terms):
        incident = (
            amplitude
            * series.weight(order, outer)
            * series.outgoing(order, outer * source_distance)
        )
        reflected, transmitted = _coefficients(
            series, order, outer, inner, radius, incident
        )
        if not (np.isfinite(reflected) and np.isfinite(transmitted)):
            break
        angular = series.angular(order, cosine)
        scattered[~is_inside] += (
            reflected
            * (series.outgoing(order, outer * far) / series.outgoing(order, outer * radius))
            * angular[~is_inside]
        )
        scattered[is_inside] += (
            transmitted * series.regular(order, inner * near) * angular[is_inside]
        )
    if np.any(is_inside):
        scattered[is_inside] -= point_source(points[is_inside] - source, outer, amplitude)
    return scattered


def _check_positive(frequency, radius, velocity_inside, velocity_outside) -> None:
    for name, value, unit in (
        ("frequency", frequency, "Hz"),
        ("radius", radius, "km"),
        ("velocity inside", velocity_inside, "km/s"),
        ("velocity outside", velocity_outside, "km/s"),
    ):
        if not np.real(value) > 0 or np.imag(value) < 0:
            raise ValueError(f"{name} must be positive, got {value} {unit}")


def _coefficients(series, order, outer, inner, radius, incident) -> tuple[complex, complex]:
    """Amplitudes of the outgoing wave, at the edge, and of the wave within, by continuity.

    They are NaN where an order is too high for double precision.
    """
    # Products such as H_n(k r_s) J_n(k a) are moderate, their factors are not: every
    # quotient is formed before it is multiplied.
    at_edge = series.regular(order, outer * radius)
    slope_at_edge = outer * series.regular_slope(order, outer * radius)
    within = series.regular(order, inner * radius)
    within_slope = inner * series.regular_slope(order, inner * radius)
    without = series.outgoing(order, outer * radius)
    without_slope = outer * series.outgoing_slope(order, outer * radius)
    if not (np.isfinite(without) and np.isfinite(without_slope)) or at_edge == 0:
        return np.nan, np.nan
    ratio = without_slope / without
    determinant = within_slope - ratio * within
    reflected = (at_edge * within_slope - slope_at_edge * within) / -determinant
    return incident * reflected, incident * (slope_at_edge - ratio * at_edge) / determinant


def _largest_order(outer: complex, inner: complex, radius: float) -> int:
    """Orders that can matter, k a + c (k a)^{1/3}; c is generous (Wiscombe 1980)."""
    size = max(abs(outer), abs(inner)) * radius
    return int(np.ceil(size + 20 * size ** (1 / 3) + 30))
