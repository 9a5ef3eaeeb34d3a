"""Algorithms are compared from one start, each trained once."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from experiments import maml, reports
from meta_lrpinn import models
from meta_lrpinn.learning import configs, networks

TINY = {
    "seeds": 2, "maml_points": 64, "maml_tasks": 2, "maml_steps": ["1", "3"],
    "maml_algorithms": ["0", "1"], "maml_published_seconds": 500.0,
}  # fmt: skip


@pytest.fixture
def tiny_preset(monkeypatch):
    """The preset, on small models and a tiny network; two updates in all."""
    preset = configs.PRESETS["own_output"]
    tiny = dataclasses.replace(
        preset,
        network=dataclasses.replace(preset.network, width=8, depth=1, rank=3),
        tasks=dataclasses.replace(
            preset.tasks, smallest_size=15, largest_size=21, spacing=0.1
        ),
        training=dataclasses.replace(preset.training, iterations=2, checkpoint_every=2),
    )
    monkeypatch.setitem(configs.PRESETS, "own_output", tiny)
    monkeypatch.setattr(maml, "HELD", ((2.0, 0.4),))
    monkeypatch.setattr(maml, "ONWARD_TASKS", 4)
    monkeypatch.setattr(maml, "OTHER_TASKS", 2)
    monkeypatch.setattr(maml, "SHIPPED", ("meta_lrpinn_reptile",))
    monkeypatch.setattr(maml, "SHIPPED_STEPS", (1, 2))
    random = networks.make_network(tiny.network)
    params = models.initial_parameters(random, jax.random.key(1))
    monkeypatch.setattr(ml, "load_network", lambda _: networks.Network(random, params))


# Compiles every algorithm; tests/learning has each of them.
@pytest.mark.slow
@pytest.mark.usefixtures("tiny_preset")
def test_every_algorithm_starts_from_the_random_parameters(experiment, monkeypatch):
    joint, published = list(maml.ALGORITHMS)[:2]
    out = experiment("maml", maml_seconds=600.0, **TINY)
    with open(out / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Several seeds of the random start and of the published form.
    names = [maml.RANDOM, maml.RANDOM, joint, published, published]
    assert [row["algorithm"] for row in rows] == names
    assert [row["tasks"] for row in rows] == ["0", "0", "4", "4", "4"]
    assert [row["seconds"] for row in rows] == ["600.0"] * 3 + ["500.0"] * 2
    assert np.all(np.isfinite([[float(row[n]) for n in ("0", "1", "3")] for row in rows]))
    table = (out / "table.md").read_text()
    assert "| 0 steps | 1 steps | 3 steps |" in table
    assert f"| {joint} | 1 |" in table and f"| {published} | 2 |" in table
    assert (out / "figure.png").stat().st_size > 10_000
    tasks, _ = reports.effort("meta_lrpinn_reptile")
    assert f"| meta_lrpinn_reptile | {tasks} | " in table and "| SOAP, 2 steps |" in table

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(maml, "measure", again)
    experiment("maml", maml_seconds=600.0, **TINY)
    assert (out / "table.md").read_text() == table


@pytest.mark.usefixtures("tiny_preset")
def test_the_second_order_gradient_is_a_direction_of_descent(monkeypatch, parsed):
    monkeypatch.setattr(maml, "DESCENT_TASKS", 2)
    (row,) = maml.descent("second order, 10 Adam steps of 2e-3")
    assert row["0.0001"] < 0 < row["norm"]
    name = next(iter(maml.DESCENTS))
    text = maml.descent_report({name: row})
    assert f"| {name} | {row['loss']:.3f} |" in text


# Compiles a gradient of second order; the test above does, too.
@pytest.mark.slow
@pytest.mark.usefixtures("tiny_preset")
def test_a_step_of_maml_is_judged_by_other_tasks(monkeypatch, parsed):
    monkeypatch.setattr(maml, "LENGTHS", (0.0, 1e-4))
    monkeypatch.setattr(maml, "ONWARD_STEPS", (3,))
    (row,) = maml.onward()
    assert abs(row["agreement"]) <= 1
    assert row["0"] == row["0, error"] == 0 < row["0.0001, error"]
    assert f"| 3 | {row['loss']:.4f} |" in maml.onward_report([row])


@pytest.mark.usefixtures("tiny_preset")
def test_features_that_repeat_others_are_not_independent():
    model = networks.make_network(configs.PRESETS["own_output"].network)
    params = models.initial_parameters(model, jax.random.key(0))
    assert maml.independent_features(model, params) == 8
    # The second half of the last low-rank layer's units takes what the first half does.
    bases = params["network"]["hidden_0"]
    repeated = {**bases, "U": jnp.tile(bases["U"][:4], (2, 1))}
    network = {**params["network"], "hidden_0": repeated}
    assert maml.independent_features(model, {**params, "network": network}) == 4


@pytest.mark.parametrize("name", maml.ALGORITHMS)
def test_settings_of_every_algorithm_go_together(name, parsed):
    config = maml.configuration(name, 3)
    preset = configs.PRESETS["own_output"]
    assert (config.network, config.tasks) == (preset.network, preset.tasks)
    assert config.training.seed == 3


def test_the_published_form_is_published(parsed):
    training = maml.configuration(maml.PUBLISHED, 0).training
    paper = configs.PRESETS["paper"].training
    assert training.algorithm == paper.algorithm and not training.algorithm.same_task
    assert training.clip_norm is paper.clip_norm is None
    assert training.tasks_per_batch == paper.tasks_per_batch == 5
