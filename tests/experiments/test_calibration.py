"""Estimates beside errors: what is counted, and which models there are."""

import csv

import chex
import numpy as np
import pytest

from experiments import calibration


def rows(ratios, kind="some"):
    return [{"kind": kind, "error": 0.01, "estimate": 0.01 * ratio} for ratio in ratios]


def test_shares_are_counted_by_kind_and_in_all():
    text = calibration.report(
        [*rows([0.4, 0.6, 1.0, 3.0]), *rows([1.0, 1.9, 2.1], kind="other")]
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")]
    assert lines[2:] == [
        ["some", "4", "1.00%", "0.80", "0.40", "3.00", "50%", "25.0%"],
        ["other", "3", "1.00%", "1.90", "1.00", "2.10", "67%", "0.0%"],
        ["all", "7", "1.00%", "1.00", "0.40", "3.00", "57%", "14.3%"],
    ]


def measured(name, seed, sources):
    """Two cases whose estimates are known."""
    return [
        {"source": 0, "error": 0.01, "estimate": 0.02},
        {"source": 1, "error": 0.01, "estimate": 0.001},
    ]


def test_records_and_table(experiment, monkeypatch):
    monkeypatch.setattr(calibration, "measure", measured)
    kinds = ["gradients", "guide 1.5 in 4"]
    out = experiment("calibration", kinds=kinds, models=3)
    with open(out / "errors.csv", newline="") as file:
        found = [(row["kind"], row["model"], row["source"]) for row in csv.DictReader(file)]
    expected = [(k, str(m), str(s)) for k in kinds for m in range(3) for s in range(2)]
    assert found == expected
    assert "| all | 12 |" in (out / "table.md").read_text()
    assert (out / "figure.png").stat().st_size > 10_000


def test_kinds_are_those_of_the_list(experiment):
    with pytest.raises(ValueError, match="there is no kind 'other'"):
        experiment("calibration", kinds=["other"])


@pytest.mark.parametrize("name", calibration.KINDS)
def test_models_of_a_kind_differ_and_share_their_extremes(name):
    first, second = (calibration.make_cases(name, seed, 3) for seed in (0, 1))
    again = calibration.make_cases(name, 0, 3)
    velocities = [cases[0].model.velocity for cases in (first, second, again)]
    assert np.any(velocities[0] != velocities[1])
    np.testing.assert_array_equal(velocities[0], velocities[2])
    assert first[0].source != first[1].source
    for cases in (first, second):
        assert cases[0].model.minimum == first[0].model.minimum
        assert cases[0].model.shape == first[0].model.shape
        for case in cases:
            case.model.check_contains(case.source)
        is_flat = np.all(np.ptp(cases[0].model.velocity, axis=1) == 0)
        assert is_flat == calibration.KINDS[name].is_flat


def test_measurement_is_that_of_the_default_solver(monkeypatch):
    """Against another truth the error is another, the estimate the same."""
    asked = []

    class Field:
        def __init__(self, scale, sources):
            self.scattered = scale * np.ones((len(sources), 3, 3))
            self.error_estimates = np.linspace(0.1, 0.2, len(sources))
            self.stats = type("Statistics", (), {"unknowns": 9})

    def solve(model, frequency, sources, settings):
        assert settings == calibration.ml.PlaneWaves()
        asked.append(sources)
        return Field(1.1, sources)

    monkeypatch.setattr(calibration.ml, "solve", solve)
    monkeypatch.setattr(
        calibration.ml, "reference_wavefield", lambda m, f, s, tolerance: Field(1.0, s)
    )
    found = calibration.measure("random, smooth", 0, 2)
    chex.assert_shape(asked[0], (2, 2))
    np.testing.assert_allclose([row["error"] for row in found], 0.1)
    np.testing.assert_allclose([row["estimate"] for row in found], [0.1, 0.2])
