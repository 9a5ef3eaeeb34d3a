"""Complex-stretched absorbing layer (perfectly matched layer) around a box.

Each axis is stretched, x̃ = x + ∫α dx + ∫σ dx/(iω), s = dx̃/dx = 1 + α − iσ/ω, with α
and σ quadratic in the depth inside the layer and zero in the box. A wave e^{−ikx} then
decays like exp(−∫σ dx / v); one that is evanescent or grazes the layer gains from α, as
from a thicker layer. All functions are written over the columns of their points, so that
2D and 3D are the same code.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np


@chex.dataclass(frozen=True, mappable_dataclass=False)
class AbsorbingLayer:
    """Geometry and strength of the layer; a pytree, so that tasks can be stacked."""

    lower: jax.Array  # (ndim,) km, smallest coordinates of the box
    upper: jax.Array  # (ndim,) km, largest coordinates of the box
    thickness: jax.Array  # () km, 0 for none
    strength: jax.Array  # () rad/s, σ at the outer edge
    expansion: jax.Array = 0.0  # () α at the outer edge


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
        lower: Smallest coordinates of the box, (ndim,), km.
        upper: Largest coordinates of the box, (ndim,), km.
        thickness: Layer thickness L on every side, km; 0 switches the layer off.
        velocity: Velocity v that R refers to, km/s.
        reflection: Amplitude R of the reflected wave.

    Returns:
        The layer.

    Raises:
        ValueError: negative thickness, or a reflection outside (0, 1).
    """
    if not thickness >= 0:
        raise ValueError(
            f"absorbing layer thickness must not be negative, got {thickness} km"
        )
    if not 0 < reflection < 1:
        raise ValueError(f"reflection must lie between 0 and 1, got {reflection}")
    strength = 0.0
    if thickness > 0:
        strength = 1.5 * velocity * np.log(1 / reflection) / thickness
    return AbsorbingLayer(
        lower=np.asarray(lower, float),
        upper=np.asarray(upper, float),
        thickness=np.asarray(thickness, float),
        strength=np.asarray(strength, float),
        expansion=np.asarray(0.0),
    )


def _depth_inside(layer: AbsorbingLayer, points: jax.Array) -> jax.Array:
    """Signed depth inside the layer, (n, ndim) km; negative on the lower sides."""
    return jnp.maximum(points - layer.upper, 0) + jnp.minimum(points - layer.lower, 0)


def damping(layer: AbsorbingLayer, points: jax.Array) -> jax.Array:
    """Damping σ = σ_max (d/L)² along each axis.

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim), km.

    Returns:
        σ, (n, ndim), rad/s.
    """
    depth = _depth_inside(layer, points)
    return layer.strength * (depth / _safe_thickness(layer)) ** 2


def damping_slope(layer: AbsorbingLayer, points: jax.Array) -> jax.Array:
    """Derivative of `damping` along its axis, (n, ndim), rad/(s km)."""
    depth = _depth_inside(layer, points)
    return 2 * layer.strength * depth / _safe_thickness(layer) ** 2


def damping_integral(layer: AbsorbingLayer, points: jax.Array) -> jax.Array:
    """Integral of σ from the box outwards, signed like the direction.

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim), km.

    Returns:
        ∫σ dx, (n, ndim), km rad/s: positive past `upper`, negative before `lower`.
    """
    depth = _depth_inside(layer, points)
    return layer.strength * depth**3 / (3 * _safe_thickness(layer) ** 2)


def _safe_thickness(layer: AbsorbingLayer) -> jax.Array:
    return jnp.where(layer.thickness > 0, layer.thickness, 1.0)


def stretch(layer: AbsorbingLayer, points: jax.Array, omega: jax.Array) -> jax.Array:
    """Stretching factors s = 1 + α − iσ/ω along each axis, (n, ndim), complex."""
    depth = _depth_inside(layer, points) / _safe_thickness(layer)
    return 1 + layer.expansion * depth**2 - 1j * damping(layer, points) / omega


def stretch_slope(layer: AbsorbingLayer, points: jax.Array, omega: jax.Array) -> jax.Array:
    """Derivative ds/dx = α′ − iσ′/ω of `stretch` along its axis, (n, ndim), 1/km."""
    depth = _depth_inside(layer, points)
    expansion_slope = 2 * layer.expansion * depth / _safe_thickness(layer) ** 2
    return expansion_slope - 1j * damping_slope(layer, points) / omega


def stretched_offset(
    layer: AbsorbingLayer, points: jax.Array, source: jax.Array, omega: jax.Array
) -> jax.Array:
    """Displacement x̃ − x_s from a source in the box, in stretched coordinates.

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim), km.
        source: Source position (ndim,), km, inside the box.
        omega: Angular frequency ω, rad/s.

    Returns:
        Complex (n, ndim), km.
    """
    depth = _depth_inside(layer, points)
    longer = layer.expansion * depth**3 / (3 * _safe_thickness(layer) ** 2)
    return points - source + longer - 1j * damping_integral(layer, points) / omega


def envelope(
    layer: AbsorbingLayer, points: jax.Array, velocity: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Decay of an outgoing wave in the layer, and its logarithmic gradient.

    Features that oscillate but do not decay waste most of their number in the layer;
    multiplied by this envelope they need not (DESIGN: "Weak form and envelope").

    Args:
        layer: The absorbing layer.
        points: Coordinates (n, ndim), km.
        velocity: Velocity v_e that sets the decay, km/s.

    Returns:
        exp(−Σ_axes |∫σ dx| / v_e), (n,), and its logarithmic gradient (n, ndim), 1/km.
    """
    integral = damping_integral(layer, points)
    value = jnp.exp(-jnp.sum(jnp.abs(integral), axis=-1) / velocity)
    return value, -jnp.sign(integral) * damping(layer, points) / velocity
