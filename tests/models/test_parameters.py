import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.models import (
    initial_parameters,
    leading_features,
    make_meta_lrpinn,
    prune_hypernetwork,
    truncate,
)

DEPTH, RANK = 3, 10
POINTS = jax.random.uniform(jax.random.key(1), (9, 2))
SOURCE = jnp.array([0.4])
MODEL = make_meta_lrpinn(width=24, depth=DEPTH, rank=RANK)
PARAMS = initial_parameters(MODEL, jax.random.key(0))


def _apply(model, params, *inputs, method="__call__"):
    return model.apply({"params": params}, *inputs, method=method)


def _pruned(sigma=None):
    """A pruned network, its singular values replaced by `sigma` in every layer."""
    model, params = prune_hypernetwork(MODEL, PARAMS, 5.0)
    if sigma is not None:
        params["embedding"] = {
            name: jnp.asarray(sigma, jnp.float32) for name in params["embedding"]
        }
    return model, params


def _ranks(params):
    return [len(sigma) for sigma in params["embedding"].values()]


def _weights(model, params, layer):
    factors = params["network"][f"hidden_{layer}"]
    sigma = params["embedding"][f"hidden_{layer}"]
    product = np.asarray(factors["U"] * sigma, np.float64) @ np.asarray(factors["V"]).T
    return model.network.gains[layer] * product


def test_pruning_keeps_the_function():
    model, params = _pruned()
    assert model.is_pruned and not MODEL.is_pruned
    assert _ranks(params) == [RANK] * DEPTH
    for method in ("__call__", "features"):
        before = _apply(MODEL, PARAMS, POINTS, SOURCE, 5.0, method=method)
        after = _apply(model, params, POINTS, SOURCE, 5.0, method=method)
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [(MODEL, PARAMS), _pruned()])
def test_leading_features_stay_as_they_are(start):
    whole = _apply(*start, POINTS, SOURCE, 5.0, method="features")
    model, params = leading_features(*start, 14)
    part = _apply(model, params, POINTS, SOURCE, 5.0, method="features")
    np.testing.assert_allclose(part, whole[:, :14], rtol=1e-5, atol=1e-6)
    output = _apply(model, params, POINTS, SOURCE, 5.0)
    last = start[1]["network"]["last"]
    expected = whole[:, :14] @ last["kernel"][:14] + last["bias"]
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-6)
    assert model.network.number_of_features == 14
    chex.assert_trees_all_equal(params["embedding"], start[1]["embedding"])


@pytest.mark.parametrize("number", [RANK - 1, 25, 12.5])
def test_leading_features_out_of_range(number):
    with pytest.raises(ValueError, match="from the last layer's rank 10 to 24"):
        leading_features(MODEL, PARAMS, number)


def test_a_wider_last_layer_keeps_the_scale():
    points = jax.random.uniform(jax.random.key(2), (300, 2))
    sizes = {"width": 64, "depth": 2, "rank": 16}
    for last_width in (None, 200):
        model = make_meta_lrpinn(**sizes, last_width=last_width)
        params = initial_parameters(model, jax.random.key(0))
        features = _apply(model, params, points, SOURCE, 5.0, method="features")
        chex.assert_shape(features, (300, last_width or 64))
        assert 0.5 < float(jnp.sqrt(jnp.mean(features**2))) < 0.75


def test_pruning_keeps_the_function_in_float64():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
        model, params = prune_hypernetwork(MODEL, wide, jnp.asarray(5.0))
        chex.assert_type(jax.tree.leaves(params), jnp.float64)
        points = POINTS.astype(jnp.float64)
        before = _apply(MODEL, wide, points, SOURCE, 5.0)
        after = _apply(model, params, points, SOURCE, 5.0)
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-14)


def test_pruned_values_are_those_of_the_frequency():
    _, low = prune_hypernetwork(MODEL, PARAMS, 3.0)
    expected = MODEL.embedding.apply({"params": PARAMS["embedding"]}, 3.0)
    chex.assert_trees_all_close(tuple(low["embedding"].values()), expected, rtol=1e-6)
    _, high = prune_hypernetwork(MODEL, PARAMS, 9.0)
    difference = low["embedding"]["hidden_0"] - high["embedding"]["hidden_0"]
    assert jnp.abs(difference).max() > 0.01


def test_pruned_tree_is_what_the_pruned_model_initialises():
    model, params = _pruned()
    fresh = initial_parameters(model, jax.random.key(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, params)
    reduced_model, reduced = truncate(model, params, count=4)
    fresh = initial_parameters(reduced_model, jax.random.key(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, reduced)


def test_pruning_under_vmap():
    frequencies = jnp.array([3.0, 9.0])
    tasks = jax.vmap(lambda f: prune_hypernetwork(MODEL, PARAMS, f)[1]["embedding"])(
        frequencies
    )
    chex.assert_shape(tasks["hidden_1"], (2, RANK))
    _, alone = prune_hypernetwork(MODEL, PARAMS, 9.0)
    np.testing.assert_allclose(
        tasks["hidden_1"][1], alone["embedding"]["hidden_1"], rtol=1e-5
    )


SIGMA = [0.1, -5.0, 0.2, 3.0, 0.3, -0.4, 1.0, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("criterion", "kept"),
    [
        ({"fraction": 0.5}, [-5.0, 3.0, 1.0, 0.7, 0.6]),
        ({"fraction": 0.01}, [-5.0]),
        ({"count": 3}, [-5.0, 3.0, 1.0]),
    ],
    ids=str,
)
def test_truncation_keeps_the_largest(criterion, kept):
    model, params = _pruned(SIGMA)
    reduced_model, reduced = truncate(model, params, **criterion)
    columns = np.array([SIGMA.index(value) for value in kept])
    for layer in range(DEPTH):
        name = f"hidden_{layer}"
        np.testing.assert_allclose(reduced["embedding"][name], kept, rtol=1e-6)
        for factor in "UV":
            np.testing.assert_array_equal(
                reduced["network"][name][factor],
                params["network"][name][factor][:, columns],
            )
    output = _apply(reduced_model, reduced, POINTS, SOURCE, 5.0)
    chex.assert_shape(output, (9, 2))


def test_truncation_is_the_best_approximation():
    model, params = _pruned(SIGMA)
    reduced_model, reduced = truncate(model, params, count=4)
    for layer in range(DEPTH):
        weights = _weights(model, params, layer)
        difference = weights - _weights(reduced_model, reduced, layer)
        spectrum = np.linalg.svd(weights, compute_uv=False)
        error = np.linalg.norm(difference, 2)
        np.testing.assert_allclose(error, spectrum[4], rtol=1e-5)
        np.testing.assert_allclose(error, model.network.gains[layer] * 0.6, rtol=1e-5)


def test_keeping_all_or_dropping_zeros_keeps_the_function():
    sigma = np.where(np.arange(RANK) % 2, 0.0, 1.0)
    for (model, params), criterion in [
        (_pruned(), {"fraction": 1.0}),
        (_pruned(sigma), {"fraction": 0.5}),
    ]:
        reduced_model, reduced = truncate(model, params, **criterion)
        before = _apply(model, params, POINTS, SOURCE, 5.0)
        after = _apply(reduced_model, reduced, POINTS, SOURCE, 5.0)
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    assert _ranks(reduced) == [RANK // 2] * DEPTH


def test_truncation_needs_a_pruned_network():
    with pytest.raises(ValueError, match="prune the hypernetwork before reducing"):
        truncate(MODEL, PARAMS, fraction=0.5)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ({}, "exactly one of fraction and count, got none"),
        ({"fraction": 0.5, "count": 2}, "fraction and count, got both"),
        ({"fraction": 0.0}, "fraction must be above 0 and at most 1, got 0.0"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, got 1.5"),
        ({"count": 0}, "count must be a whole number from 1 to the rank 10, got 0"),
        ({"count": 11}, "count must be a whole number from 1 to the rank 10, got 11"),
        ({"count": 2.5}, "count must be a whole number from 1 to the rank 10, got 2.5"),
    ],
    ids=str,
)
def test_criteria_out_of_range(criterion, message):
    with pytest.raises(ValueError, match=message):
        truncate(*_pruned(), **criterion)


def test_pruning_errors():
    with pytest.raises(ValueError, match="pruned already"):
        prune_hypernetwork(*_pruned(), 5.0)
    with pytest.raises(ValueError, match=r"frequency must be positive, got -3.0 Hz"):
        prune_hypernetwork(MODEL, PARAMS, -3.0)
    with pytest.raises(ValueError, match=r"one frequency, got .* shape \(2,\)"):
        prune_hypernetwork(MODEL, PARAMS, jnp.array([3.0, 5.0]))
