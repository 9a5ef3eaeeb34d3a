"""Residual of the scattered Helmholtz equation, and the losses of Meta-LRPINN.

With u = u₀ + δu, m = 1/v² and m₀ = 1/v₀² (Cheng and Alkhalifah 2025, eq. 2; Alkhalifah
et al. 2021), and each axis stretched by s where there is an absorbing layer:

    Σ_d (1/s_d) ∂_d ((1/s_d) ∂_d δu) + ω² m δu + ω² (m − m₀) u₀ = 0.

The losses are eqs. 9–12 of the paper.
"""

from collections.abc import Iterable

import chex
import jax
import jax.numpy as jnp

from meta_lrpinn.runtime.precision import Array


def as_complex(outputs: jax.Array) -> jax.Array:
    """Network outputs (..., 2) = (real, imaginary) as complex (...)."""
    chex.assert_shape(outputs, (..., 2))
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
    """Right-hand side −ω² (m − m₀) u₀ of the scattered equation, complex (n,).

    Args:
        squared_slowness: m, (n,) [s²/km²].
        background_squared_slowness: m₀, () [s²/km²].
        background: u₀ at the (stretched) points, (n,), complex.
        omega: ω [rad/s].
    """
    contrast = squared_slowness - background_squared_slowness
    return -contrast * omega**2 * background


def stretched_laplacian(
    gradient: jax.Array, second: jax.Array, stretch: jax.Array, stretch_slope: jax.Array
) -> jax.Array:
    """Laplacian in stretched coordinates, Σ_d ∂_dd u / s_d² − s_d′ ∂_d u / s_d³.

    Args:
        gradient: ∂_d u, (n, ndim).
        second: ∂_dd u, (n, ndim).
        stretch: s_d, (n, ndim); ones where there is no layer.
        stretch_slope: s_d′, (n, ndim).

    Returns:
        Complex (n,).
    """
    chex.assert_equal_shape([gradient, second, stretch, stretch_slope])
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
    """Residual Δδu + ω² m δu + ω² (m − m₀) u₀, complex (n,), in units of δu per km².

    Args:
        scattered: δu, (n,), complex.
        laplacian: (Stretched) Laplacian of δu, (n,), complex.
        squared_slowness: m, (n,) [s²/km²].
        scattering_source: −ω² (m − m₀) u₀, (n,), complex.
        omega: ω [rad/s].
    """
    chex.assert_equal_shape([scattered, laplacian, squared_slowness, scattering_source])
    return laplacian + omega**2 * squared_slowness * scattered - scattering_source


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root whose gradient at zero is zero instead of infinite."""
    # The inner `where` keeps NaN out of the gradient of the branch that is not taken.
    is_positive = x > 0
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1.0)), 0.0)


def pde_loss(residual: jax.Array) -> jax.Array:
    """L_pde = √(mean r_re² + mean r_im²) of the residual at n points, complex (n,)."""
    return safe_sqrt(jnp.mean(jnp.real(residual) ** 2 + jnp.imag(residual) ** 2))


def source_penalty_weight(
    distance: jax.Array, omega: jax.Array, source_velocity: jax.Array
) -> jax.Array:
    """Weight d = 10⁸ ω relu((½ π v₀/ω)² − r²) of the source regularisation, (n,).

    Positive within a quarter wavelength, ½πv₀/ω, of the source (Huang and Alkhalifah
    2022).

    Args:
        distance: Distance r to the source, (n,) [km].
        omega: ω [rad/s].
        source_velocity: v₀ [km/s].
    """
    radius = 0.5 * jnp.pi * source_velocity / omega
    # The published factor, which is not tuned here: it can pin δu to zero for thousands of
    # steps, so that the package's own losses leave it out.
    return 1e8 * omega * jax.nn.relu(radius**2 - distance**2)


def source_loss(scattered: jax.Array, weight: jax.Array) -> jax.Array:
    """L_reg = √(mean d δu_re² + mean d δu_im²): keeps δu small near the source.

    Args:
        scattered: δu at the collocation points, complex (n,).
        weight: d from `source_penalty_weight`, (n,).
    """
    chex.assert_equal_shape([scattered, weight])
    squared = jnp.real(scattered) ** 2 + jnp.imag(scattered) ** 2
    return safe_sqrt(jnp.mean(weight * squared))


def orthogonality_loss(bases: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """L_ort = Σ_layers (‖UᵀU − I‖_F + ‖VᵀV − I‖_F) / k².

    Args:
        bases: For each layer, U (features, k) and V (in, k); k may differ by layer.
    """

    def deviation(basis):
        rank = basis.shape[-1]
        gram = basis.T @ basis - jnp.eye(rank, dtype=basis.dtype)
        return safe_sqrt(jnp.sum(gram**2)) / rank**2

    return sum((deviation(u) + deviation(v) for u, v in bases), start=jnp.zeros(()))
