"""Sharp models, adapted for two steps and six on a tiny network."""

import csv
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from experiments import reports, sharp_models, study
from experiments.sharp_models import META, RANDOM
from meta_lrpinn import generators


@pytest.fixture
def data(tmp_path):
    """A data folder of one model, which stands for all."""
    model = generators.salt_body(0, shape=(151, 201))
    arrays = {}
    for name, _, _ in sharp_models.WINDOWS.values():
        arrays[name] = model.velocity
        arrays[f"{name}_spacing"] = model.spacing
    np.savez(tmp_path / "velocity_models.npz", **arrays)
    return str(tmp_path)


@pytest.mark.slow  # test_layered has the study, with one model
def test_all_models_stand_beside_the_layered_one(experiment, tiny_init, data, monkeypatch):
    windows = {"Hess salt": ("hess", 1.0, 0.5)}
    monkeypatch.setattr(sharp_models, "WINDOWS", windows)
    adapted = {name: study.Contender(study.saved(tiny_init)) for name in (META, RANDOM)}
    monkeypatch.setattr(study, "contenders", lambda *_: adapted)
    monkeypatch.setattr(
        reports, "direct_lines", lambda _: {"plane waves": (0.01, 0.5, 9, 2.0)}
    )
    options = {"frequencies": ["2"], "points": 40, "steps": 2, "seeds": 2}
    out = experiment("sharp_models", init=tiny_init, data=data, **options)
    with open(out / "history_own_output.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    cases = ["layered 2 Hz", "Hess salt, smoothed, 2 Hz", "Hess salt, sharp, 2 Hz"]
    assert list(dict.fromkeys(row["case"] for row in rows)) == cases
    adapted = {(row["contender"], row["steps"]) for row in rows}
    assert adapted == {(META, "2"), (META, "6"), (RANDOM, "2")}
    assert np.isfinite([float(row["relative_l2"]) for row in rows]).all()

    ends = [
        float(row["relative_l2"])
        for row in rows
        if (row["case"], row["contender"], row["steps"], row["step"])
        == (cases[0], META, "2", "2")
    ]
    table = (out / "table.md").read_text()
    assert f"steps to {1.1 * np.mean(ends):.2%}, of 6" in table
    for case in cases:
        assert f"| {case} |" in table
    for figure in ("figure", "seconds", "loss"):
        assert (out / f"{figure}.png").stat().st_size > 10_000


def test_steps_to_the_level_are_of_each_schedule():
    def runs(*errors):
        return [
            [
                {"step": step, "seconds": 0.1 * step, "relative_l2": error}
                for step, error in enumerate(errors)
            ]
        ]

    short = {("soft", META): runs(0.5, 0.1), ("hard", META): runs(0.5, 0.2)}
    short |= {(case, RANDOM): runs(0.9, 0.8) for case in ("soft", "hard")}
    long = {
        ("soft", META): runs(0.5, 0.3, 0.1, 0.1),
        ("hard", META): runs(0.5, 0.4, 0.3, 0.105),
    }
    assert sharp_models.level(short, "soft") == pytest.approx(0.11)
    lines = sharp_models.pace({"soft": None, "hard": None}, short, long, 1).split("\n")
    assert lines[-2].split(" | ")[-2:] == ["1", "2 |"]
    assert lines[-1].split(" | ")[-2:] == ["> 1", "3 |"]


def test_windows_of_the_published_models():
    if not (Path(flags.FLAGS.data) / "velocity_models.npz").exists():
        pytest.skip("the data folder is absent")
    for name, window in sharp_models.WINDOWS.items():
        sharp = study.square_window(*window)
        smooth = study.square_window(*window, smoothing=0.1)
        assert sharp.shape == smooth.shape == (91, 91), name
        jumps = [np.abs(np.diff(m.velocity, axis=0)).max() for m in (sharp, smooth)]
        assert jumps[0] > 2.5 * jumps[1]
        assert 1.39 < sharp.minimum < 2.1
        assert sharp.maximum > 3.5
