"""The three losses of the paper, on numbers worked out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.physics import residual


def test_pde_loss():
    """√(mean r_re² + mean r_im²) of 3, 4i and 0: √(25/3)."""
    loss = residual.pde_loss(jnp.array([3.0, 4.0j, 0.0]))
    np.testing.assert_allclose(loss, np.sqrt(25 / 3), rtol=1e-6)


def test_source_penalty_reaches_a_quarter_wavelength():
    omega, velocity = 2 * np.pi * 5.0, 2.0  # wavelength 0.4 km
    distance = np.array([0.0, 0.05, 0.0999, 0.1001, 0.3])
    weight = residual.source_penalty_weight(distance, omega, velocity)
    chex.assert_shape(weight, (5,))
    expected = 1e8 * omega * np.maximum(0.01 - distance**2, 0)
    np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-3 * expected[0])
    np.testing.assert_array_equal(weight > 0, [True, True, True, False, False])


def test_source_loss():
    """√(mean d |δu|²): (2·25 + 1·4 + 0·100) / 3."""
    loss = residual.source_loss(jnp.array([3 + 4j, 2j, 10.0]), jnp.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(loss, np.sqrt(54 / 3), rtol=1e-6)


def test_losses_are_safe_at_zero():
    """As when no point lies near the source: value and gradient are zero, not NaN."""

    def total(x):
        field = jax.lax.complex(x, x)
        return residual.pde_loss(field) + residual.source_loss(field + 1, jnp.zeros(4))

    value, gradient = jax.value_and_grad(total)(jnp.zeros(4))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)
    assert jax.grad(residual.safe_sqrt)(4.0) == pytest.approx(0.25)


def orthonormal(rows, rank, seed):
    matrix = np.random.default_rng(seed).normal(size=(rows, rank))
    return jnp.asarray(np.linalg.qr(matrix)[0], jnp.float32)


def test_orthogonality_loss_of_orthonormal_bases_is_zero():
    bases = [(orthonormal(12, k, 0), orthonormal(9, k, 1)) for k in (3, 5)]
    assert residual.orthogonality_loss(bases) < 1e-6
    # Rounding aside: exactly orthonormal bases have a finite gradient.
    exact = jnp.eye(4)[:, :2]
    gradient = jax.grad(lambda u: residual.orthogonality_loss([(u, u)]))(exact)
    np.testing.assert_array_equal(gradient, 0.0)


def test_orthogonality_loss_sums_over_layers_of_any_rank():
    """‖4I − I‖_F = 3√k for twice an orthonormal basis, each divided by its own k²."""
    bases = [(2 * orthonormal(12, k, 0), orthonormal(9, k, 1)) for k in (3, 5)]
    expected = 3 * np.sqrt(3) / 9 + 3 * np.sqrt(5) / 25
    np.testing.assert_allclose(residual.orthogonality_loss(bases), expected, rtol=1e-5)


def test_orthogonality_loss_sees_rank_deficiency():
    """Two equal columns: Gram matrix of ones, off-diagonal 1 and 1, √2/4 per basis."""
    basis = jnp.ones((1, 2)) * jnp.array([[1.0], [0.0], [0.0]])
    np.testing.assert_allclose(
        residual.orthogonality_loss([(basis, basis)]), 2 * np.sqrt(2) / 4, rtol=1e-6
    )
    assert residual.orthogonality_loss([]) == 0
