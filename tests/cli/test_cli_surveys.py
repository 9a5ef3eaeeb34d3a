"""The commands survey and traces, and several frequencies of solve."""

import argparse
import dataclasses
import json

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import cli, generators
from meta_lrpinn.cli import parsing
from meta_lrpinn.files import cases
from meta_lrpinn.linear.lattice import solution

xarray = pytest.importorskip("xarray")
pytest.importorskip("zarr")

SOLVER = ("--solver=finite_differences", "--refinement=1")
VELOCITIES = [generators.random_velocity(seed, (11, 11), 0.05) for seed in range(3)]


SOLVE = ("solve", "--velocity=model.npz", "--frequency=5")
SEVERAL = ("solve", "--velocity=model.npz", "--frequencies=4,5")
TRACES = (
    "traces", "--velocity=model.npz", "--source=0.1,0.05", "--receivers=0.3,0.05",
    "--record=0.5", "--peak_frequency=3",
)  # fmt: skip
VOLUME = (
    "--velocity=volume.npz", "--source=0.1,0.1,0.05", "--receivers=0.2,0.1,0.05",
)  # fmt: skip
# Folders with something in them, where files would be written.
TAKEN = (
    "taken.zarr", "taken.sgy", "taken.gif", "taken.nc", "drawn.png", "told.html",
    "many_5Hz.zarr", "many_5Hz.png",
)  # fmt: skip


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with velocities, to work in."""
    monkeypatch.chdir(tmp_path)
    np.save("models.npy", np.stack([model.velocity for model in VELOCITIES]))
    ml.save_velocity("model.npz", VELOCITIES[0])
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    return tmp_path


SURVEY = (
    "survey", "--velocity=models.npy", "--spacing=0.05", "--sources=0.1:0.4:3,0.05",
    "--receivers=0.2,0.05;0.3,0.1", "--frequencies=3,4", *SOLVER,
)  # fmt: skip


def test_survey_solves_once_and_goes_on(here, capsys):
    assert run(*SURVEY, "--models_per_chunk=2") == 0
    printed = capsys.readouterr().out
    assert "18 wavefields" in printed and "throughput" in printed
    with xarray.open_zarr("survey.zarr") as data:
        sources = np.array([[0.1, 0.05], [0.25, 0.05], [0.4, 0.05]])
        expected = ml.solve_survey(
            VELOCITIES,
            [3.0, 4.0],
            sources,
            ml.FiniteDifferences(refinement=1),
            receivers=[[0.2, 0.05], [0.3, 0.1]],
        )
        np.testing.assert_array_equal(data.scattered, expected.scattered)
    assert run(*SURVEY, "--models_per_chunk=2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["solved"] == 0


def test_a_survey_that_misses_its_tolerance_is_whole_and_ends_with_one(here, capsys):
    command = (*SURVEY, "--maximum_refinement=2", "--tolerance=3e-4")
    for _ in range(2):  # likewise when all is there
        assert run(*command, "--json") == 1
        printed = capsys.readouterr()
        summary = json.loads(printed.out)
        assert summary["converged"] is False
        assert printed.err == (
            "meta-lrpinn: not converged: the tolerance 0.0003 was not reached by "
            f"{summary['missed']} of 18 wavefields; `converged` in survey.zarr says which\n"
        )
    with xarray.open_zarr("survey.zarr") as data:
        assert data.solved.all() and np.sum(~data.converged) == summary["missed"] > 0
    assert run(*SURVEY, "--tolerance=0.1", "--out=loose.zarr") == 0
    assert "\ntolerance    0.1, reached by 18 of 18 wavefields\n" in capsys.readouterr().out
    assert run(*SURVEY, "--tolerance=0.1", "--out=loose.zarr", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["converged"], summary["missed"]) == (True, 0)


@pytest.mark.filterwarnings("default:iterations ended")
def test_a_survey_whose_iterations_end_early_ends_with_one(here, capsys, monkeypatch):
    monkeypatch.setattr(solution, "_MOST", 1)
    velocity = np.full((2, 21, 21), 2.0)
    velocity[:, 8:14, 9:15] = 4.0
    np.savez("bodies.npz", velocity=velocity, spacing=0.05)
    options = ("--frequencies=6", "--sources=0.3,0.1", "--out=early.zarr")
    assert run("survey", "--velocity=bodies.npz", *options, "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["missed"] == 2
    assert "not converged: iterations of 2 of 2 wavefields ended early" in printed.err


def test_quality_of_all_commands(here):
    """A number and a file with the same number on the grid are the same model."""
    quality = np.full((11, 11), 30.0)
    np.savez("quality.npz", quality=quality)
    model = VELOCITIES[0].replace_quality(30.0)
    exact = ml.solve(model, 5.0, (0.1, 0.05), ml.FiniteDifferences(refinement=1))
    command = (*SOLVE, "--source=0.1,0.05", *SOLVER)
    for name, given in (("a", "30"), ("b", "quality.npz"), ("c", "quality.npz:quality")):
        assert run(*command, f"--quality={given}", f"--out={name}.npz") == 0
        found = ml.load_case(f"{name}.npz")
        np.testing.assert_array_equal(found.scattered, exact.scattered)
        np.testing.assert_array_equal(found.model.quality, quality)
    assert run(*SURVEY, "--quality=30") == 0
    with xarray.open_zarr("survey.zarr") as data:
        expected = ml.solve_survey(
            [model], [3.0], [[0.1, 0.05]], ml.FiniteDifferences(refinement=1),
            receivers=[[0.2, 0.05], [0.3, 0.1]],
        )  # fmt: skip
        np.testing.assert_array_equal(data.scattered[0, 0, 0], expected.scattered[0, 0, 0])


@pytest.mark.slow
def test_a_free_surface_of_surveys_and_traces(here):
    assert run(*SURVEY, "--free_surface") == 0
    with xarray.open_zarr("survey.zarr") as data:
        expected = ml.solve(
            VELOCITIES[1], 3.0, (0.25, 0.05), ml.FiniteDifferences(refinement=1),
            free_surface=True,
        )  # fmt: skip
        np.testing.assert_allclose(
            data.scattered[1, 0, 1], expected.at([[0.2, 0.05], [0.3, 0.1]]), rtol=1e-6
        )
    # Not one survey with another.
    assert run(*SURVEY) == 2
    # A case with a free surface has one in its traces, too.
    cases.save_case("case.npz", cases.Case(VELOCITIES[0], free_surface=True))
    for name, options in (("a", ("--free_surface",)), ("b", ("--velocity=case.npz",))):
        assert run(*TRACES, *SOLVER, *options, f"--out={name}.npz") == 0
    with np.load("a.npz") as a, np.load("b.npz") as b:
        np.testing.assert_array_equal(a["traces"], b["traces"])
        assert a["free_surface"] == b["free_surface"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("survey",), "survey needs --velocity"),
        ((*SURVEY, "--velocity=none.npy"), "there is no velocity file none.npy"),
        ((*SURVEY, "--frequencies=3:1:1"), "frequencies must be a list such as"),
        ((*SURVEY, "--receivers=1"), "receiver needs 2 coordinates"),
        ((*SURVEY, "--receivers=1,a"), "receiver must be numbers such as"),
        ((*SURVEY, "--sources=9,0"), "lies outside the model"),
        ((*SURVEY, "--sources=0.1,0", "--free_surface"), "stands on the free surface"),
        ((*TRACES, "--source=0.1,0", "--free_surface"), "stands on the free surface"),
        ((*SURVEY, "--quality=0"), "quality must be positive and finite"),
        ((*SURVEY, "--quality=inf"), "quality must be positive and finite"),
        ((*SOLVE, "--quality=0.01"), "is it 1/Q?"),
        ((*SOLVE, "--quality=high"), "quality must be a number such as 80, or a file"),
        ((*SOLVE, "--quality=models.npy"), "have the shape of the velocity, (11, 11)"),
        ((*SURVEY, "--memory=0"), "memory must be positive"),
        ((*SURVEY, "--out=models.npy"), "models.npy"),
        ((*SURVEY, "--prune"), "--prune is no option of --solver=finite_differences"),
        (("traces",), "traces needs --receivers"),
        ((*SURVEY, "--frequencies=3,1e308"), "is the frequency in Hz"),
        ((*SURVEY, "--frequencies=1e-300,3"), "is the frequency in Hz"),
        ((*SURVEY[:-1], "--frequencies=3,1e5"), "finite differences over 0.5 x 0.5 km"),
        ((*SURVEY[:-2], "--frequencies=3,1e5"), "choose a smaller window"),
        ((*SURVEY[:-2], "--frequencies=3,1e5", "--tolerance=0.01"), "plane waves"),
        ((*SURVEY[:-2], "--tolerance=1e-12"), "tolerance is a relative error"),
        ((*SURVEY, "--spacing=1e300"), "in m, ft or km"),
        ((*SURVEY, "--spacing=nan"), "spacing must be positive"),
        ((*SURVEY, "--seed=-1"), "seed must be a whole number from 0 up"),
        ((*SURVEY, "--amplitude=0"), "amplitude must be finite and not zero"),
        ((*SURVEY, "--receivers=0:0.5:9999999999,0"), "at most 1,000,000"),
        ((*SURVEY, "--receivers=0:1:9999,0:1:9999"), "more than 1,000,000 receivers"),
        ((*SURVEY, "--receivers=none.txt"), "receiver must be numbers such as"),
        ((*SURVEY, "--receivers=empty.txt"), "empty.txt: it holds nothing"),
        ((*SURVEY, "--receivers=complex.npy"), "must be an array of real numbers"),
        ((*SURVEY, "--out=taken.zarr"), "taken.zarr is there and no survey"),
        ((*TRACES, "--record=1e300"), "is the time in s and the frequency in Hz?"),
        ((*TRACES, "--record=nan"), "record must be positive"),
        ((*TRACES, "--record=1e-300"), "is shorter than a step"),
        ((*TRACES, "--peak_frequency=1e300"), "is the time in s and the frequency in Hz?"),
        ((*TRACES, "--peak_frequency=1e-300"), "is shorter than a step"),
        ((*TRACES, "--step=1e-12"), "is the time in s and the frequency in Hz?"),
        ((*TRACES, "--step=1e300"), "does not sample"),
        (
            (*TRACES, "--transform_tolerance=1e-320"),
            "tolerance is a relative error, from 1e-09",
        ),
        (
            (*TRACES, "--transform_tolerance=1000"),
            "tolerance is a relative error, from 1e-09",
        ),
        ((*TRACES, "--receivers=0.1,0.05"), "a receiver stands on a source"),
        ((*TRACES, "--wavelet=none.txt"), "none.txt"),
        ((*TRACES, "--out=traces.png"), "wavefields are written as .nc"),
        ((*TRACES, "--out=model.npz/traces.npz"), "model.npz is a file"),
        ((*TRACES, "--out=taken.sgy"), "taken.sgy is a folder, not a file"),
        ((*TRACES, "--out=taken.zarr"), "taken.zarr is a folder with something else"),
        ((*TRACES, "--movie=film.mp4"), "movies are written as .gif"),
        ((*TRACES, "--movie=taken.gif"), "taken.gif is a folder, not a file"),
        ((*TRACES, "--movie=model.npz/film.gif"), "model.npz is a file"),
        ((*TRACES, *VOLUME, "--movie=film.gif"), "movies are of models in 2D"),
        ((*SOLVE, "--out=taken.zarr"), "taken.zarr is a folder with something else"),
        ((*SOLVE, "--out=taken.nc"), "taken.nc is a folder"),
        ((*SOLVE, "--out=drawn.nc"), "drawn.png is a folder, not a file"),
        ((*SOLVE, "--out=told.nc", "--report"), "told.html is a folder, not a file"),
        ((*SEVERAL, "--out=many.zarr"), "many_5Hz.zarr is a folder with something else"),
        ((*SEVERAL, "--out=many.nc"), "many_5Hz.png is a folder, not a file"),
        ((*SEVERAL, "--frequencies=3,1e308"), "is the frequency in Hz"),
        (("solve", "--frequencies=4,-5"), "frequency must be positive, got -5.0 Hz"),
        (("models", "--velocity=layered"), "models has no option --velocity"),
        (("models", "layered"), "models takes options only"),
        (("solve", "--frequency=3", "--frequencies=3,4"), "not both"),
        (("solve", "--frequencies=3,3"), "the same frequency is given twice"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, arguments, message):
    for name in TAKEN:
        (here / name).mkdir()
        (here / name / "mine").write_text("mine")
    (here / "empty.txt").write_text("")
    np.save("complex.npy", np.full((2, 2), 0.1j))
    ml.save_velocity("volume.npz", ml.VelocityModel(np.full((5, 5, 5), 2.0), 0.05))
    before = sorted(here.rglob("*"))
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_near_frequencies_have_files_of_their_own(here):
    frequencies = "--frequencies=3.0000001,3.0000002"
    assert run("solve", "--velocity=model.npz", frequencies, *SOLVER) == 0
    assert ml.load_case("wavefield_3.0000001Hz.npz").frequency == 3.0000001
    assert ml.load_case("wavefield_3.0000002Hz.npz").frequency == 3.0000002


def test_the_scheduler_may_stand_in_the_environment(here, capsys, monkeypatch):
    asked = []

    def run_survey(*arguments, cluster, workers, **options):
        asked.append((cluster, workers))
        raise ValueError("enough")

    monkeypatch.setattr("meta_lrpinn.solvers.survey_run.run_survey", run_survey)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://a:1")
    for options in ((), ("--workers=2",), ("--cluster=tcp://b:2",)):
        assert run(*SURVEY, *options) == 2
    assert asked == [("tcp://a:1", None), (None, 2), ("tcp://b:2", None)]


def test_solve_at_several_frequencies_writes_a_file_for_each(here, capsys):
    options = ("--velocity=model.npz", "--frequencies=3:4:0.5", "--json", "--out=out")
    assert run("solve", *options, *SOLVER) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [part["frequency"] for part in summary["wavefields"]] == [3.0, 3.5, 4.0]
    names = {path.name for path in (here / "out").iterdir()}
    assert {f"wavefield_{f}Hz.{e}" for f in (3, 3.5, 4) for e in ("npz", "png")} == names
    case = ml.load_case("out/wavefield_3.5Hz.npz")
    assert case.frequency == 3.5
    alone = ml.solve(case.model, 3.5, case.source, ml.FiniteDifferences(refinement=1))
    np.testing.assert_allclose(case.scattered, alone.scattered, rtol=1e-6)


def test_traces_and_their_movie(here, capsys):
    np.savetxt("receivers.txt", [[0.3, 0.05], [0.4, 0.1]])
    options = ("--velocity=model.npz", "--source=0.1,0.05", "--receivers=receivers.txt")
    when = ("--record=0.5", "--peak_frequency=3", "--transform_tolerance=0.01")
    assert run("traces", *options, *when, "--out=out/traces.sgy", "--movie=film.gif") == 0
    assert "1 x 2 x" in capsys.readouterr().out
    assert (here / "out" / "traces.sgy").stat().st_size > 3600
    assert (here / "film.gif").read_bytes().startswith(b"GIF")


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (0.3, "waves are left after the longest period, 0.3 of the largest"),
        (1e-5, "the solver did not reach its own tolerance at every frequency"),
    ],
)
def test_traces_that_have_not_converged(here, capsys, monkeypatch, left, message):
    """They are written, and the exit code is 1."""
    make = ml.time_traces

    def time_traces(*arguments, settings, **options):
        settings = ml.FiniteDifferences(refinement=1)
        traces = make(*arguments, settings=settings, **options)
        return dataclasses.replace(traces, wrap_around=left, converged=False)

    monkeypatch.setattr(ml, "time_traces", time_traces)
    assert run(*TRACES, "--tolerance=0.02", "--json") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"meta-lrpinn: not converged: {message}")
    assert printed.err.count("\n") == 1
    assert json.loads(printed.out)["converged"] is False
    with np.load("traces.npz") as file:
        assert file["converged"] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", [5.0]),
        ("3,4.5", [3.0, 4.5]),
        ("2:3:0.5", [2.0, 2.5, 3.0]),
        ("0.1:0.7:0.1", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("2:3:0.4,7", [2.0, 2.4, 2.8, 7.0]),
    ],
)
def test_lists_and_ranges_of_frequencies(text, expected):
    assert parsing.frequencies(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "2:3", "2:3:0", "3:2:1", "1:1e9:1e-9", "2:3:nan"]
)
def test_what_is_no_list_of_frequencies_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a list such as"):
        parsing.frequencies(text)
