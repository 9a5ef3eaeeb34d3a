"""What start and metric are worth: four beginnings, each judged alike."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from experiments import metric
from meta_lrpinn.learning import checkpoints, configs, soap

TINY = {"seeds": 1, "metric_points": 64, "metric_tasks": 1, "metric_steps": ["1", "3"]}


@pytest.fixture
def tiny_tasks(monkeypatch):
    preset = configs.PRESETS["own_output"]
    tasks = dataclasses.replace(
        preset.tasks, smallest_size=15, largest_size=21, spacing=0.1
    )
    tiny = dataclasses.replace(preset, tasks=tasks)
    monkeypatch.setitem(configs.PRESETS, "own_output", tiny)
    monkeypatch.setattr(metric, "HELD", ((2.0, 0.4), (3.0, 0.4)))


@pytest.fixture
def with_metric(tiny_init, tmp_path):
    """The tiny initialisation, with a metric of ones."""
    params, model, card = checkpoints.load_initialisation(tiny_init)
    ones = {}
    for name, leaf in zip(soap.array_names(params), jax.tree.leaves(params), strict=True):
        ones[name] = {"second": jnp.ones(leaf.shape)}
        if leaf.ndim == 2:
            ones[name] = {
                key: value
                for side, size in zip(soap.SIDES, leaf.shape, strict=True)
                for key, value in (
                    (side, jnp.eye(size)), (f"{side}_values", jnp.full(size, 1 / size)),
                )
            }  # fmt: skip
    path = tmp_path / "with_metric"
    checkpoints.save_initialisation(path, params, model, card, ones)
    return str(path)


@pytest.mark.usefixtures("tiny_tasks")
def test_four_beginnings(experiment, with_metric):
    out = experiment("metric", init=with_metric, **TINY)
    with open(out / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {
        name: [float(row["error"]) for row in rows if row["row"] == name]
        for name in metric.ROWS
    }
    assert all(len(own) == 4 and np.all(np.isfinite(own)) for own in errors.values())
    assert errors["start alone"] == errors["neither"]  # both of seed 0
    assert len({tuple(own) for own in errors.values()}) == 3
    text = (out / "table.md").read_text()
    assert "| 1 steps | 3 steps | 2 Hz, 3 steps | 3 Hz, 3 steps |" in text
    assert f"| {100 * np.mean(errors['neither'][:2]):.1f} % |" in text


def test_a_metric_that_is_not_there_is_no_row(tiny_init, parsed):
    network = ml.load_network(tiny_init)
    with pytest.raises(ValueError, match="has no metric; use learn-metric"):
        metric.beginning(network, True, True, 0)
