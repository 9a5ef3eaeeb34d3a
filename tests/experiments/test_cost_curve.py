"""Curves of seconds against error, on one small case."""

import csv

import numpy as np
import pytest

import meta_lrpinn as ml
from experiments import cost_curve, trust


@pytest.fixture
def small_case(monkeypatch):
    model = trust.along_x(np.linspace(1.5, 2.0, 6), 7, 0.05)
    case = trust.Case(model, 4.0, (0.1, 0.05))

    def absent():
        raise FileNotFoundError("there is no file")

    cases = {"small": lambda: (case, trust.exact(case)), "published": absent}
    monkeypatch.setattr(cost_curve, "make_cases", lambda: cases)
    runs = [
        cost_curve.Run("finite differences", f"{t:g}", ml.FiniteDifferences(tolerance=t))
        for t in (1e-2, 1e-3)
    ]
    refused = ml.FiniteDifferences(tolerance=None, refinement=10_000)
    runs.append(cost_curve.Run("too fine", "10000", refused))
    monkeypatch.setattr(cost_curve, "runs", lambda: runs)


def test_curve(experiment, small_case, capsys):
    out = experiment("cost_curve")
    with open(out / "seconds.csv", newline="") as file:
        loose, tight, refused = csv.DictReader(file)
    assert float(tight["error"]) < 1e-3 and float(loose["error"]) < 1e-2
    assert float(tight["seconds"]) > 0
    assert refused["refusal"] and not refused["error"]
    table = (out / "table.md").read_text()
    assert "| small | too fine | 10000 | refused |" in table
    assert (out / "figure.png").stat().st_size > 0
    assert "left out: there is no file" in capsys.readouterr().out


def test_cases_are_those_of_the_list(experiment):
    with pytest.raises(ValueError, match="there is no case 'other'"):
        experiment("cost_curve", curve_cases=["other"])


def test_every_solver_has_a_curve():
    solvers = dict.fromkeys(run.solver for run in cost_curve.runs())
    assert list(solvers) == [
        "plane waves", "finite differences", "learned features", "own output"
    ]  # fmt: skip
