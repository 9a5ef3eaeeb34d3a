"""The table of errors, estimates and seconds, on two small cases."""

import csv

import numpy as np
import pytest

from experiments import trust


@pytest.fixture
def small_cases(monkeypatch):
    gradient = np.linspace(1.5, 2.0, 6)
    cases = {
        "small": trust.Case(trust.along_x(gradient, 7, 0.05), 4.0, (0.1, 0.05)),
        "shifted": trust.Case(
            trust.along_x(np.full(6, 2.0), 7, 0.05), 4.0, (0.1, 0.05), 1.9
        ),
    }
    monkeypatch.setattr(trust, "exact_cases", lambda: cases)
    differences = trust.differences
    fast = {"finite differences": lambda case: differences(case, 3e-3)}
    fast["refusing"] = refuse
    monkeypatch.setattr(trust, "solvers", lambda: fast)


def refuse(case):
    raise ValueError("too large")


def test_table(experiment, small_cases, tmp_path, capsys):
    out = experiment("trust", data=str(tmp_path))
    with open(out / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["small", "small", "shifted", "shifted"]
    known = [row for row in rows if row["solver"] == "finite differences"]
    assert all(float(row["error"]) < 3e-3 for row in known)
    assert float(known[0]["estimate"]) > 0 and known[0]["converged"] == "True"
    table = (out / "table.md").read_text()
    assert "| small |" in table and table.count("refused") == 2
    assert (out / "figure.png").stat().st_size > 10_000
    assert "left out: there is no" in capsys.readouterr().out  # the published data


def test_a_finished_table_is_not_measured_again(experiment, small_cases, monkeypatch):
    first = (experiment("trust", cases=["small"]) / "table.md").read_text()
    monkeypatch.setattr(trust, "measure", refuse)
    assert (experiment("trust", cases=["small"]) / "table.md").read_text() == first


def test_cases_are_those_of_the_list(experiment):
    with pytest.raises(ValueError, match="there is no case 'other'"):
        experiment("trust", cases=["other"])
    for name, case in trust.exact_cases().items():
        case.model.check_contains(case.source)
        assert case.model.minimum > 0, name


def test_the_truth_is_that_of_the_background():
    """Homogeneous seen from another velocity: the closed form."""
    case = trust.exact_cases()["homogeneous 2.0 from 1.9"]
    points = case.model.grid_points()
    expected = trust.reference.shifted_background(
        points, case.frequency, np.array(case.source), 2.0, 1.9
    )
    np.testing.assert_allclose(trust.exact(case).ravel(), expected, atol=1e-12)
