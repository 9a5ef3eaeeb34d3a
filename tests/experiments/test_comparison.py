"""The comparison's table has every family, and a basis bounds what it spans."""

import csv

import numpy as np
import pytest

from meta_lrpinn import VelocityModel


# Compiles a program for every family and size.
@pytest.mark.slow
def test_every_family_at_every_size(experiment, tiny_init, monkeypatch):
    from experiments import comparison

    monkeypatch.setattr(comparison, "_SHAPE", (21, 21))
    monkeypatch.setattr(comparison, "_SOURCE", (0.2, 0.025))
    monkeypatch.setattr(comparison, "_RATIOS", (1.1, 1.6))
    monkeypatch.setattr(comparison, "_THINNER_RATIOS", (1.3,))
    settings = {
        "init": tiny_init,
        "frequencies": ["4"],
        "velocities": 2,
        "fractions": ["0.5"],
        "snapshot_models": 10,
    }
    windows = {"half space": (0.0, 5.0), "gradient": (0.1, 4.0)}
    depth = np.arange(21)[:, None]
    monkeypatch.setattr(
        comparison,
        "published_models",
        lambda: (
            (name, VelocityModel(2 + (depth > 9) + slope * depth + np.zeros(21), 0.025),
             frequency, np.array([0.2, 0.025]))
            for name, (slope, frequency) in windows.items()
        ),
    )  # fmt: skip
    settings["published"] = True
    out = experiment("comparison", **settings)
    with open(out / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"solvers", "best basis", *windows}
    rows = [row for row in rows if row["part"] not in windows]
    families = {row["family"]: [] for row in rows}
    for row in sorted(rows, key=lambda row: row["velocity"]):
        families[row["family"]].append(float(row["error"]))
    assert set(families) == {
        "lattice",
        "lattice, layer as learned",
        "learned",
        "low discrepancy waves",
        "random waves",
        "learned + waves",
        "finite differences",
        "best linear basis",
    }
    assert len(families["lattice"]) == 2 * 2  # sizes and velocities
    best = families["best linear basis"]
    best = best[: len(best) // 2]  # of one velocity
    assert best == sorted(best, reverse=True) and best[-1] < best[0] / 2
    table = (out / "table.md").read_text()
    assert all(name in table for name in (*families, *windows))

    # A second call finds everything on file.
    before = (out / "errors.csv").read_bytes()
    monkeypatch.setattr(comparison, "measure", None)
    monkeypatch.setattr(comparison, "best_basis", None)
    experiment("comparison", **settings)
    assert (out / "errors.csv").read_bytes() == before
