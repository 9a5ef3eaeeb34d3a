import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.models.layers import LowRankDense, default_gain, layer_ranks

KEY = jax.random.key(0)
INPUTS = jax.random.normal(jax.random.key(1), (5, 24))
SIGMA = jnp.linspace(0.5, 1.5, 8)


def _initialised(**options):
    initialisation = options.get("initialisation", "orthonormal")
    options = {"gain": default_gain(32, 8, initialisation), **options}
    layer = LowRankDense(32, 8, **options)
    return layer, layer.init(KEY, INPUTS, SIGMA)["params"]


def test_factors_start_orthonormal():
    _, params = _initialised()
    chex.assert_shape(params["U"], (32, 8))
    chex.assert_shape(params["V"], (24, 8))
    for factor in params.values():
        np.testing.assert_allclose(factor.T @ factor, np.eye(8), atol=1e-6)


@pytest.mark.parametrize("initialisation", ["orthonormal", "xavier"])
def test_a_layer_is_the_product_of_its_factors(initialisation):
    layer, params = _initialised(initialisation=initialisation, gain=3.0)
    weights = (params["U"] * (3.0 * SIGMA)) @ params["V"].T
    factored = layer.apply({"params": params}, INPUTS, SIGMA)
    chex.assert_shape(factored, (5, 32))
    np.testing.assert_allclose(INPUTS @ weights.T, factored, rtol=1e-5, atol=1e-5)


def test_singular_values_of_the_weights_are_gain_times_sigma():
    layer, params = _initialised()
    weights = layer.apply({"params": params}, jnp.eye(24), SIGMA).T
    expected = np.sqrt(2 * 32 / 8) * np.asarray(SIGMA)[::-1]
    values = np.linalg.svd(weights, compute_uv=False)
    np.testing.assert_allclose(values[:8], expected, rtol=1e-5)
    np.testing.assert_allclose(values[8:], 0.0, atol=1e-5)


def test_rows_may_have_their_own_singular_values():
    layer, params = _initialised()
    own = jnp.stack([SIGMA * scale for scale in range(1, 6)])
    together = layer.apply({"params": params}, INPUTS, own)
    for row in range(5):
        alone = layer.apply({"params": params}, INPUTS[row], own[row])
        np.testing.assert_allclose(together[row], alone, rtol=1e-5, atol=1e-5)


def test_rank_above_the_width():
    with pytest.raises(ValueError, match="got rank 30 for 24 inputs and 32 units"):
        LowRankDense(32, 30, 1.0).init(KEY, INPUTS, jnp.ones(30))


def test_unknown_initialisation():
    with pytest.raises(ValueError, match="one of orthonormal, xavier, got 'he'"):
        _initialised(initialisation="he")


def test_layer_ranks():
    assert layer_ranks(4, 3) == (4, 4, 4)
    assert layer_ranks((4, 2, 1), 3) == (4, 2, 1)
    with pytest.raises(ValueError, match="3 hidden layers need 3 ranks, got 2"):
        layer_ranks((4, 2), 3)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        layer_ranks((4, 0, 2), 3)
