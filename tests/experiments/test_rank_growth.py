"""Columns are added and dropped as the study of the rank asks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.rank_growth import grow, keep_energy
from meta_lrpinn.models import (
    initial_parameters,
    make_meta_lrpinn,
    prune_hypernetwork,
    truncate,
)

DEPTH, RANK = 3, 10
POINTS = jax.random.uniform(jax.random.key(1), (9, 2))
SOURCE = jnp.array([0.4])
MODEL = make_meta_lrpinn(width=24, depth=DEPTH, rank=RANK)
PARAMS = initial_parameters(MODEL, jax.random.key(0))
SIGMA = [0.1, -5.0, 0.2, 3.0, 0.3, -0.4, 1.0, 0.5, 0.6, 0.7]


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


@pytest.mark.parametrize(
    ("energy", "kept"),
    [
        # The squares sum to 36.4, of which -5 and 3 hold 93.4 % and 1 takes 96.2 %.
        (0.93, [-5.0, 3.0]),
        (0.94, [-5.0, 3.0, 1.0]),
        (1e-6, [-5.0]),
    ],
)
def test_energy_keeps_the_largest(energy, kept):
    _, reduced = keep_energy(*_pruned(SIGMA), energy)
    for sigma in reduced["embedding"].values():
        np.testing.assert_allclose(sigma, kept, rtol=1e-6)


def test_ranks_may_differ_between_layers():
    model, params = _pruned(np.ones(RANK))
    params["embedding"]["hidden_1"] = jnp.asarray(SIGMA)
    reduced_model, reduced = keep_energy(model, params, 0.9)
    assert _ranks(reduced) == [9, 2, 9]
    assert reduced_model.network.rank == reduced_model.embedding.rank == (9, 2, 9)
    again_model, again = truncate(reduced_model, reduced, fraction=0.5)
    assert _ranks(again) == [4, 1, 4]
    assert again_model.network.gains == MODEL.network.gains
    assert jnp.all(jnp.isfinite(_apply(again_model, again, POINTS, SOURCE)))


def test_all_zero_singular_values_leave_rank_one():
    _, reduced = keep_energy(*_pruned(np.zeros(RANK)), 0.5)
    assert _ranks(reduced) == [1] * DEPTH


@pytest.mark.parametrize("method", ["__call__", "features"])
def test_growth_by_zeros_keeps_the_function_and_is_undone(method):
    model, params = truncate(*_pruned(), count=4)
    larger_model, larger = grow(model, params, 9, jax.random.key(5))
    assert _ranks(larger) == [9] * DEPTH
    assert larger_model.network.gains == MODEL.network.gains
    before = _apply(model, params, POINTS, SOURCE, method=method)
    after = _apply(larger_model, larger, POINTS, SOURCE, method=method)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    _, again = truncate(larger_model, larger, count=4)
    chex.assert_trees_all_equal(
        again["network"]["hidden_0"]["U"].sort(), params["network"]["hidden_0"]["U"].sort()
    )
    fresh = initial_parameters(larger_model, jax.random.key(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(fresh, larger)


def test_new_columns_are_orthonormal_and_orthogonal_to_old_ones():
    model, params = truncate(*_pruned(), count=4)
    # Training leaves bases that are not orthonormal; the old columns must stay so.
    skewed = params["network"]["hidden_1"]["U"] @ jnp.triu(jnp.ones((4, 4)))
    params["network"]["hidden_1"]["U"] = skewed
    _, larger = grow(model, params, 9, jax.random.key(5), sigma=0.1)
    for layer in range(DEPTH):
        factors = larger["network"][f"hidden_{layer}"]
        for factor, old in params["network"][f"hidden_{layer}"].items():
            columns = np.asarray(factors[factor])
            np.testing.assert_array_equal(columns[:, :4], old)
            np.testing.assert_allclose(columns[:, :4].T @ columns[:, 4:], 0, atol=2e-6)
            np.testing.assert_allclose(
                columns[:, 4:].T @ columns[:, 4:], np.eye(5), atol=2e-6
            )
        np.testing.assert_allclose(
            larger["embedding"][f"hidden_{layer}"][4:], 0.1, rtol=1e-6
        )
    assert not np.allclose(
        larger["network"]["hidden_0"]["U"], larger["network"]["hidden_0"]["V"]
    )


def test_new_singular_values_have_a_gradient():
    model, params = grow(*truncate(*_pruned(), count=4), 9, jax.random.key(5))

    def loss(params):
        return jnp.sum(_apply(model, params, POINTS, SOURCE) ** 2)

    gradient = jax.grad(loss)(params)["embedding"]["hidden_0"]
    assert np.all(np.abs(gradient[4:]) > 0)


def test_growth_leaves_larger_layers_alone():
    model, params = _pruned(np.ones(RANK))
    params["embedding"]["hidden_1"] = jnp.asarray(SIGMA)
    _, grown = grow(*keep_energy(model, params, 0.9), 5, jax.random.key(0))
    assert _ranks(grown) == [9, 5, 9]


@pytest.mark.parametrize("rank", [0, 25, 2.5])
def test_growth_out_of_range(rank):
    with pytest.raises(ValueError, match="whole number from 1 to the width 24"):
        grow(*_pruned(), rank, jax.random.key(0))
    with pytest.raises(ValueError, match="prune the hypernetwork before changing"):
        grow(MODEL, PARAMS, 12, jax.random.key(0))
