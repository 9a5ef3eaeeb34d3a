"""The three losses of Meta-LRPINN (Cheng and Alkhalifah 2025, eqs. 9–12)."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root whose gradient at zero is zero instead of infinite."""
    # The inner `where` keeps NaN out of the gradient of the branch that is not taken.
    is_positive = x > 0
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, x, 1.0)), 0.0)


def pde_loss(residual: jax.Array) -> jax.Array:
    """L_pde = √(mean r_re² + mean r_im²).

    Args:
        residual: Complex residual at the collocation points, (n,).
    """
    return safe_sqrt(jnp.mean(jnp.real(residual) ** 2 + jnp.imag(residual) ** 2))


def source_penalty_weight(
    distance: jax.Array, omega: jax.Array, source_velocity: jax.Array
) -> jax.Array:
    """Weight d = 10⁸ ω relu((½ π v₀/ω)² − r²) of the source regularisation.

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
