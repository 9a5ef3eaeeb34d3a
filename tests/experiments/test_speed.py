"""Both solvers stand in the table of every setting, with their errors."""

import csv

import pytest


# Solves whole models by both solvers, cubes too.
@pytest.mark.slow
def test_every_setting_has_both_solvers(experiment, monkeypatch):
    from experiments import speed

    monkeypatch.setattr(speed, "_SHAPE", (15, 15))
    monkeypatch.setattr(speed, "_SOURCE", speed._SOURCE * [0.2, 1])
    out = experiment("speed", many=2)
    with open(out / "seconds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = ["1 wavefield"] * 2 + ["2 sources"] * 2 + ["2 velocities"] * 2
    assert [row["setting"] for row in rows] == expected
    for row in rows:
        assert float(row["first"]) > 0 and float(row["seconds"]) > 0
        limit = 0.05 if row["solver"] == "plane waves" else 0.01
        assert 0 < float(row["worst_error"]) < limit
    assert "| 2 velocities | finite differences |" in (out / "table.md").read_text()
    assert (out / "figure.png").stat().st_size > 10_000
