"""Algorithms are compared from one start, each trained once."""

import csv
import dataclasses

import numpy as np
import pytest

from experiments import maml
from meta_lrpinn.learning import configs

TINY = {"seeds": 1, "maml_points": 64, "maml_tasks": 2, "maml_steps": ["1", "3"]}


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


# Compiles every algorithm; tests/meta has each of them.
@pytest.mark.slow
@pytest.mark.usefixtures("tiny_preset")
def test_every_algorithm_starts_from_the_random_parameters(experiment, monkeypatch):
    names = ("joint training", "Reptile, orthonormal bases")
    chosen = {name: maml.ALGORITHMS[name] for name in names}
    monkeypatch.setattr(maml, "ALGORITHMS", chosen)
    out = experiment("maml", maml_seconds=600.0, **TINY)
    with open(out / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["algorithm"] for row in rows] == [maml.RANDOM, *names]
    assert [row["tasks"] for row in rows] == ["0", "4", "4"]
    assert np.all(np.isfinite([[float(row[n]) for n in ("0", "1", "3")] for row in rows]))
    table = (out / "table.md").read_text()
    assert "| 0 steps | 1 steps | 3 steps |" in table
    assert "one seed" in table and "±" not in table
    assert (out / "figure.png").stat().st_size > 10_000

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(maml, "measure", again)
    experiment("maml", maml_seconds=600.0, **TINY)
    assert (out / "table.md").read_text() == table


@pytest.mark.parametrize("name", maml.ALGORITHMS)
def test_settings_of_every_algorithm_go_together(name, parsed):
    config = maml.configuration(name, 3)
    preset = configs.PRESETS["own_output"]
    assert (config.network, config.tasks) == (preset.network, preset.tasks)
    assert config.training.seed == 3
