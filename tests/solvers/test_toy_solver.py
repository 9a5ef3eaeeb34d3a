"""A solver that a test adds: one class, and it is everywhere that solvers are."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import cli, generators
from meta_lrpinn.solvers import protocol, settings

SOURCES = np.array([[0.2, 0.05], [0.3, 0.1]])
RECEIVERS = np.array([[0.1, 0.2], [0.4, 0.3]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(settings.Solver):
    """δu = strength · f · v at the source, everywhere."""

    name: ClassVar[str] = "toy"

    strength: float = settings.option(1.0, "How strong it is.")

    def prepare_setup(self, setup):
        """Nothing to prepare."""
        values = self.strength * setup.frequency * (1 + 0j)

        def solve(model, distance=None):
            at_source = np.real(setup.background_velocities(model))[:, None]

            def evaluate(points):
                return values * at_source * np.ones(len(points))

            fields = evaluate(model.grid_points()).reshape(-1, *model.shape)
            return protocol.Solved(
                protocol.at_receivers(setup, evaluate, fields), evaluate=evaluate
            )

        return protocol.Prepared(setup, solve)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(settings.SOLVERS, "toy", Toy)


@pytest.fixture
def models():
    return [generators.random_velocity(seed, (9, 11), 0.05) for seed in range(2)]


def velocity(model):
    return np.real(model.complex_velocity_at(SOURCES))


def test_in_solve(models):
    field = ml.solve(models[0], 3.0, SOURCES, Toy(strength=2.0))
    assert field.solver == "toy" and field.settings == Toy(strength=2.0)
    expected = 6.0 * velocity(models[0])
    np.testing.assert_allclose(field.scattered[:, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(field.at(RECEIVERS)[:, 1], expected, rtol=1e-5)
    assert field.error_estimate is None and field.converged is None


def test_below_a_free_surface(models):
    field = ml.solve(models[0], 3.0, SOURCES, Toy(), free_surface=True)
    assert not np.any(field.scattered)  # even fields have no odd part


@pytest.mark.parametrize("receivers", [None, RECEIVERS])
def test_in_surveys(models, receivers, tmp_path):
    zarr = pytest.importorskip("zarr")
    arguments = models, [3.0, 4.0], SOURCES
    survey = ml.solve_survey(*arguments, settings=Toy(), receivers=receivers)
    for row, model in enumerate(models):
        first = survey.scattered[row, 1].reshape(2, -1)[:, 0]
        np.testing.assert_allclose(first, 4.0 * velocity(model), rtol=1e-5)
    assert np.all(np.isnan(survey.error_estimates)) and survey.converged is None
    out = tmp_path / "survey.zarr"
    ml.run_survey(*arguments, out, Toy(), receivers=receivers)
    stored = zarr.open_group(out, mode="r")["scattered"][:]
    np.testing.assert_array_equal(stored, survey.scattered)


def test_in_seismograms(models):
    traces = ml.time_traces(
        models[0], SOURCES, RECEIVERS, 4.0, record=0.4, settings=Toy(), snapshots=2
    )
    assert traces.solver == "toy" and traces.data.shape[:2] == (2, 2)
    assert np.all(np.isfinite(traces.data)) and traces.snapshots.shape == (2, 2, 9, 11)


def test_on_the_command_line(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ml.save_velocity("model.npz", models[0])
    where = ("--velocity=model.npz", "--frequency=3", "--source=0.2,0.05", "--json")
    assert cli.main(["solve", *where, "--solver=toy", "--strength=2"]) == 0
    assert json.loads(capsys.readouterr().out)["solver"] == "toy"
    expected = 6.0 * velocity(models[0])[0]
    scattered = ml.load_case("wavefield.npz").scattered
    np.testing.assert_allclose(scattered, expected, rtol=1e-5)
    assert cli.main(["solve", *where, "--strength=2"]) == 2
    assert "--strength is no option of --solver=plane_waves" in capsys.readouterr().err
    assert cli.main(["solve", "--help"]) == 0
    assert "How strong it is. Of toy." in capsys.readouterr().out


def test_it_has_no_gradient(models):
    prepared = Toy().prepare(models[0], 3.0, SOURCES, RECEIVERS)
    with pytest.raises(ValueError, match="no data to differentiate"):
        prepared.data(models[0].velocity)
