"""Starts of the ablation differ as they should, and failures are told."""

import csv

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import ablate_meta

pytestmark = pytest.mark.usefixtures("quick_truth")

TINY = {
    "seeds": 2, "steps": 2, "points": 60, "frequencies": ["2"],
    "tuned_first_scales": ["4", "8"], "tuned_sigma_scales": ["1"],
}  # fmt: skip


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow  # compiles every start and method; test_layered trains as well
def test_every_start_and_method_is_reported(experiment, tiny_init, monkeypatch):
    methods = tuple(ablate_meta.METHODS)
    out = experiment("ablate_meta", init=tiny_init, **TINY)
    table = (out / "table.md").read_text()
    for method in methods:
        # Start, two seeds, and the columns of numbers.
        own = [line for line in table.splitlines() if f"| {method} |" in line]
        assert len(own) == 4 + (method == "published")  # its own network
        starts = {row["contender"] for row in _rows(out / f"history_{method}.csv")}
        assert len(starts) == len(own)
    assert (out / "figure.png").stat().st_size > 0
    diagnosis = {row["start"]: row for row in _rows(out / "diagnosis.csv")}
    assert len(diagnosis) == 5
    for name, row in diagnosis.items():
        assert np.isfinite(float(row["pde_loss"])) and float(row["output"]) > 0
        width = 320 if name == ablate_meta.PUBLISHED else 8
        assert 1 <= int(row["rank"]) <= int(row["width"]) == width
    # Xavier on inputs in km: long waves, and features that vanish.
    published = diagnosis["random, published"]
    ours = diagnosis["random, orthonormal"]
    assert float(published["wavenumber"]) < 0.5 * float(ours["wavenumber"])
    assert float(published["features"]) < 0.3 * float(ours["features"])

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(ablate_meta.study, "adapt", again)
    monkeypatch.setattr(ablate_meta, "diagnose", again)
    experiment("ablate_meta", init=tiny_init, **TINY)
    assert (out / "table.md").read_text() == table


def test_more_than_one_frequency_is_refused(experiment, tiny_init):
    with pytest.raises(ValueError, match="takes one of --frequencies, got 2"):
        experiment("ablate_meta", init=tiny_init, frequencies=["3", "4"])


def test_tuned_start_is_the_best_of_its_grid(experiment, tiny_init):
    from meta_lrpinn import generators
    from meta_lrpinn.physics import problem

    with flagsaver.flagsaver(init=tiny_init, **TINY):
        unit = ablate_meta.unit_problem(generators.builtin("layered"), 2.0)
        network, (first, sigma) = ablate_meta.tuned(unit, 3)
        params = network.params
        points = problem.sample_points(jax.random.key(3), unit, 60)
        other = {4.0: 8.0, 8.0: 4.0}[first]
        rescaled = ablate_meta.rescaled(params, other / first, 1.0, 2)
        assert sigma == 1.0
        own, others = (
            ablate_meta.best_residual(network.module, values, unit, points)
            for values in (params, rescaled)
        )
        assert own <= others < 1


@pytest.mark.parametrize(
    ("method", "row", "expected"),
    [
        ("published", {"held_out": 2.0, "relative_l2": 0.5}, ""),
        ("published", {"held_out": np.nan, "relative_l2": np.nan}, "loss not finite"),
        ("published", {"held_out": 1e11, "relative_l2": 9.0}, "loss 1.0e+11"),
        ("published", {"held_out": 2.0, "relative_l2": 1.5}, "error ≥ 99 %"),
        # An output of nearly zero, whichever side of one it scatters to.
        ("published", {"held_out": 1.0, "relative_l2": 1.0001}, "error ≥ 99 %"),
        ("published", {"held_out": 1.0, "relative_l2": 0.9999}, "error ≥ 99 %"),
        ("own_output", {"held_out": 0.2, "relative_l2": 0.5}, ""),
        ("own_output", {"held_out": 100.0, "relative_l2": 0.5}, "loss 1.0e+04"),
    ],
)
def test_failures(method, row, expected):
    assert ablate_meta.failure(method, [row], 1.0) == expected
