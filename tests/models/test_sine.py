"""The fast sine against NumPy's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.models.layers import cosine, sine

X = np.linspace(-300, 300, 20_001)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (sine, np.sin),
        (cosine, np.cos),
        (jax.vmap(jax.grad(sine)), np.cos),
        (jax.vmap(jax.grad(cosine)), lambda x: -np.sin(x)),
        (jax.vmap(jax.grad(jax.grad(sine))), lambda x: -np.sin(x)),
        (jax.vmap(jax.hessian(cosine)), lambda x: -np.cos(x)),
    ],
)
def test_values_and_derivatives(function, exact):
    x = X.astype(np.float32)
    values = function(jnp.asarray(x))
    chex.assert_shape(values, x.shape)
    np.testing.assert_allclose(values, exact(x.astype(float)), atol=2e-7)


def test_double_precision():
    with jax.enable_x64(True):
        for x in (X, 1e4 * X / X[-1], 1e-9 * X, np.pi / 2 * np.arange(-9.0, 10)):
            np.testing.assert_allclose(sine(jnp.asarray(x)), np.sin(x), atol=1e-15)
            slope = jax.vmap(jax.grad(sine))(jnp.asarray(x))
            np.testing.assert_allclose(slope, np.cos(x), atol=1e-15)


def test_large_arguments_keep_their_precision():
    x = np.float32([1e3, 5e3, 9.9e3])
    np.testing.assert_allclose(sine(jnp.asarray(x)), np.sin(x.astype(float)), atol=2e-6)
