"""The networks are meta-trained alike, once, and all are reported."""

import csv
import dataclasses

import numpy as np
import pytest
from absl.testing import flagsaver

import meta_lrpinn as ml
from experiments import baselines
from meta_lrpinn import generators
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import evaluation, pipeline

TINY = {
    "seeds": 1, "steps": 1, "points": 50, "frequencies": ["2"], "meta_iterations": 1,
    "meta_width": 8, "meta_depth": 1, "meta_rank": 3, "meta_points": 50,
    "meta_velocities": 1, "meta_tasks": 1, "meta_features": 8, "meta_task_set": 1,
}  # fmt: skip


def small_case(_, frequency):
    model = generators.random_velocity(3, (11, 11), 0.05)
    source = np.array([0.3, 0.05])
    settings = ml.FiniteDifferences(tolerance=None, refinement=1)
    field = ml.solve(model, frequency, source, settings)
    return Case(model=model, frequency=frequency, source=source, scattered=field.scattered)


def quick_adapt(case, contender, method, steps, seed):
    """What the start is worth, without a step."""
    del steps
    costs = {"parameters": 1, "drawn": np.nan, "memory": 1.0}
    settings = contender.settings(case, method, 0, seed)
    field = ml.solve(case.model, case.frequency, case.source, settings)
    error = ml.relative_l2(field.scattered, case.scattered)
    row = {"step": 0, "seconds": 0.0, "relative_l2": error, **costs}
    return [{**row, "held_out": 0.0, "error_estimate": error}]


def only(monkeypatch, name):
    monkeypatch.setattr(baselines, "NETWORKS", {name: baselines.NETWORKS[name]})


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """A small case, and none of the held tasks' wavefields."""
    monkeypatch.setattr(baselines.study, "known_case", small_case)
    monkeypatch.setattr(
        evaluation,
        "make_evaluation",
        lambda *_: lambda params, step: {"error": 1.0 / (1 + step)},
    )


@pytest.mark.slow  # compiles a meta-training
def test_networks_are_trained_and_adapted_once(experiment, monkeypatch):
    only(monkeypatch, "Meta-PINN")
    monkeypatch.setattr(baselines.study, "adapt", quick_adapt)
    out = experiment("baselines", **TINY)
    table = (out / "table.md").read_text()
    with open(out / "history_galerkin.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["case"], row["contender"]) for row in rows}
    assert len(found) == 2 * 2  # two cases; a network and its random start
    assert all(np.isfinite(float(row["relative_l2"])) for row in rows)
    for case, contender in found:
        assert f"| {case} | {contender} |" in table
    for name in baselines.NETWORKS:
        assert f"| {name} | " in table
    assert "steps to" not in table  # none is made
    assert (out / "figure.png").stat().st_size > 0

    def again(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(pipeline, "meta_train", again)
    monkeypatch.setattr(baselines.study, "adapt", again)
    experiment("baselines", **TINY)
    assert (out / "table.md").read_text() == table
    with pytest.raises(ValueError, match=r"network\.width was \d+, is \d+"):
        experiment("baselines", **{**TINY, "meta_width": 9})


def test_only_the_network_differs(experiment):
    with flagsaver.flagsaver(**TINY):
        whole = [baselines.configuration(name, 1) for name in baselines.NETWORKS]
        first = whole[0]
        for other in whole[1:]:
            assert dataclasses.replace(other, network=first.network) == first
            assert other.network.depth == first.network.depth == 1
        assert first.network.width == 8
        low_rank, *dense = map(baselines.number_of_parameters, baselines.NETWORKS)
        assert all(low_rank[0] <= own[0] < 1.2 * low_rank[0] for own in dense)
        # First layer 4 × 8, UV 2 × 24, output 9 × 2, three σ instead of the FEH.
        assert baselines.number_of_parameters("Meta-LRPINN")[1] == 32 + 48 + 18 + 3


def test_a_diverged_training_is_a_row(experiment, monkeypatch):
    def diverge(*_, **__):
        raise baselines.TrainingDiverged("loss is not finite at step 1")

    only(monkeypatch, "Meta-PINN, frequency input")
    monkeypatch.setattr(pipeline, "meta_train", diverge)
    monkeypatch.setattr(baselines, "cases", lambda: {})
    monkeypatch.setattr(baselines.histories, "errors", lambda curves: "")
    out = experiment("baselines", **TINY)
    table = (out / "table.md").read_text()
    row = next(line for line in table.splitlines() if "frequency input" in line)
    assert "diverged" in row and row.endswith("| 1/1 |")
