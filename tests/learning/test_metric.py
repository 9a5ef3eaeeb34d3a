"""The metric that is learned over tasks: measured, begun with, and kept."""

import dataclasses
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import (
    adaptation,
    checkpoints,
    configs,
    evaluation,
    maml,
    networks,
    pipeline,
    soap,
    training,
)

STEPS, RATE, TASKS = 3, 0.05, 2
SMALL = configs.NetworkConfig(width=12, depth=2, rank=4, layer_fraction=0.5)


def objective(params, task, key):
    """Regression by a matrix and a bias, at points drawn from the key."""
    points = jax.random.normal(key, (8, 4))
    misfit = points @ params["layer"]["kernel"] + params["layer"]["bias"] - points @ task
    return jnp.mean(misfit**2), {}


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    kernel, bias = (jnp.asarray(rng.normal(size=s), "f4") for s in ((4, 3), (3,)))
    return {"layer": {"kernel": kernel, "bias": bias}}


@pytest.fixture
def tasks():
    return jnp.asarray(np.random.default_rng(1).normal(size=(TASKS, 4, 3)), "f4")


@pytest.fixture
def learned(params, tasks):
    key = jax.random.key(2)
    return soap.measure_metric(
        objective, params, tasks, key, steps=STEPS, learning_rate=RATE
    )


def gradients(params, tasks, key):
    """Clipped gradients of all steps of all tasks, written out."""
    optimiser = adaptation.make_optimiser("soap", RATE, "cosine", STEPS)
    clip = optax.clip_by_global_norm(1.0)
    found = []
    for index, task in enumerate(tasks):
        ours, state = params, optimiser.init(params)
        own_key = jax.random.fold_in(key, index)
        for step in range(STEPS):
            gradient, _ = jax.grad(objective, has_aux=True)(
                ours, task, jax.random.fold_in(own_key, step)
            )
            found.append(clip.update(gradient, clip.init(params))[0])
            updates, state = optimiser.update(found[-1], state, ours)
            ours = optax.apply_updates(ours, updates)
    return [jax.tree.map(np.asarray, gradient["layer"]) for gradient in found]


def test_it_is_the_mean_over_all_steps_of_all_tasks(params, tasks, learned):
    found = gradients(params, tasks, jax.random.key(2))
    of_bias, of_kernel = learned["layer.bias"], learned["layer.kernel"]
    assert set(of_bias) == {"second"}
    squares = np.mean([g["bias"] ** 2 for g in found], axis=0)
    np.testing.assert_allclose(of_bias["second"], squares, rtol=1e-3)
    matrices = [g["kernel"] for g in found]
    products = {"left": [g @ g.T for g in matrices], "right": [g.T @ g for g in matrices]}
    for side, all_products in products.items():
        vectors, values = of_kernel[side], of_kernel[f"{side}_values"]
        assert np.all(np.diff(values) <= 0)
        np.testing.assert_allclose(
            (vectors * values) @ vectors.T, np.mean(all_products, axis=0), atol=1e-4
        )
    begun = soap.initial_state(soap.scale_by_soap(), params, learned)
    second = begun.moments[1].second  # in the basis, with the right sums
    for axis, side in enumerate(soap.SIDES):
        values = of_kernel[f"{side}_values"]
        np.testing.assert_allclose(second.sum(axis=1 - axis), values, rtol=1e-3)


def test_the_first_step_is_scaled_by_what_was_learned(params, learned):
    """In the learned bases; plain SOAP makes no step at all with the first gradient."""
    descent = soap.scale_by_soap()
    gradient = jax.tree.map(lambda leaf: 0.1 * jnp.cos(leaf), params)
    state = soap.initial_state(descent, params, learned)
    direction, _ = descent.update(gradient, state)
    of_kernel = learned["layer.kernel"]
    left, right = of_kernel["left"], of_kernel["right"]
    turned = left.T @ gradient["layer"]["kernel"] @ right
    first, second = (
        getattr(descent.update(gradient, state)[1].moments[1], name)
        for name in ("first", "second")
    )
    kept = 1 - first[0, 0] / gradient["layer"]["kernel"][0, 0]  # the decay of the mean
    assert 0.5 < kept < 1
    assert np.all(second > 0.5 * state.moments[1].second)
    expected = left @ ((1 - kept) * turned / jnp.sqrt(second)) @ right.T
    np.testing.assert_allclose(direction["layer"]["kernel"], expected, rtol=1e-3, atol=1e-5)


def test_a_metric_of_other_arrays_is_refused(params, learned):
    other = {"layer": {**params["layer"], "bias": jnp.zeros(4)}}
    with pytest.raises(ValueError, match="the metric was learned on another network"):
        soap.initial_state(soap.scale_by_soap(), other, learned)


def test_inner_steps_begin_with_it(params, tasks, learned):
    inner = configs.InnerSteps(steps=2, learning_rate=RATE, optimiser="soap")
    key = jax.random.key(3)
    adapted, _ = maml.adapt(objective, params, tasks[0], key, inner, metric=learned)
    descent = soap.scale_by_soap()
    ours = params
    state = soap.initial_state(descent, params, learned)
    for step_key in jax.random.split(key, 2):
        gradient = jax.grad(objective, has_aux=True)(ours, tasks[0], step_key)[0]
        updates, state = descent.update(gradient, state)
        ours = jax.tree.map(lambda p, u: p - RATE * u, ours, updates)
    chex.assert_trees_all_close(adapted, ours, rtol=1e-4)
    batch = jax.tree.map(lambda leaf: leaf[:1], (tasks, tasks))
    for algorithm in (configs.Reptile(inner=inner), configs.MAML(inner=inner)):
        _, change = maml.gradient(
            objective, params, *batch, key[None], algorithm, "map", metric=learned
        )
        _, other = maml.gradient(objective, params, *batch, key[None], algorithm, "map")
        assert not np.allclose(change["layer"]["bias"], other["layer"]["bias"])


@pytest.fixture
def folder(tmp_path):
    """An initialisation of a small network with a metric that is not learned."""
    module = networks.make_network(SMALL)
    params = models.initial_parameters(module, jax.random.key(0))
    made = {}
    for name, leaf in zip(soap.array_names(params), jax.tree.leaves(params), strict=True):
        made[name] = {"second": jnp.full(leaf.shape, 0.01)}
        if leaf.ndim == 2:
            made[name] = {}
            for side, size in zip(soap.SIDES, leaf.shape, strict=True):
                made[name] |= {side: jnp.eye(size)}
                made[name] |= {f"{side}_values": jnp.full(size, 1 / size)}
    path = tmp_path / "mine"
    model = dataclasses.asdict(SMALL)
    checkpoints.save_initialisation(path, params, model, {"metric": {}}, made)
    return path


def test_it_is_loaded_with_its_network(folder):
    network = ml.load_network(folder)
    assert network.metric is not None
    assert set(network.metric) == set(soap.array_names(network.params))
    pruned = network.prune(5.0)
    assert pruned.metric is not None
    # It fits the arrays that are left.
    soap.initial_state(soap.scale_by_soap(), pruned.params, pruned.metric)
    for other in (
        network.freeze_bases(),
        pruned.truncate(count=2),
        network.reinitialised(0),
        ml.load_network("small"),
    ):
        assert other.metric is None
        assert "metric" not in repr(other)
    text = repr(network)
    size = sum(leaf.size for leaf in jax.tree.leaves(network.params))
    assert f"{size:,} parameters; a metric; checksum {network.checksum()[:8]}" in text
    assert len(text) < 120


@pytest.mark.parametrize("optimiser", [ml.SOAP, ml.AdamW])
def test_gradient_training_begins_with_it(folder, optimiser):
    """SOAP does, on the loss from which metrics are learned; AdamW has no use for it."""
    model = ml.VelocityModel(np.full((11, 11), 2.0) + np.arange(11.0) / 20, 0.08)
    network = ml.load_network(folder)
    without = dataclasses.replace(network, metric=None)

    def solved(network, loss="relative"):
        settings = ml.GradientTraining(
            network,
            optimiser=optimiser(steps=4, points=64, learning_rate=1e-2),
            loss=loss,
        )
        return ml.solve(model, 4.0, (0.4, 0.08), settings).scattered

    is_soap = optimiser is ml.SOAP
    assert np.allclose(solved(network), solved(without)) != is_soap
    if is_soap:
        published = (solved(one, "published") for one in (network, without))
        np.testing.assert_array_equal(*published)


def test_meta_training_begins_with_that_of_its_start(folder, tmp_path, monkeypatch):
    given = []

    def train(*_, metric, **__):
        given.append(metric)
        return types.SimpleNamespace(step=jnp.ones(()))

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(evaluation, "make_evaluation", lambda *_: None)
    monkeypatch.setattr(pipeline, "export", lambda *_: tmp_path)
    preset = dataclasses.replace(configs.PRESETS["own_output"], network=SMALL)
    for name in ("soap", "adam"):
        inner = configs.InnerSteps(optimiser=name)
        algorithm = configs.Reptile(inner=inner)
        own = dataclasses.replace(preset.training, algorithm=algorithm)
        config = dataclasses.replace(preset, training=own)
        pipeline.meta_train(config, tmp_path / "run", init=folder, progress=False)
    assert given[0] is not None and given[1] is None


def test_few_steps_with_a_metric_are_longer(learned):
    plain = adaptation.default_rate("soap", 50)
    assert adaptation.default_rate("soap", 50, learned) > plain
    assert adaptation.default_rate("soap", 300, learned) == plain
