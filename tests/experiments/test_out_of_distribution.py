"""Settings know what lies beyond training, and every contender is measured once."""

import csv

import numpy as np
import pytest

from experiments import out_of_distribution
from experiments.out_of_distribution import Setting

pytestmark = pytest.mark.usefixtures("quick_truth")

TINY = {
    "seeds": 2, "steps": 2, "points": 60, "frequencies": ["2.5"],
    "ood_velocity_scales": ["1.5"], "ood_frequency": 2.0,
}  # fmt: skip


# Compiles a program for every contender and size; the rules have tests of their own.
@pytest.mark.slow
def test_table_and_resumption(experiment, tiny_init, monkeypatch):
    out = experiment("out_of_distribution", init=tiny_init, **TINY)
    table = (out / "table.md").read_text()
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")][2:]
    assert [row[1].strip() for row in rows] == ["1.50–4.00", "2.25–6.00", "2.25–6.00"]
    assert [row[3].strip() for row in rows] == [
        "inside", "beyond in frequency and velocity", "beyond in velocity"
    ]  # fmt: skip
    assert "2 seeds" in table and "60 points" in table
    with open(out / "errors.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 4 * 2  # settings, contenders and seeds
    errors = {}
    for line in lines:
        errors.setdefault(line["contender"], []).append(float(line["relative_l2"]))
    assert np.all(np.isfinite(list(errors.values())))
    assert max(errors[out_of_distribution.PLANE_WAVES]) < 0.1
    # Seeds are sources, so that even what is not trained differs between them.
    first, second = errors[out_of_distribution.FEATURES][:2]
    assert first != second
    assert (out / "figure.png").stat().st_size > 0

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(out_of_distribution.study, "final_error", again)
    experiment("out_of_distribution", init=tiny_init, **TINY)
    assert (out / "table.md").read_text() == table


@pytest.mark.parametrize(
    ("scale", "frequency", "expected"),
    [
        (1.0, 5.0, "inside"),
        (1.0, 16.0, "beyond in frequency"),
        (0.7, 5.0, "beyond in velocity"),
        (1.5, 20.0, "beyond in frequency and velocity"),
    ],
)
def test_what_lies_beyond_training(scale, frequency, expected):
    assert Setting("velocity", scale, frequency).trained == expected


def test_negative_velocities_are_refused(experiment, tiny_init):
    with pytest.raises(ValueError, match="velocity scales must be positive"):
        experiment(
            "out_of_distribution",
            init=tiny_init,
            **{**TINY, "ood_velocity_scales": ["-1"]},
        )
