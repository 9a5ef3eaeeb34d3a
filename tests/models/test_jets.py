"""Derivatives carried layer by layer against those of `jax.hessian`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models
from meta_lrpinn.learning import configs, networks
from meta_lrpinn.physics import derivatives

NETWORKS = {
    "lrpinn": {"width": 12, "depth": 2, "rank": 5},
    "lrpinn_3d": {"width": 8, "depth": 1, "rank": 3, "ndim": 3},
    "wide_last": {"width": 8, "depth": 2, "rank": 3, "features": 14},
    "xavier": {"width": 8, "depth": 2, "rank": 3, "initialisation": "xavier"},
    "pinn": {"kind": "pinn", "width": 10, "depth": 2},
    "pinn_frequency": {"kind": "pinn", "width": 10, "depth": 2, "frequency_input": True},
}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make(name):
    """A network whose biases are not zero either, and points."""
    model = networks.make_network(configs.NetworkConfig(**NETWORKS[name], first_scale=3.0))
    params = models.initial_parameters(model, jax.random.key(1))
    noise = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.1 * noise.normal(size=leaf.shape)), params
    )
    points = jnp.asarray(noise.uniform(size=(7, model.ndim)))
    return model, params, points, jnp.full(model.ndim - 1, 0.3)


def jets_of(model, params, points, source):
    return model.apply({"params": params}, points, source, 5.0, method="jets").stacked()


@pytest.mark.parametrize("name", NETWORKS)
def test_jets_are_the_derivatives_of_the_output(name):
    model, params, points, source = make(name)

    def apply(x):
        return model.apply({"params": params}, x, source, 5.0)

    oracle = derivatives.hessian_derivatives(apply, points)
    value, slope, curvature = jets_of(model, params, points, source)
    chex.assert_trees_all_close(value, oracle.value, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(slope, oracle.gradient, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(curvature, oracle.second, rtol=1e-9, atol=1e-11)
    assert np.abs(curvature).max() > 1e-5  # so that the comparison can fail


def test_jets_of_a_pruned_network_are_those_before():
    model, params, points, source = make("lrpinn")
    before = jets_of(model, params, points, source)
    pruned, params = models.prune_hypernetwork(model, params, 5.0)
    chex.assert_trees_all_close(jets_of(pruned, params, points, source), before, rtol=1e-12)


def test_gradients_through_jets_are_those_through_taylor_mode():
    model, params, points, source = make("lrpinn")

    def energy(params, by_layers):
        if by_layers:
            _, _, second = jets_of(model, params, points, source)
        else:
            second = derivatives.derivatives(
                lambda x: model.apply({"params": params}, x, source, 5.0), points
            ).second
        return jnp.sum(jnp.cos(second))

    layers, taylor = (jax.grad(energy)(params, by_layers) for by_layers in (True, False))
    chex.assert_trees_all_close(layers, taylor, rtol=1e-9, atol=1e-11)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(layers)) > 0.1
