"""Settings know what lies beyond training, and every contender is measured once."""

import csv

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import out_of_distribution, reports
from experiments.out_of_distribution import Setting

pytestmark = pytest.mark.usefixtures("quick_truth")

OTHER = "LRPINN, random start"
TINY = {
    "seeds": 2, "steps": 2, "points": 60, "frequencies": ["2.5"],
    "ood_velocity_scales": ["1.5"], "ood_frequency": 2.0,
}  # fmt: skip


@pytest.mark.slow  # compiles two networks' steps; test_layered has the study
def test_table_and_resumption(experiment, tiny_init, monkeypatch):
    direct = {"plane waves": (0.01, 0.5, 9, 2.0)}
    monkeypatch.setattr(reports, "direct_lines", lambda _: direct)
    out = experiment("out_of_distribution", init=tiny_init, **TINY)
    table = (out / "table.md").read_text()
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")][2:5]
    assert [row[1].strip() for row in rows] == ["1.50–4.00", "2.25–6.00", "2.25–6.00"]
    assert [row[3].strip() for row in rows] == [
        "inside", "beyond in frequency and velocity", "beyond in velocity"
    ]  # fmt: skip
    with open(out / "history_own_output.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 * 2 * 3  # settings, contenders, seeds and records
    assert np.isfinite([float(line["relative_l2"]) for line in lines]).all()
    assert (out / "figure.png").stat().st_size > 0

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(out_of_distribution.study, "adapt", again)
    experiment("out_of_distribution", init=tiny_init, **TINY)
    assert (out / "table.md").read_text() == table


def test_a_field_that_degrades_is_seen(parsed):
    """The smallest error on the way, its step, and the one at the end."""
    setting = Setting(1.0, 12.0)
    rows = [{"step": i, "relative_l2": e} for i, e in enumerate((1.0, 0.6, 0.9))]
    curves = {(setting.name, name): [rows] for name in ("Meta-LRPINN", OTHER)}
    with flagsaver.flagsaver(frequencies=["12"], ood_velocity_scales=[]):
        row = out_of_distribution.report(curves).splitlines()[2]
    cells = [cell.strip() for cell in row.split("|")][4:8]
    assert cells == ["60 %", "1", "90 %", "60 %"]


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
    assert Setting(scale, frequency).trained == expected


def test_negative_velocities_are_refused(experiment, tiny_init):
    with pytest.raises(ValueError, match="velocity scales must be positive"):
        experiment(
            "out_of_distribution",
            init=tiny_init,
            **{**TINY, "ood_velocity_scales": ["-1"]},
        )
