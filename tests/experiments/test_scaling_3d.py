"""The sphere is solved in 3D, and the cost of a meta-step follows the laws fitted."""

import csv

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import scaling_3d

TINY = {
    "seeds": 1, "steps": 1, "points": 40, "frequencies": ["2"], "cube_side": 0.8,
    "cube_spacing": 0.1, "cube_unknowns": ["300"], "cube_width": 8, "cube_points": 60,
    "scaling_points": 20, "scaling_width": 3, "scaling_rank": 2, "scaling_depth": 1,
}  # fmt: skip


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def known_cost(seed, objective, ndim, points, width, rank):
    seconds = 1e-6 * points**1.1 * width**0.9 * rank**0.2 * ndim
    return [{"seconds": seconds, "bytes": 30 * points * width}]


# Compiles steps of several networks in 3D.
@pytest.mark.slow
def test_sphere_and_laws_are_reported_once(experiment, monkeypatch):
    monkeypatch.setattr(scaling_3d, "measure_step", known_cost)
    out = experiment("scaling_3d", **TINY)
    table = (out / "table.md").read_text()
    (waves,) = _rows(out / "plane_waves.csv")
    assert float(waves["relative_l2"]) < 0.25
    history = _rows(out / "history_galerkin.csv")
    assert np.isfinite(float(history[-1]["relative_l2"]))
    # Two objectives, two dimensions, seven sizes to fit to and one to try.
    assert len(_rows(out / "steps.csv")) == 2 * 2 * 8
    laws = [line for line in table.splitlines() if "D | seconds |" in line]
    assert len(laws) == 4
    assert all("| 1.10 | 0.90 | 0.20 |" in line for line in laws)
    assert "EXTRAPOLATED, not measured" in table
    assert (out / "figure.png").stat().st_size > 0

    def again(*_, **__):
        raise AssertionError("measured again")

    for name in ("measure_step", "plane_waves"):
        monkeypatch.setattr(scaling_3d, name, again)
    monkeypatch.setattr(scaling_3d.study, "adapt", again)
    experiment("scaling_3d", **TINY)
    assert (out / "table.md").read_text() == table


@pytest.mark.slow  # compiles a step twice, for its time and for its bytes
def test_a_step_is_timed_and_weighed():
    scaling_3d.compiled_step.cache_clear()
    with flagsaver.flagsaver(**TINY):
        setting = {"objective": "paper", "ndim": 2, "width": 4, "rank": 2}
        (row,) = scaling_3d.measure_step(0, points=500, **setting)
    scaling_3d.compiled_step.cache_clear()
    # At least what one layer is at all points, in single precision.
    assert row["seconds"] > 0 and row["bytes"] > 4 * 500 * 4


def test_points_of_the_cube():
    """30 points a side at 1.5 km/s; S waves are √3 times as short."""
    assert scaling_3d.extrapolated_points("acoustic", layer=False) == 30**3
    ratio = scaling_3d.extrapolated_points("elastic", layer=False) / 30**3
    assert ratio == pytest.approx(3**1.5, rel=1e-4)
    assert scaling_3d.extrapolated_points("acoustic", layer=True) > 2 * 30**3
