"""Ranks change as their rules say, and the fixed ones do not."""

import csv

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import dynamic_rank
from meta_lrpinn.learning.networks import load_network

pytestmark = pytest.mark.usefixtures("quick_truth")

TINY = {
    "seeds": 2, "steps": 6, "points": 60, "frequencies": ["2"], "dynamic_stages": 3,
    "dynamic_low": 2, "dynamic_growth": 1, "dynamic_energy": 0.6,
    "dynamic_stall": 1.0,  # every stage has stalled
    "dynamic_overthrust": 0.0,
}  # fmt: skip


# Compiles steps for every rank; the rules have tests of their own.
@pytest.mark.slow
def test_ranks_change_and_resumption(experiment, tiny_init, monkeypatch):
    out = experiment("dynamic_rank", init=tiny_init, **TINY)
    with open(out / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_stage = {}
    for row in rows:
        assert np.isfinite(float(row["relative_l2"]))
        own = by_stage.setdefault(row["contender"], {})
        own[int(row["stage"])] = (float(row["rank"]), int(row["parameters"]))
    ranks = {name: [own[i][0] for i in range(3)] for name, own in by_stage.items()}
    assert ranks["fixed, rank 3"] == [3, 3, 3]
    assert ranks["fixed, rank 2"] == [2, 2, 2]
    assert ranks["growing by residual"] == [2, 3, 3]
    # Three equal σ, nearly: two of them hold 0.6 of the energy, one of two does not.
    assert ranks["shrinking by energy"] == [3, 2, 2]
    # A rank of a layer 8 wide is a column of U, one of V and a singular value.
    growing = by_stage["growing by residual"]
    assert growing[1][1] - growing[0][1] == 17
    for name in ranks:
        own = [r for r in rows if r["contender"] == name and r["seed"] == "0"]
        steps = [int(row["step"]) for row in own]
        assert steps == sorted(steps) and steps[-1] == 6
        seconds = [float(row["seconds"]) for row in own]
        assert seconds == sorted(seconds)
    table = (out / "table.md").read_text()
    assert "2 seeds" in table and "2 to 3" in table
    for figure in ("figure.png", "seconds.png"):
        assert (out / figure).stat().st_size > 0

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(dynamic_rank, "measure", again)
    experiment("dynamic_rank", init=tiny_init, **TINY)
    assert (out / "table.md").read_text() == table


def test_growth_waits_for_a_stall(experiment, tiny_init):
    key = jax.random.key(0)
    with flagsaver.flagsaver(init=tiny_init, dynamic_stall=0.1, dynamic_growth=1):
        network = load_network(tiny_init).prune(5.0).truncate(count=1)
        improving = dynamic_rank.grow(3, network, 1.0, 0.8, key)
        stalled = dynamic_rank.grow(3, network, 1.0, 0.95, key)
        capped = dynamic_rank.grow(1, network, 1.0, 0.95, key)
    assert improving is network
    assert stalled.ranks == (2,)
    assert capped.ranks == (1,)


def test_the_error_at_a_time_lies_between_records():
    rows = [
        {"seconds": 0.0, "relative_l2": 0.4},
        {"seconds": 2.0, "relative_l2": 0.2},
    ]
    assert dynamic_rank.at_seconds(rows, 1.0) == pytest.approx(30)


def test_divergence_is_a_row(monkeypatch):
    def diverge(*_):
        raise FloatingPointError

    monkeypatch.setattr(dynamic_rank, "adapt", diverge)
    (row,) = dynamic_rank.measure(None, None, 1, dynamic_rank.keep, 9, 0)
    assert row["step"] == 9 and np.isnan(row["relative_l2"])
