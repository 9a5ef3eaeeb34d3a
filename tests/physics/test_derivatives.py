"""Derivatives: against polynomials, against their oracle, on the network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models
from meta_lrpinn.physics import derivatives

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def points_of(ndim, dtype=float, count=7):
    return jnp.asarray(np.random.default_rng(0).random((count, ndim)), dtype)


BOTH = (derivatives.derivatives, derivatives.hessian_derivatives)


@pytest.mark.parametrize("differentiate", BOTH)
@pytest.mark.parametrize("ndim", [2, 3])
def test_polynomial_is_exact(differentiate, ndim):
    """f = (x³ z, x y² + z²), with y = 1 in two dimensions."""

    def polynomial(points):
        x, z = points[:, 0], points[:, -1]
        y = points[:, 1] if ndim == 3 else 1.0
        return jnp.stack([x**3 * z, x * y**2 + z**2], axis=-1)

    with jax.enable_x64(True):
        points = points_of(ndim)
        result = differentiate(polynomial, points)
    chex.assert_shape(result.value, (7, 2))
    chex.assert_shape([result.gradient, result.second], (7, ndim, 2))
    x, z = np.asarray(points)[:, 0], np.asarray(points)[:, -1]
    y = np.asarray(points)[:, 1] if ndim == 3 else np.ones(7)
    zero = np.zeros(7)
    gradient = {"x": [3 * x**2 * z, y**2], "y": [zero, 2 * x * y], "z": [x**3, 2 * z]}
    second = {"x": [6 * x * z, zero], "y": [zero, 2 * x], "z": [zero, zero + 2]}
    axes = "xyz" if ndim == 3 else "xz"
    for got, exact in ((result.gradient, gradient), (result.second, second)):
        exact = np.transpose([exact[axis] for axis in axes], (2, 0, 1))
        np.testing.assert_allclose(got, exact, atol=1e-13)


@pytest.mark.parametrize(
    ("ndim", "dtype"), [(2, "float32"), (2, "float64"), (3, "float64")]
)
def test_derivatives_of_the_network_are_those_of_its_hessian(ndim, dtype):
    with jax.enable_x64(dtype == "float64"):
        model = models.make_meta_lrpinn(width=24, depth=2, rank=6, ndim=ndim)
        params = models.initial_parameters(model, jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        source = jnp.full(ndim - 1, 0.4, dtype)

        def apply(points):
            return model.apply({"params": params}, points, source, jnp.asarray(5.0))

        points = points_of(ndim, dtype)
        fast, slow = jax.device_get(
            jax.jit(lambda x: [differentiate(apply, x) for differentiate in BOTH])(points)
        )
        value, gradient = derivatives.first_derivatives(apply, points)
    assert fast.second.dtype == dtype
    for name in ("value", "gradient", "second"):
        exact = getattr(slow, name)
        error = np.max(np.abs(getattr(fast, name) - exact)) / np.max(np.abs(exact))
        assert error < TOLERANCE[dtype], name
    np.testing.assert_allclose(value, fast.value, atol=1e-6)
    np.testing.assert_allclose(gradient, fast.gradient, atol=1e-4)


def test_plane_wave_curvature():
    """∂_dd sin(k·x) = −k_d² sin(k·x); a wrong axis order would show."""
    k = jnp.array([3.0, -5.0])
    with jax.enable_x64(True):
        points = points_of(2)
        wave = derivatives.derivatives(lambda x: jnp.sin(x @ k)[:, None], points)
        np.testing.assert_allclose(
            wave.second[..., 0], -(k**2) * jnp.sin(points @ k)[:, None], rtol=1e-10
        )
