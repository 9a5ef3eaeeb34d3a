"""The layered model, adapted for two steps on a tiny network."""

import csv

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

import meta_lrpinn as ml
from experiments import reports, study

TINY = {"frequencies": ["2"], "points": 40, "steps": 2, "seeds": 2}


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def stub_direct(case):
    return {
        "plane waves": (0.01, 0.5, 9, 2.0),
        "finite differences, one grid": (1e-3, 0.25, 9, 1.0),
    }


@pytest.fixture
def only_meta(monkeypatch):
    """Study of the meta start alone."""
    everything = study.contenders

    def one(*arguments):
        return {"Meta-LRPINN": everything(*arguments)["Meta-LRPINN"]}

    monkeypatch.setattr(study, "contenders", one)


@pytest.mark.usefixtures("only_meta")
def test_tables_figures_and_no_second_measurement(experiment, tiny_init, monkeypatch):
    monkeypatch.setattr(reports, "direct_lines", stub_direct)
    options = {"init": tiny_init, **TINY}
    out = experiment("layered", **options)
    rows = rows_of(out / "history_own_output.csv")
    names = {(row["case"], row["contender"]) for row in rows}
    assert names == {("layered 2 Hz", "Meta-LRPINN")}
    steps = [(row["seed"], row["step"]) for row in rows]
    assert steps == [(seed, step) for seed in "01" for step in "012"]
    assert np.isfinite([float(row["relative_l2"]) for row in rows]).all()

    table = (out / "table.md").read_text()
    assert "| layered 2 Hz | Meta-LRPINN |" in table
    assert "| layered 2 Hz | plane waves | 1 % | 0.5 | 9 | 2 |" in table
    assert "2 seeds" in table
    assert "8 wide" in table
    for figure in ("figure", "seconds", "loss", "wavefields"):
        assert (out / f"{figure}.png").stat().st_size > 10_000
    with np.load(next(out.glob("fields_*.npz"))) as kept:
        fields = dict(kept)
    ends = [float(r["relative_l2"]) for r in rows if (r["seed"], r["step"]) == ("0", "2")]
    adapted = fields["Meta-LRPINN, 2 steps"]
    # What is shown is a run of the study, so that its error is one of the table.
    assert ml.relative_l2(adapted, fields["reference"]) == pytest.approx(ends[0], rel=1e-3)

    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(study, "adapt", refuse)
    monkeypatch.setattr(study, "known_case", refuse)
    monkeypatch.setattr(reports, "direct_lines", refuse)
    experiment("layered", **options)
    assert (out / "table.md").read_text() == table


def test_contenders_are_of_one_size(tiny_init, tiny_pinn):
    with flagsaver.flagsaver(init=tiny_init):
        assert "Meta-PINN" not in study.contenders()
    with flagsaver.flagsaver(init=tiny_init, meta_pinn=tiny_pinn, beside=[tiny_init]):
        chosen = study.contenders()
        started = {name: contender.network(5.0, 0) for name, contender in chosen.items()}
    assert len(chosen) == 10
    beside = {started.pop(name).ranks for name in (tiny_init, f"{tiny_init} by SOAP")}
    assert beside == {(3,)}
    low_rank = started["LRPINN, random start"]
    dense = started["PINN, random start"].module
    assert (low_rank.module.network.width, low_rank.ranks) == (8, (3,))
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(started[name].params))
        for name in ("LRPINN, random start", "PINN, random start")
    ]
    assert dense.depth == 1 and abs(sizes[0] - sizes[1]) < 2 * dense.width + 8
    assert started["Meta-PINN"].kind == "pinn"
    pruned = {name for name, network in started.items() if network.is_pruned}
    kept = "Meta-LRPINN, hypernetwork kept"
    assert pruned == {name for name in started if "LRPINN" in name} - {kept}
    by_soap = {name for name, one in chosen.items() if one.optimiser is ml.SOAP}
    assert by_soap == {name for name in chosen if name.endswith("by SOAP")} != set()


@pytest.mark.slow  # test_ablate_meta trains by this method, too
@pytest.mark.usefixtures("only_meta")
def test_figure5_adapts_by_the_papers_method(experiment, tiny_init, monkeypatch):
    monkeypatch.setattr(reports, "direct_lines", stub_direct)
    monkeypatch.setattr("experiments.figure5.POLISHED_STEPS", (2,))
    options = {**TINY, "seeds": 1, "steps": 3, "init": tiny_init}
    out = experiment("figure5", **options)
    rows = rows_of(out / "history_own_output.csv")
    assert {row["case"] for row in rows} == {"layered 2 Hz"}
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    table = (out / "table.md").read_text()
    assert "| layered 2 Hz | Meta-LRPINN |" in table
    assert "AdamW on everything" in table
    assert (out / "figure.png").stat().st_size > 10_000
    # Solved exactly, the output layer of eight features does better than two steps.
    by_steps, solved = (float(row["relative_l2"]) for row in rows_of(out / "polish.csv"))
    assert solved < by_steps


@pytest.mark.usefixtures("only_meta")
def test_divergence_is_a_row(experiment, tiny_init, monkeypatch):
    def diverge(*_, **__):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(study, "solve", diverge)
    monkeypatch.setattr(reports, "direct_lines", stub_direct)
    out = experiment("layered", init=tiny_init, **TINY)
    rows = rows_of(out / "history_own_output.csv")
    assert [row["relative_l2"] for row in rows] == ["nan", "nan"]
    assert "| layered 2 Hz | Meta-LRPINN | diverged |" in (out / "table.md").read_text()
