"""Complex-stretched absorbing layer (perfectly matched layer) around a box.

Each axis is stretched, x̃ = x + ∫σ dx/(iω), s = dx̃/dx = 1 − iσ/ω, with σ quadratic in
the depth inside the layer and zero in the box. A wave e^{−ikx} then decays like
exp(−∫σ dx / v). All functions of points take coordinates (n, ndim) [km], are written over
their columns, so that 2D and 3D are the same code, and give arrays of NumPy where they are
given no other.
"""

from typing import Any

import chex
import numpy as np
from flax import struct

from meta_lrpinn.runtime.precision import Array, namespace

# A wave longer than the model varies over its shortest side, or over this part of the
# longest, if that is more. A guard, not tuned: larger makes layers of flat models thinner
# and their plane waves more.
_FLATNESS = 8
# Length over which a wave decays in the layer, in resolved wavelengths: plane waves of
# up to 2.4 times that wavenumber describe the decay to 0.2 % (0.7 % at 0.45, 2 % at 0.35).
_DECAY_LENGTH = 0.58


class AbsorbingLayer(struct.PyTreeNode):
    """Geometry and strength of the layer; a pytree, so that tasks can be stacked."""

    lower: Array  # (ndim,) km, smallest coordinates of the box
    upper: Array  # (ndim,) km, largest coordinates of the box
    thickness: Array  # () km, 0 for none
    strength: Array  # () or by axis (ndim,) [rad/s], σ at the outer edge


def make_layer(
    lower: np.ndarray,
    upper: np.ndarray,
    thickness: float,
    velocity: float,
    reflection: float = 1e-4,
) -> AbsorbingLayer:
    """Layer that reflects a normally incident wave of the given velocity by R.

    For σ = σ_max (d/L)² the wave crosses the layer twice, R = exp(−2 σ_max L / 3v),
    hence σ_max = 3 v ln(1/R) / 2L (Collino and Tsogka 2001).

    Args:
        lower: Smallest coordinates of the box, (ndim,) [km].
        upper: Largest coordinates of the box, (ndim,) [km].
        thickness: Layer thickness L on every side [km]; 0 switches the layer off.
        velocity: Velocity v that R refers to [km/s].
        reflection: Amplitude R of the reflected wave.

    Raises:
        ValueError: if the thickness is negative, or the reflection outside (0, 1).
    """
    if not thickness >= 0:
        raise ValueError(
            f"absorbing layer thickness must not be negative, got {thickness} km"
        )
    if not 0 < reflection < 1:
        raise ValueError(f"reflection must lie between 0 and 1, got {reflection}")
    strength = 0.0  # no layer; the quotient below would be infinite
    if thickness > 0:
        strength = 1.5 * velocity * np.log(1 / reflection) / thickness
    return AbsorbingLayer(
        lower=np.asarray(lower, float),
        upper=np.asarray(upper, float),
        thickness=np.asarray(thickness, float),
        strength=np.asarray(strength, float),
    )


def resolved_wavenumber(
    lower: np.ndarray, upper: np.ndarray, omega: float, slowest: float
) -> float:
    """Wavenumber that a wavefield has to be resolved to [rad/km].

    That of the slowest wave, ω/v_min, or where the wave is longer than the model, 2π
    over the smallest side of the model: the field varies on that length then.
    """
    sides = np.asarray(upper, float) - np.asarray(lower, float)
    size = max(float(np.min(sides)), float(np.max(sides)) / _FLATNESS)
    return max(omega / slowest, 2 * np.pi / size)


def layer_by_geometry(
    lower: np.ndarray,
    upper: np.ndarray,
    omega: float,
    slowest: float,
    fastest: float,
    reflection: float = 1e-5,
    thickness: float | None = None,
) -> AbsorbingLayer:
    """Layer that reflects any ray between two points of the box by R at most.

    A ray that meets the layer of an axis at angle θ, crosses it, and returns into the
    box has gone 2L along the axis and at most the box's own size X across it, hence
    tan θ ≤ X/2L. It is damped by exp(−2 cos θ ∫σ dx/v): that is R for the fastest wave
    where ∫σ dx = ½ v_max ln(1/R) √(1 + (X/2L)²).

    The layer is as thick as resolving its waves takes. With ∫σ dx growing like the cube
    of the depth, a wave decays within L (v/∫σ dx)^{1/3}, which is to be a fixed fraction of
    the shortest wavelength resolved, for the slowest wave at normal incidence as well. The
    number of wavelengths within the layer plays no part: long waves decay in it, too.

    Args:
        lower: Smallest coordinates of the box, (ndim,) [km].
        upper: Largest coordinates of the box, (ndim,) [km].
        omega: Angular frequency ω [rad/s].
        slowest: Smallest velocity v_min [km/s].
        fastest: Largest velocity v_max [km/s].
        reflection: R.
        thickness: L [km], if it is not to be by this rule; 0 switches the layer off.

    Returns:
        The layer, with a strength for each axis.

    Raises:
        ValueError: if the thickness is negative, or the reflection outside (0, 1).
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    across = np.sqrt(np.sum((upper - lower) ** 2) - (upper - lower) ** 2)
    plain = make_layer(lower, upper, thickness or 0.0, fastest, reflection)
    if thickness == 0:
        # By axis as well, so that problems with and without a layer can be stacked.
        return plain.replace(strength=np.zeros(len(lower)))

    def grazing(length):
        return np.sqrt(1 + (across / (2 * length)) ** 2)

    if thickness is None:
        wavelength = 2 * np.pi / resolved_wavenumber(lower, upper, omega, slowest)
        decay = 0.5 * np.log(1 / reflection) * fastest / slowest
        thickness = _DECAY_LENGTH * wavelength
        for _ in range(20):  # contracts by a third each time
            longest = decay * np.max(grazing(thickness))
            thickness = _DECAY_LENGTH * wavelength * longest ** (1 / 3)
    strength = 1.5 * fastest * np.log(1 / reflection) * grazing(thickness) / thickness
    return plain.replace(thickness=np.asarray(thickness), strength=strength)


def excess(layer: AbsorbingLayer, velocity: float, reflection: float) -> np.ndarray:
    """Strength of a layer over that of `make_layer`, by axis; one without a layer."""
    if float(layer.thickness) == 0:
        # Nothing decays there; one keeps the velocity of the envelope finite.
        return np.ones_like(layer.strength)
    plain = 1.5 * velocity * np.log(1 / reflection)
    return np.asarray(layer.strength) * float(layer.thickness) / plain


def _depth_inside(layer: AbsorbingLayer, points: Array) -> Any:
    """Signed depth inside the layer, (n, ndim) km; negative on the lower sides."""
    chex.assert_shape(points, (None, *np.shape(layer.upper)))
    xp = namespace(points, layer.upper)
    return xp.maximum(points - layer.upper, 0) + xp.minimum(points - layer.lower, 0)


def _safe_thickness(layer: AbsorbingLayer) -> Any:
    # Depths are zero without a layer, and 0/0 would make values and gradients NaN.
    xp = namespace(layer.thickness)
    return xp.where(layer.thickness > 0, layer.thickness, 1.0)


def damping(layer: AbsorbingLayer, points: Array) -> Any:
    """Damping σ = σ_max (d/L)² along each axis, (n, ndim) [rad/s]."""
    depth = _depth_inside(layer, points)
    return (depth / _safe_thickness(layer)) ** 2 * layer.strength


def damping_slope(layer: AbsorbingLayer, points: Array) -> Any:
    """Derivative of `damping` along its axis, (n, ndim) [rad/(s km)]."""
    depth = _depth_inside(layer, points)
    return 2 * depth * layer.strength / _safe_thickness(layer) ** 2


def damping_integral(layer: AbsorbingLayer, points: Array) -> Any:
    """∫σ dx from the box outwards, positive past `upper`, negative before `lower`.

    Returns:
        (n, ndim) [km rad/s].
    """
    depth = _depth_inside(layer, points)
    return depth**3 * layer.strength / (3 * _safe_thickness(layer) ** 2)


def stretch(layer: AbsorbingLayer, points: Array, omega: Array | float) -> Any:
    """Stretching factors s = 1 − iσ/ω along each axis, (n, ndim), complex; ω in rad/s."""
    return 1 - 1j * damping(layer, points) / omega


def stretch_slope(layer: AbsorbingLayer, points: Array, omega: Array | float) -> Any:
    """Derivative ds/dx = −iσ′/ω of `stretch` along its axis, (n, ndim) [1/km]."""
    return -1j * damping_slope(layer, points) / omega


def stretched_offset(
    layer: AbsorbingLayer, points: Array, source: Array | float, omega: Array | float
) -> Any:
    """Displacement x̃ − x_s from a source in the box, complex (n, ndim) [km].

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim) [km].
        source: Source position (ndim,) [km], inside the box.
        omega: Angular frequency ω [rad/s].
    """
    return points - source - 1j * damping_integral(layer, points) / omega


def envelope(layer: AbsorbingLayer, points: Array, velocity: Array) -> tuple[Any, Any]:
    """Decay of an outgoing wave in the layer, and its logarithmic gradient.

    Features that oscillate but do not decay waste most of their number in the layer;
    multiplied by this envelope they need not (docs/theory.md).

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim) [km].
        velocity: Velocity v_e that sets the decay, () or by axis (ndim,) [km/s].

    Returns:
        exp(−Σ_axes |∫σ dx| / v_e), (n,), and its logarithmic gradient (n, ndim) [1/km].
    """
    integral = damping_integral(layer, points)
    xp = namespace(integral, velocity)
    value = xp.exp(-xp.sum(xp.abs(integral) / velocity, axis=-1))
    return value, -xp.sign(integral) * damping(layer, points) / velocity
