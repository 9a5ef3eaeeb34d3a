"""Ranks are what was asked for, and viable ones are chosen by the errors."""

import chex
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import rank_sweep

pytestmark = pytest.mark.usefixtures("quick_truth")

TINY = {
    "seeds": 2, "steps": 2, "points": 60, "frequencies": ["2"],
    "ranks": ["1", "50", "full"], "rank_fractions": ["0.5"],
}  # fmt: skip


# Compiles a program for every contender and size; the rules have tests of their own.
@pytest.mark.slow
def test_table_and_resumption(experiment, tiny_init, monkeypatch):
    out = experiment("rank_sweep", init=tiny_init, **TINY)
    table = (out / "table.md").read_text()
    assert "rank 1 | rank 2 | rank 3" in table and "rank 50" not in table
    assert "2 steps:" in table
    assert "2 seeds" in table and "points 60" in table
    errors = np.genfromtxt(out / "errors.csv", delimiter=",", names=True)
    assert len(errors) == 3 * 2  # ranks and seeds
    assert np.all(np.isfinite(errors["relative_l2"]))
    # Each rank is a network of its own.
    assert len(np.unique(errors["relative_l2"])) == len(errors)
    assert (out / "figure.png").stat().st_size > 0

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(rank_sweep, "measure", again)
    experiment("rank_sweep", init=tiny_init, **TINY)
    assert (out / "table.md").read_text() == table


def test_truncated_to_the_rank(experiment, tiny_init):
    with flagsaver.flagsaver(init=tiny_init):
        network = rank_sweep.truncated(5.0, 2)
    assert network.ranks == (2,)
    chex.assert_shape(network.params["network"]["hidden_0"]["U"], (8, 2))


def test_smallest_viable_rank():
    errors = {
        (5.0, 4, 0): [0.5, 0.7],
        (5.0, 8, 0): [0.13, 0.11],
        (5.0, 16, 0): [0.10, 0.12],
        (18.0, 4, 0): [0.9, 0.9],
        (18.0, 16, 0): [0.9, 0.9],
        (20.0, 16, 0): [np.nan, 0.1],
    }
    assert rank_sweep.smallest_viable(errors, 5.0, 0) == 8
    assert rank_sweep.smallest_viable(errors, 18.0, 0) is None
    assert rank_sweep.smallest_viable(errors, 20.0, 0) is None


@pytest.mark.parametrize(("flag", "value"), [("ranks", ["0"]), ("rank_fractions", ["1.5"])])
def test_ranks_out_of_range(experiment, tiny_init, flag, value):
    with pytest.raises(ValueError, match="must be"):
        experiment("rank_sweep", init=tiny_init, **{**TINY, flag: value})
