"""Overthrust, adapted for two steps on a tiny network."""

import csv

import numpy as np
import pytest

from experiments import reports, study
from meta_lrpinn import generators

TINY = {"frequencies": ["2"], "points": 40, "steps": 2, "seeds": 1}


@pytest.fixture
def data(tmp_path):
    """A data folder with a thrust belt in the place of Overthrust."""
    model = generators.thrust_belt(0, shape=(101, 391))
    np.savez(
        tmp_path / "velocity_models.npz",
        overthrust=model.velocity,
        overthrust_spacing=model.spacing,
    )
    return str(tmp_path)


@pytest.mark.slow  # test_layered has the study, with one model
def test_both_models_are_adapted_and_shown(experiment, tiny_init, data, monkeypatch):
    meta = {"Meta-LRPINN": study.Contender(study.saved(tiny_init))}
    monkeypatch.setattr(study, "contenders", lambda *_: meta)
    monkeypatch.setattr(
        reports, "direct_lines", lambda _: {"plane waves": (0.01, 0.5, 9, 2.0)}
    )
    out = experiment("overthrust", init=tiny_init, data=data, **TINY)
    with open(out / "history_own_output.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    cases = {row["case"] for row in rows}
    assert cases == {"Overthrust smoothed, 2 Hz", "Overthrust as it is, 2 Hz"}
    assert np.isfinite([float(row["relative_l2"]) for row in rows]).all()
    table = (out / "table.md").read_text()
    for case in cases:
        assert f"| {case} | Meta-LRPINN |" in table
        assert f"| {case} | plane waves |" in table
    assert "Gaussian of 100 m" in table
    for figure in ("figure", "seconds", "loss", "wavefields"):
        assert (out / f"{figure}.png").stat().st_size > 10_000


def test_the_window_is_moved_to_the_origin(experiment, tiny_init, data, monkeypatch):
    models = []

    def remember(model, frequency):
        models.append(model)
        raise ValueError("seen")

    monkeypatch.setattr(study, "known_case", remember)
    with pytest.raises(ValueError, match="seen"):
        experiment("overthrust", init=tiny_init, data=data, overthrust_left=1.0, **TINY)
    smoothed = models[0]
    sharp = generators.thrust_belt(0, shape=(101, 391)).velocity[:91, 40:131]
    assert smoothed.shape == (91, 91)
    np.testing.assert_array_equal(smoothed.lower, 0)
    np.testing.assert_allclose(smoothed.upper, 2.25)
    assert 0 < np.abs(smoothed.velocity - sharp).max() < 2
    assert np.abs(np.diff(smoothed.velocity, axis=0)).max() < (
        0.5 * np.abs(np.diff(sharp, axis=0)).max()
    )
