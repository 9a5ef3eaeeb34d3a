"""Steps and seconds from the meta-initialisation and from a random start."""

import csv

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import adaptation, common, histories, study
from meta_lrpinn import generators

TINY = {"seeds": 2, "points": 60, "galerkin_steps": 2, "methods": ["galerkin"]}


@pytest.fixture
def data(tmp_path):
    """A data folder with small models in the place of the published cases."""
    model = generators.random_velocity(0, (21, 21), 0.05)
    known = study.known_case(model, 2.0).scattered
    case = {"velocity": model.velocity, "spacing": 0.05, "frequency": 2.0}
    one, three = adaptation.CASES.values()
    source = study.top_source(model)
    np.savez(tmp_path / one, source=source, scattered=known, **case)
    np.savez(
        tmp_path / three,
        source=np.stack([source - [0.2, 0], source, source + [0.2, 0]]),
        scattered=np.stack([2 * known, known, 3 * known]),
        **case,
    )
    return str(tmp_path)


@pytest.mark.slow  # test_layered trains and reports by the same functions
def test_both_starts_are_measured_once(experiment, tiny_init, data, monkeypatch):
    flags = {"init": tiny_init, "data": data, **TINY}
    out = experiment("adaptation", **flags)
    with open(out / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = {(row["case"], row["start"], row["seed"]) for row in rows}
    assert len(runs) == 2 * 2 * 2
    assert {row["points"] for row in rows} == {"60"}
    # The meta start has half the steps of the random one.
    assert max(int(r["step"]) for r in rows if r["start"] == "meta") == 1
    assert max(int(r["step"]) for r in rows if r["start"] == "random") == 2
    # Of three sources the middle one: then both cases are the same.
    errors = {
        case: [r["relative_l2"] for r in rows if r["case"] == case]
        for case in adaptation.CASES
    }
    one, other = errors.values()
    np.testing.assert_allclose(np.array(one, float), np.array(other, float), rtol=1e-6)
    table = (out / "table.md").read_text()
    assert table.count("| galerkin |") == 2 * len(adaptation.THRESHOLDS)
    assert (out / "figure.png").stat().st_size > 10_000

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(study, "adapt", again)
    experiment("adaptation", **flags)
    assert (out / "table.md").read_text() == table


def test_what_is_returned_has_the_smallest_estimate_or_else_the_smallest_loss():
    def rows(*estimates):
        return [
            {"held_out": loss, "relative_l2": error, "error_estimate": estimate}
            for loss, error, estimate in zip(
                (2.0, 1.0, np.nan), (0.1, 0.3, np.nan), estimates, strict=True
            )
        ]

    assert histories.returned(rows(np.nan, np.nan, np.nan))["relative_l2"] == 0.3
    assert histories.returned(rows(0.2, 0.4, np.nan))["relative_l2"] == 0.1
    assert histories.error_returned([rows(0.2, 0.4, np.nan)[:2]]) == "10 %"
    assert histories.error_returned([rows(0.2, 0.4, np.nan)]) == "diverged"


def test_a_case_of_one_source_stays_as_it_is(data):
    one = adaptation.CASES["layered 5 Hz"]
    with flagsaver.flagsaver(data=data):
        source = adaptation.load_case(one).source
        np.testing.assert_array_equal(source, common.published_case(one).source)
    assert source.shape == (2,)
