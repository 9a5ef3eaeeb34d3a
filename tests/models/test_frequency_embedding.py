import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.models import FrequencyEmbedding
from meta_lrpinn.models.layers import normalise_frequency
from meta_lrpinn.models.lrpinn import FreeSingularValues

KEY = jax.random.key(0)


@pytest.mark.parametrize(("frequency", "expected"), [(2, -1), (11, 0), (20, 1)])
def test_normalised_frequency(frequency, expected):
    assert normalise_frequency(frequency) == expected
    chex.assert_shape(normalise_frequency(jnp.full(3, frequency)), (3,))


def test_shapes_follow_frequency_and_ranks():
    embedding = FrequencyEmbedding(rank=(7, 5, 3), depth=3)
    params = embedding.init(KEY, 5.0)
    scalar = embedding.apply(params, 5.0)
    batch = embedding.apply(params, jnp.array([5.0, 6.0]))
    chex.assert_shape(scalar, [(7,), (5,), (3,)])
    chex.assert_shape(batch, [(2, 7), (2, 5), (2, 3)])
    chex.assert_trees_all_close(
        scalar, tuple(sigma[0] for sigma in batch), rtol=1e-5, atol=1e-6
    )


def test_the_network_sees_the_normalised_frequency():
    embedding = FrequencyEmbedding(rank=4, depth=2)
    params = embedding.init(KEY, 5.0)
    first = params["params"]["dense_0"]
    for frequency, normalised in [(2.0, -1.0), (20.0, 1.0)]:
        _, state = embedding.apply(
            params, frequency, capture_intermediates=True, mutable=["intermediates"]
        )
        (seen,) = state["intermediates"]["dense_0"]["__call__"]
        expected = normalised * first["kernel"][0] + first["bias"]
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)


def test_singular_values_start_near_one():
    embedding = FrequencyEmbedding()
    frequencies = jnp.linspace(2.0, 20.0, 5)
    values = jnp.stack(embedding.apply(embedding.init(KEY, 5.0), frequencies))
    chex.assert_shape(values, (6, 5, 100))
    assert 0.95 < values.mean() < 1.05
    assert 0.5 < values.min() and values.max() < 1.5
    # ... and yet depend on the frequency.
    assert jnp.std(values, axis=1).mean() > 0.01


def test_xavier_starts_near_zero():
    embedding = FrequencyEmbedding(initialisation="xavier")
    values = jnp.stack(embedding.apply(embedding.init(KEY, 5.0), 5.0))
    assert jnp.abs(values).mean() < 0.2


def test_published_layout():
    params = FrequencyEmbedding().init(KEY, 5.0)["params"]
    shapes = {name: layer["kernel"].shape for name, layer in params.items()}
    dense = {"dense_0": (1, 80), "dense_1": (80, 80), "dense_2": (80, 80)}
    assert shapes == dense | {f"head_{layer}": (80, 100) for layer in range(6)}


def test_free_singular_values_ignore_the_frequency():
    free = FreeSingularValues(rank=(3, 2), depth=2)
    params = {"params": {"hidden_0": jnp.arange(3.0), "hidden_1": jnp.arange(2.0)}}
    chex.assert_trees_all_equal(free.apply(params, 5.0), free.apply(params))
    chex.assert_trees_all_equal(free.apply(params, 5.0), (jnp.arange(3.0), jnp.arange(2.0)))


def test_errors():
    with pytest.raises(ValueError, match="6 hidden layers need 6 ranks, got 2"):
        FrequencyEmbedding(rank=(3, 2)).init(KEY, 5.0)
    with pytest.raises(ValueError, match="one of orthonormal, xavier, got 'he'"):
        FrequencyEmbedding(initialisation="he").init(KEY, 5.0)
