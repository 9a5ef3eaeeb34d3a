"""Residual of the scattered Helmholtz equation, with and without the absorbing layer.

With u = u₀ + δu, m = 1/v² and m₀ = 1/v₀² (Cheng and Alkhalifah 2025, eq. 2; Alkhalifah
et al. 2021), and each axis stretched by s:

    Σ_d (1/s_d) ∂_d ((1/s_d) ∂_d δu) + ω² m δu + ω² (m − m₀) u₀ = 0.
"""

import jax
import jax.numpy as jnp

from meta_lrpinn.runtime.precision import Array


def as_complex(outputs: jax.Array) -> jax.Array:
    """Network outputs (..., 2) = (real, imaginary) as complex (...)."""
    return jax.lax.complex(outputs[..., 0], outputs[..., 1])


def as_real(field: Array) -> jax.Array:
    """Complex (...) as (real, imaginary) pairs (..., 2)."""
    return jnp.stack([jnp.real(field), jnp.imag(field)], axis=-1)


def scattering_source(
    squared_slowness: jax.Array,
    background_squared_slowness: Array | float,
    background: jax.Array,
    omega: Array,
) -> jax.Array:
    """Right-hand side −ω² (m − m₀) u₀ of the scattered equation.

    Args:
        squared_slowness: m, (n,) [s²/km²].
        background_squared_slowness: m₀, () [s²/km²].
        background: u₀ at the (stretched) points, (n,), complex.
        omega: ω [rad/s].

    Returns:
        Complex (n,).
    """
    contrast = squared_slowness - background_squared_slowness
    return -contrast * omega**2 * background


def stretched_laplacian(
    gradient: jax.Array,
    second: jax.Array,
    stretch: jax.Array,
    stretch_slope: jax.Array,
) -> jax.Array:
    """Laplacian in stretched coordinates, Σ_d ∂_dd u / s_d² − s_d′ ∂_d u / s_d³.

    Args:
        gradient: ∂_d u, (n, ndim) or (n, ndim, k) for k functions at once.
        second: ∂_dd u, of the same shape.
        stretch: s_d, (n, ndim); ones where there is no layer.
        stretch_slope: s_d′, (n, ndim).

    Returns:
        Complex (n,) or (n, k).
    """
    # Several functions at once are a last axis, which the stretching lacks.
    extra = (1,) * (gradient.ndim - 2)
    stretch = stretch.reshape(stretch.shape + extra)
    stretch_slope = stretch_slope.reshape(stretch_slope.shape + extra)
    inverse = 1 / stretch
    curvature, slope = inverse**2, -stretch_slope * inverse**3
    return jnp.sum(curvature * second + slope * gradient, axis=1)


def helmholtz_residual(
    scattered: jax.Array,
    laplacian: jax.Array,
    squared_slowness: jax.Array,
    scattering_source: jax.Array,
    omega: jax.Array,
) -> jax.Array:
    """Residual Δδu + ω² m δu + ω² (m − m₀) u₀.

    Args:
        scattered: δu, (n,), complex.
        laplacian: (Stretched) Laplacian of δu, (n,), complex.
        squared_slowness: m, (n,) [s²/km²].
        scattering_source: −ω² (m − m₀) u₀, (n,), complex.
        omega: ω [rad/s].

    Returns:
        Complex (n,), in units of δu per km².
    """
    return laplacian + omega**2 * squared_slowness * scattered - scattering_source
