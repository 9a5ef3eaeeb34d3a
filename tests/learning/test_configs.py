"""Presets and the modules and objectives that configurations make."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import pytest

from meta_lrpinn import models
from meta_lrpinn.learning import configs, networks, objectives
from meta_lrpinn.learning.configs import TaskDistribution
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel


def test_paper_preset_is_the_papers():
    paper = configs.PRESETS["paper"]
    network = paper.network
    assert (network.width, network.depth, network.rank) == (320, 6, 100)
    assert (network.kind, network.initialisation) == ("lrpinn", "xavier")
    assert paper.tasks.fixed_models * paper.tasks.fixed_frequencies == 560
    assert (paper.objective.name, paper.objective.source_penalty) == ("paper", 1.0)
    training, maml = paper.training, paper.training.algorithm
    assert maml == configs.MAML(
        inner=configs.InnerSteps(steps=1, learning_rate=2e-3, optimiser="sgd"),
        first_order=True,
        same_task=False,
        learning_rate=1e-3,
        weight_decay=4e-5,
    )
    assert training.schedule == configs.Staircase(decay=0.8, decay_every=5000)
    assert (training.iterations, training.tasks_per_batch) == (50_000, 5)
    assert training.clip_norm is None and not training.orthonormal_bases
    assert not paper.tasks.absorbing
    assert (paper.tasks.minimum_velocity, paper.tasks.maximum_velocity) == (1.5, 5.0)


def test_our_form_of_the_paper_differs_in_start_tasks_and_clipping():
    paper, ours = configs.PRESETS["paper"], configs.PRESETS["paper_orthonormal"]
    assert ours.network.initialisation == "orthonormal"
    assert (ours.tasks.fixed_models, ours.training.clip_norm) == (0, 1.0)
    assert paper == dataclasses.replace(
        ours,
        network=dataclasses.replace(ours.network, initialisation="xavier"),
        tasks=dataclasses.replace(ours.tasks, fixed_models=40),
        training=dataclasses.replace(ours.training, clip_norm=None),
    )


def test_small_preset_is_well_posed():
    small = configs.PRESETS["small"]
    assert small.tasks.absorbing and small.objective.name == "projection"
    # More equations than unknowns of the eliminated output layer.
    assert small.objective.points >= 4 * small.network.features
    assert small.tasks.known_points >= small.objective.points


def test_own_output_presets_differ_in_their_network_and_its_bases_alone():
    own, dense = configs.PRESETS["own_output"], configs.PRESETS["meta_pinn"]
    assert (own.network.kind, dense.network.kind) == ("lrpinn", "pinn")
    trained = dataclasses.replace(dense.training, orthonormal_bases=True)
    assert dataclasses.replace(dense, network=own.network, training=trained) == own
    assert own.tasks.absorbing and own.objective.name == "own_output"
    for preset in (own, dense):
        params = jax.eval_shape(
            lambda preset=preset: models.initial_parameters(
                networks.make_network(preset.network), jax.random.key(0)
            )
        )
        assert 4 * sum(leaf.size for leaf in jax.tree.leaves(params)) < 5 * 2**20


SOAP = configs.InnerSteps(optimiser="soap")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: configs.InnerSteps(optimiser="lbfgs"),
            "optimiser must be one of sgd, adam, soap, got 'lbfgs'",
        ),
        (lambda: configs.InnerSteps(clip_norm=0.0), "clip_norm must be positive"),
        (lambda: configs.InnerSteps(steps=0), "steps must be positive, got 0"),
        (lambda: configs.InnerSteps(steps=-1), "whole number from 0 up, got -1"),
        (lambda: configs.MAML(inner=SOAP, first_order=False), "no stable second order"),
        (
            lambda: configs.TrainingConfig(algorithm=configs.Reptile(inner=SOAP)),
            "inner_optimiser soap needs task_axis map",
        ),
        (lambda: configs.Reptile(step=1.1), "at most 1, got 1.1"),
        (lambda: configs.MAML(learning_rate=0.0), "learning_rate must be positive"),
        (lambda: configs.JointTraining(weight_decay=-1.0), "must not be negative"),
        (lambda: configs.Staircase(decay_every=0), "decay_every must be positive, got 0"),
    ],
)
def test_training_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_apply_to_an_algorithm_is_no_field_of_it():
    def names(kind):
        return {field.name for field in dataclasses.fields(kind)}

    outer = {"learning_rate", "weight_decay"}
    assert names(configs.JointTraining) == outer
    assert names(configs.MAML) == {*outer, "inner", "first_order", "same_task"}
    assert names(configs.Reptile) == {"inner", "step"}
    assert names(configs.MultiStepMAML) == {"inner", "step", "same_task"}
    for kind in (configs.MAML, configs.MultiStepMAML):
        assert kind().draws_query and not kind(same_task=True).draws_query
    assert not configs.Reptile().draws_query


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "own_output"}, "own_output needs tasks with an absorbing layer"),
        ({"name": "projection"}, "projection needs tasks with an absorbing layer"),
        ({"source_penalty": -1.0}, "source_penalty must not be negative"),
    ],
)
def test_objective_settings_that_do_not_fit_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        configs.MetaConfig(objective=configs.ObjectiveConfig(**objective))


def test_bases_are_those_of_the_low_rank_network():
    own = configs.PRESETS["meta_pinn"]
    with pytest.raises(ValueError, match="only a low-rank network has bases"):
        dataclasses.replace(
            own, training=dataclasses.replace(own.training, orthonormal_bases=True)
        )


def test_networks_have_the_size_asked_for():
    config = configs.NetworkConfig(width=20, depth=2, rank=4, ndim=3)
    lrpinn = networks.make_network(config)
    assert isinstance(lrpinn, models.MetaLRPINN)
    params = models.initial_parameters(lrpinn, jax.random.key(0))
    chex.assert_shape(params["network"]["hidden_1"]["U"], (20, 4))
    # x, y, z and the two horizontal coordinates of the source.
    chex.assert_shape(params["network"]["first"]["kernel"], (5, 20))
    pinn = networks.make_network(
        configs.NetworkConfig("pinn", width=20, depth=2, frequency_input=True)
    )
    assert isinstance(pinn, models.PINN) and pinn.frequency_input
    params = models.initial_parameters(pinn, jax.random.key(0))
    chex.assert_shape(params["first"]["kernel"], (4, 20))


@pytest.mark.parametrize("kind", configs.NETWORKS)
def test_networks_have_as_many_features_as_asked_for(kind):
    sizes = {"kind": kind, "width": 20, "depth": 2, "rank": 4}
    for features, expected in ((None, 20), (50, 50)):
        model = networks.make_network(configs.NetworkConfig(**sizes, features=features))
        params = models.initial_parameters(model, jax.random.key(0))
        network = params["network"] if kind == "lrpinn" else params
        chex.assert_shape(network["last"]["kernel"], (expected, 2))
        chex.assert_shape(network["first"]["kernel"], (None, 20))
    # Saved before there was a choice.
    assert configs.network_from_dict(sizes).features is None


def test_configuration_survives_json():
    config = configs.NetworkConfig(width=33, rank=7, initialisation="xavier")
    text = json.dumps(dataclasses.asdict(config))
    assert configs.network_from_dict(json.loads(text)) == config
    for preset in configs.PRESETS.values():
        values = json.loads(json.dumps(preset.as_dict()))
        names = {kind: name for name, kind in configs.ALGORITHMS.items()}
        algorithm = values["training"]["algorithm"]
        assert algorithm["name"] == names[type(preset.training.algorithm)]
        assert configs.network_from_dict(values["network"]) == preset.network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: configs.NetworkConfig(kind="cnn"),
            "network must be one of lrpinn, pinn, got 'cnn'",
        ),
        (
            lambda: configs.ObjectiveConfig(name="energy"),
            "objective must be one of paper, own_output, projection, got 'energy'",
        ),
        (
            lambda: configs.network_from_dict({"width": 3, "heads": 8, "bias": 1}),
            "unknown network fields: bias, heads",
        ),
        (
            lambda: configs.MetaConfig(
                network=configs.NetworkConfig(layer_fraction=0.7),
                tasks=TaskDistribution(absorbing=True),
            ),
            "a layer of 1 of the default thickness cannot train a network for 0.7",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def scalars_of(name, task, **changes):
    """Names and shapes of what an objective reports, without computing it."""
    model = networks.make_network(configs.NetworkConfig(width=8, depth=1, rank=2))
    params = models.initial_parameters(model, jax.random.key(0))
    config = configs.ObjectiveConfig(name=name, points=100, **changes)
    objective = objectives.make_objective(config, model)
    loss, scalars = jax.eval_shape(objective, params, task, jax.random.key(0))
    chex.assert_shape(loss, ())
    return set(scalars)


def test_objectives_by_name():
    model = VelocityModel(jnp.full((5, 5), 2.0).at[3:].set(2.5), 0.1)
    task = single_task(make_problem(model, 4.0, (0.2, 0.0)))
    assert scalars_of("paper", task) == {"pde", "source", "orthogonality"}
    assert scalars_of("paper", task, source_penalty=0.0) == {"pde", "orthogonality"}
    assert scalars_of("own_output", task) == {"residual"}
    known = task.replace(
        points=jnp.zeros((120, 2)), scattered=jnp.zeros((1, 120), jnp.complex64)
    )
    assert scalars_of("projection", known) == {"error"}
    assert scalars_of("projection", known, leading=(3, 5)) == {
        "error", "error_3", "error_5"
    }  # fmt: skip
