"""The command line, in process but for the console script."""

import csv
import dataclasses
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import chex
import numpy as np
import pytest
from matplotlib.figure import Figure

import meta_lrpinn as ml
from meta_lrpinn import cli, generators, plotting
from meta_lrpinn.files import cases
from meta_lrpinn.learning import (
    checkpoints,
    configs,
    evaluation,
    networks,
    pipeline,
    task_files,
    task_sets,
    training,
)
from meta_lrpinn.linear.lattice import solution
from meta_lrpinn.solvers import settings

PNG = b"\x89PNG\r\n\x1a\n"
FREQUENCY = 3.0
SOURCE = (0.6, 0.05)


def model(velocity=None):
    """1.2 km square, a slow layer over a fast one, small enough for any test."""
    if velocity is None:
        velocity = np.full((25, 25), 1.5, np.float32)
        velocity[12:] = 2.2
    return ml.VelocityModel(velocity, 0.05)


@pytest.fixture
def case_file(tmp_path):
    """A case with frequency and source, without a known wavefield."""
    folder = tmp_path / "input"
    folder.mkdir()
    path = folder / "case.npz"
    case = cases.Case(model(), frequency=FREQUENCY, source=np.array(SOURCE))
    cases.save_case(path, case)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def asked(monkeypatch):
    """Arguments of the calls of solve, which answers at once with zeros, undrawn."""
    calls = []

    def solve(model, frequency, source, settings, **options):
        problem = {"model": model, "frequency": frequency, "source": source}
        calls.append({**problem, "settings": settings, **options})
        return answer(model, frequency, source, settings, np.array(0.2), options)

    monkeypatch.setattr(ml, "solve", solve)
    monkeypatch.setattr(ml.Wavefield, "plot", lambda *_: Figure())
    return calls


def answer(model, frequency, source, settings, estimates, options, history=()):
    """A wavefield of zeros."""
    leading = np.shape(source)[:-1]
    zeros = np.zeros((*leading, *model.shape), np.complex64)
    return ml.Wavefield(
        model=model,
        frequency=frequency,
        source=source,
        amplitude=options["amplitude"],
        background_velocity=np.full(leading, options["background_velocity"] or 1.5),
        scattered=zeros,
        solver="none",
        settings=settings,
        elapsed=0.0,
        error_estimates=np.broadcast_to(estimates, leading),
        history=tuple(history),
    )


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def saved(path):
    with np.load(path) as file:
        return dict(file)


def assert_png(path):
    assert path.read_bytes()[:8] == PNG
    assert path.stat().st_size > 5000


# Solving ------------------------------------------------------------------------------


def test_solve_writes_a_case_and_a_figure(case_file, out, capsys):
    assert run("solve", f"--velocity={case_file}", f"--out={out}") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "plane waves, " in captured.out
    assert sorted(path.name for path in out.iterdir()) == [
        "wavefield.npz",
        "wavefield.png",
    ]
    assert_png(out / "wavefield.png")

    case = ml.load_case(out / "wavefield.npz")
    field = ml.solve(model(), FREQUENCY, SOURCE)
    assert case.frequency == FREQUENCY
    chex.assert_trees_all_close(case.source, np.array(SOURCE))
    assert case.amplitude == pytest.approx(0.25j)
    chex.assert_trees_all_equal(case.model.velocity, model().velocity)
    chex.assert_shape(case.scattered, (25, 25))
    chex.assert_trees_all_close(case.scattered, field.scattered, rtol=1e-5)


def test_a_written_field_is_what_its_file_is_compared_with(case_file, out, capsys):
    run("solve", f"--velocity={case_file}", f"--out={out}")
    capsys.readouterr()
    again = f"--velocity={out / 'wavefield.npz'}"
    assert run("solve", again, f"--out={out / 'again'}") == 0
    assert "vs published relative L2 0.00%\n" in capsys.readouterr().out
    assert saved(out / "again" / "wavefield.npz")["relative_l2_published"] < 1e-5
    # The field of another problem is no truth for this one.
    assert run("solve", again, "--source=0.3,0.05", f"--out={out / 'other'}") == 0
    printed = capsys.readouterr().out
    assert "of another problem" in printed
    assert "vs published" not in printed


def test_a_field_is_compared_when_options_complete_its_file(case_file, out, capsys):
    run("solve", f"--velocity={case_file}", f"--out={out}")
    contents = saved(out / "wavefield.npz")
    bare = {name: contents[name] for name in ("velocity", "spacing", "scattered")}
    np.savez(out / "bare.npz", **bare)
    capsys.readouterr()
    options = ("--frequency=3", "--source=0.6,0.05", f"--out={out / 'again'}")
    assert run("solve", f"--velocity={out / 'bare.npz'}", *options) == 0
    assert "vs published relative L2 0.00%\n" in capsys.readouterr().out


def test_options_reach_the_solver(case_file, out, asked):
    options = (
        "--source=0.4,0.1 --amplitude=1-2i --background_velocity=1.6 --frequency=4 "
        "--solver=gradient_training --init=none --rank_fraction=0.5 --freeze_bases "
        "--optimiser=soap --steps=7 --learning_rate=0.01 --loss=published "
        "--source_penalty=0.5 --polish --thickness=0.2 --reflection=1e-3 "
        "--seed=3 --free_surface"
    )
    where = (f"--velocity={case_file}", f"--out={out}")
    assert run("solve", *where, *options.split()) == 0
    (call,) = asked
    chex.assert_trees_all_equal(call.pop("model").velocity, model().velocity)
    chex.assert_trees_all_close(call.pop("source"), np.array([0.4, 0.1]))
    given = call.pop("settings")
    assert call == {
        "frequency": 4.0,
        "amplitude": 1 - 2j,
        "background_velocity": 1.6,
        "free_surface": True,
        "weights": None,
        "thickness": 0.2,
        "reflection": 1e-3,
        "seed": 3,
        "truth": None,
        "progress": False,  # standard error is no terminal here
    }
    network = given.network
    assert given == ml.GradientTraining(
        network,
        optimiser=ml.SOAP(steps=7, learning_rate=0.01),
        loss="published",
        source_penalty=0.5,
        polish=True,
    )
    assert network.is_pruned and not network.has_free_bases
    assert network.ranks == (32,) * 4
    contents = saved(out / "wavefield.npz")
    assert contents["amplitude"] == 1 - 2j
    assert contents["v0"] == 1.6
    assert (contents["source_x"], contents["source_z"]) == (0.4, 0.1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ml.AdamW(steps=200)),
        ("--optimiser=adamw --points=9", ml.AdamW(steps=200, points=9)),
        ("--optimiser=soap", ml.SOAP(steps=200)),
        ("--optimiser=soap --steps=7", ml.SOAP(steps=7)),
    ],
)
def test_the_optimiser_of_gradient_training(options, expected, case_file, out, asked):
    where = (f"--velocity={case_file}", f"--out={out}", "--solver=gradient_training")
    assert run("solve", *where, *options.split()) == 0
    (call,) = asked
    found = call["settings"].optimiser
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("name", ["field.nc", "field.zarr", "field.h5"])
def test_the_ending_of_out_is_the_format(name, case_file, out, asked, capsys):
    pytest.importorskip("xarray")
    path = out / name
    assert run("solve", f"--velocity={case_file}", f"--out={path}") == 0
    assert {one.name for one in out.iterdir()} == {name, "field.png"}
    chex.assert_trees_all_equal(ml.load_case(path).source, np.array(SOURCE))
    assert str(path) in capsys.readouterr().out


def test_a_report_is_written_beside_the_field(case_file, out, asked, capsys):
    pytest.importorskip("plotly")
    assert run("solve", f"--velocity={case_file}", "--report", f"--out={out}") == 0
    assert str(out / "wavefield.html") in capsys.readouterr().out
    assert "<!DOCTYPE html>" in (out / "wavefield.html").read_text()


def test_several_sources(case_file, out):
    options = (f"--velocity={case_file}", "--source=0.3:0.9:3,0.05", f"--out={out}")
    assert run("solve", *options) == 0
    contents = saved(out / "wavefield.npz")
    chex.assert_shape(contents["scattered"], (3, 25, 25))
    # The model does not change sideways, so the first and last are mirror images.
    first, _, last = contents["scattered"]
    assert ml.relative_l2(first[:, ::-1], last) < 0.01


@pytest.mark.parametrize(
    "text", ["0.3,0.05;0.6,0.05;0.9,0.05", "0.3:0.9:3,0.05", "rows.txt", "rows.npy"]
)
def test_lists_of_sources(text, case_file, tmp_path, asked, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = np.array([[0.3, 0.05], [0.6, 0.05], [0.9, 0.05]])
    np.save("rows.npy", sources)
    np.savetxt("rows.txt", sources, delimiter=",")
    assert run("solve", f"--velocity={case_file}", f"--source={text}") == 0
    chex.assert_trees_all_close(asked[0]["source"], sources)
    columns = [saved("wavefield.npz")[f"source_{axis}"] for axis in "xz"]
    chex.assert_trees_all_close(np.stack(columns, axis=-1), sources)


def test_window_keeps_coordinates(case_file, out, asked):
    window = "--window=0.2,1.0,0,0.8"
    assert run("solve", f"--velocity={case_file}", window, f"--out={out}") == 0
    assert asked[0]["model"].shape == (17, 17)
    contents = saved(out / "wavefield.npz")
    chex.assert_trees_all_close(contents["origin"], np.array([0.2, 0.0]))
    chex.assert_trees_all_equal(contents["velocity"], model().velocity[:17, 4:21])


def test_a_model_of_several_in_metres(tmp_path, out, asked):
    path = tmp_path / "models.npz"
    metres = 1000 * model().velocity
    np.savez(path, first=metres, second=metres + 100)
    where = (f"--velocity={path}:second", "--unit=m/s", "--spacing=50", "--spacing_unit=m")
    options = ("--frequency=3", "--smooth=0.1", f"--out={out}")
    assert run("solve", *where, *options) == 0
    expected = ml.VelocityModel(model().velocity + 0.1, 0.05).smoothed(0.1)
    velocity = asked[0]["model"].velocity
    chex.assert_trees_all_close(velocity, expected.velocity, rtol=1e-5)
    # Where nothing says otherwise, in the middle, one cell below the top.
    chex.assert_trees_all_close(asked[0]["source"], np.array([0.6, 0.05]))


def test_three_dimensions(tmp_path, out):
    path = tmp_path / "cube.npz"
    cube = np.full((9, 9, 9), 2.0)
    cube[5:] = 2.4
    np.savez(path, velocity=cube, spacing=(0.05,) * 3)
    options = ("--frequency=3", "--source=0.2,0.2,0.05", f"--out={out}")
    assert run("solve", f"--velocity={path}", *options) == 0
    contents = saved(out / "wavefield.npz")
    chex.assert_shape(contents["scattered"], (9, 9, 9))
    assert contents["amplitude"] == pytest.approx(-1 / (4 * np.pi))
    assert_png(out / "wavefield.png")


def test_comparison_with_the_reference_solver(case_file, out, capsys):
    options = ("--compare=reference", f"--out={out}")
    assert run("solve", f"--velocity={case_file}", *options) == 0
    printed = capsys.readouterr().out
    found = re.search(r"^vs reference relative L2 (\S+)%$", printed, re.M)
    assert 0.01 < float(found[1]) < 6.0


def test_published_field(data_dir, out, capsys):
    path = data_dir / "layered_5hz.npz"
    assert run("solve", f"--velocity={path}", f"--out={out}") == 0
    assert "vs published relative L2 " in capsys.readouterr().out
    assert saved(out / "wavefield.npz")["relative_l2_published"] <= 0.02


def test_nine_published_fields_in_one_call(data_dir, out):
    path = data_dir / "layered_4hz_9sources.npz"
    assert run("solve", f"--velocity={path}", f"--out={out}") == 0
    errors = saved(out / "wavefield.npz")["relative_l2_published"]
    chex.assert_shape(errors, (9,))
    assert errors.max() <= 0.025


@pytest.mark.slow  # .ci/run gives this command, too
def test_without_options_the_builtin_model(out, capsys, monkeypatch):
    monkeypatch.setattr("meta_lrpinn.cli.problem._REFERENCE_TOLERANCE", 0.03)
    assert run("solve", f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert "6 Hz" in printed
    assert re.search(r"^seconds +\d", printed, re.M)
    assert saved(out / "wavefield.npz")["relative_l2_reference"] < 0.03


# Bad input ----------------------------------------------------------------------------


def with_value(value):
    array = model().velocity.copy()
    array[3, 4] = value
    return array


BAD_FILES = {
    "negative": (with_value(-1.0), "must be positive, got -1 km/s"),
    "zero": (with_value(0.0), "must be positive"),
    "nan": (with_value(np.nan), "must be finite, got 1 NaN"),
    "metres": (1000 * model().velocity, "looks like m/s"),
    "one_axis": (np.ones(5), "2-D"),
    "one_row": (np.ones((1, 5)), "at least 2 points"),
    "complex": (np.ones((5, 5)) * 1j, "real numbers"),
}


def assert_refused(arguments, message, out, capsys):
    """One line on standard error, exit code 2, and no file."""
    assert run(*arguments, f"--out={out}") == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("meta-lrpinn: ")
    assert message in lines[0]
    assert "Traceback" not in captured.out
    assert not out.exists()


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("command", ["solve", "evaluate"])
def test_bad_velocities(command, name, tmp_path, out, capsys):
    values, message = BAD_FILES[name]
    np.savez(tmp_path / "bad.npz", velocity=values, spacing=0.05, frequency=3.0)
    where = f"--velocity={tmp_path / 'bad.npz'}"
    assert_refused([command, where], message, out, capsys)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"scattered": np.ones((3, 3), complex)}, "scattered must have shape"),
        ({"source": [9.0, 9.0]}, "source (9.0, 9.0) lies outside the model"),
        ({"source": [1.0]}, "2 coordinates"),
        ({"spacing": [0.05, 0.05, 0.05]}, "spacing must be one number or 2"),
        ({"spacing": -0.05}, "spacing must be positive"),
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"v0": 0.0}, "background velocity must be positive"),
    ],
)
def test_bad_cases(contents, message, tmp_path, out, capsys):
    good = {"velocity": model().velocity, "spacing": 0.05, "frequency": 3.0}
    np.savez(tmp_path / "bad.npz", **{**good, **contents})
    where = f"--velocity={tmp_path / 'bad.npz'}"
    assert_refused(["solve", where], message, out, capsys)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--frequency=0", "frequency must be positive, got 0.0 Hz"),
        ("--frequency=-3", "frequency must be positive, got -3.0 Hz"),
        ("--frequency=nan", "frequency must be positive, got nan Hz"),
        ("--frequency=inf", "frequency must be positive, got inf Hz"),
        ("--frequency=low", "--frequency must be a number, got 'low'"),
        ("--source=9,0", "source (9.0, 0.0) lies outside the model, x 0.0 to 1.2 km"),
        ("--source=0.6,0.05;0.6,-1", "source (0.6, -1.0) lies outside the model"),
        ("--source=nan,0", "lies outside the model"),
        ("--source=0.6", "source needs 2 coordinates in km, x,z, got '0.6'"),
        ("--source=a,b", "source must be numbers such as"),
        ("--source=0:1:0,0", "source must be numbers such as"),
        ("--window=0,1", "window must be x0,x1,z0,z1, got 2 numbers"),
        ("--window=0.9,0.1,0,1", "window x 0.9 to 0.1 km holds 0 grid points"),
        ("--window=a", "window must be numbers"),
        ("--smooth=-1", "smoothing length must be zero or more, got -1.0 km"),
        ("--amplitude=loud", "amplitude must be a number such as"),
        ("--background_velocity=-1", "background velocity must be positive"),
        ("--spacing=0.05,a", "spacing must be numbers"),
        ("--spacing=0", "spacing must be positive"),
        (
            "--unit=furlong",
            "ft/s, s/km, s/m, us/ft, s2/km2, s2/m2, got 'furlong'",
        ),
        ("--thickness=-1", "absorbing layer thickness must not be negative"),
        ("--tolerance=0", "tolerance must be positive"),
        ("--unknowns=-5", "unknowns must be positive"),
        ("--steps=10", "--steps is no option of --solver=plane_waves, but of gradient"),
        ("--steps=many", "--steps must be a whole number, got 'many'"),
        ("--solver=magic", "--solver must be one of plane_waves, finite_"),
        ("--solver=finite_differences --unknowns=9", "but of plane_waves"),
        (
            "--solver=network_features --optimiser=soap",
            "--optimiser is no option of --solver=network_features, but of gradient",
        ),
        ("--solver=network_features --init=nowhere", "there is no folder nowhere"),
        ("--solver=network_features --prune=maybe", "--prune must be true or false"),
        ("--solver=network_features --rank_fraction=2", "at most 1, got 2.0"),
        ("--seed=-1", "seed must be a whole number from 0 up, got -1"),
        ("--seed=4294967296", "seed must be at most 4294967295"),
        ("--thickness=1e6", "thickness must be at most 12 km"),
        ("--thickness=inf", "thickness must be at most 12 km"),
        ("--thickness=1e-300", "0 for none, got 1e-300 km"),
        ("--thickness=50", "is it in metres?"),
        ("--reflection=5e-324", "reflection must lie between 0 and 1"),
        ("--spacing=1e300", "in m, ft or km? Say it with spacing_unit"),
        ("--spacing=10", "is the spacing 10 in m, ft or km? Say it with spacing_unit"),
        ("--background_velocity=1e6", "0.1 to 100 km/s, got 1e+06; is it in m/s?"),
        ("--background_velocity=1e-300", "background velocity must be 0.1 to 100 km/s"),
        ("--unknowns=2147483647", "more than 2,000,000"),
        ("--unknowns=2147483648", "unknowns must be at most 2147483647"),
        ("--unknowns=1" + 400 * "0", "unknowns must be at most 2147483647"),
        ("--frequency=1e308", "wavelengths long; is the frequency in Hz"),
        ("--frequency=1e-320", "wavelengths long; is the frequency in Hz"),
        ("--frequency=1e5", "choose a smaller window or a lower frequency"),
        ("--solver=finite_differences --frequency=1e5", "is the spacing in metres"),
        ("--solver=finite_differences --thickness=1e6", "thickness must be at most 12 km"),
        ("--tolerance=1e-12", "tolerance is a relative error, from 1e-06 to below 1"),
        ("--tolerance=1e308", "tolerance is a relative error, from 1e-06 to below 1"),
        ("--amplitude=1e308", "amplitude must be 1e-30 to 1e+30 in size"),
        ("--amplitude=1e-320j", "amplitude must be 1e-30 to 1e+30 in size"),
        ("--smooth=1e300", "more than the model of 1.2 km; is it in metres?"),
        ("--window=nan,nan,0,1", "holds 0 grid points"),
        ("--freq=3", "no option --freq, did you mean --frequency?"),
        ("--shifted=3", "solve has no option --shifted"),
        ("5", "takes options only, as --name=value; got '5'"),
    ],
)
def test_bad_options(option, message, case_file, out, capsys):
    arguments = ["solve", f"--velocity={case_file}", *option.split()]
    assert_refused(arguments, message, out, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sovle"], "there is no command 'sovle', did you mean solve?"),
        (["xyzzy"], "choose one of solve, evaluate, meta-train"),
        (["solve", "--velocity=layerd"], "no built-in model 'layerd'"),
        (["solve", "--velocity=layered", "--unit=m/s"], "not built-in models"),
        (["evaluate", "--seeds=0"], "seeds must be at least 1, got 0"),
        (["meta-train", "--iterations=0"], "iterations must be positive, got 0"),
        (["meta-train", "--preset=huge"], "--preset must be one of paper, "),
        (["make-tasks", "--random=0"], "random must be at least 1, got 0"),
        (["make-tasks", "--frequencies=3000000000"], "is the frequency in Hz"),
        (["make-tasks", "--frequencies=2:15"], "must be a list such as 3,4,5 or first:"),
        (["make-tasks", "--frequencies=5,5"], "the same frequency is given twice"),
        (["make-tasks", "--random=2", "--frequencies=5"], "frequencies are of models"),
        (["make-tasks", "--sources=2"], "--sources has an effect only with --random"),
        (["make-tasks", "--random=2", "--models=3"], "only without --random"),
        (["make-tasks", "--random=2", "--points=9"], "only with --wavefields"),
        (["make-tasks", "--workers=2"], "--workers has an effect only with --wavefields"),
        (["meta-train", "--processes=2"], "go together"),
        (["meta-train", "--tasks=nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_commands(arguments, message, out, capsys):
    assert_refused(arguments, message, out, capsys)


def test_unreadable_files(tmp_path, out, capsys):
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "model.doc").write_text("a letter")
    np.savez(tmp_path / "bare.npz", velocity=model().velocity)
    np.savez(tmp_path / "still.npz", velocity=model().velocity, spacing=0.05)
    for name, message in {
        "text.npz": "cannot read",
        "empty.npy": "cannot read",
        "model.doc": "velocity files end in .npy",
        "nowhere.npz": "there is no velocity file",
        "bare.npz": "holds no grid spacing",
        "bare.npz:other": "has no velocity model 'other'",
        "still.npz": "has no frequency of its own; add --frequency=HZ",
    }.items():
        where = f"--velocity={tmp_path / name}"
        assert_refused(["solve", where], message, out, capsys)


def test_bad_source_files(tmp_path, case_file, out, capsys):
    (tmp_path / "words.txt").write_text("left, right\n")
    np.save(tmp_path / "triples.npy", np.ones((2, 3)))
    for name, message in {
        "words.txt": "cannot read sources",
        "triples.npy": "must hold 2 numbers a row",
    }.items():
        options = [f"--velocity={case_file}", f"--source={tmp_path / name}"]
        assert_refused(["solve", *options], message, out, capsys)


def test_output_that_is_a_file(case_file, tmp_path, capsys):
    target = tmp_path / "file"
    target.write_text("mine")
    assert run("solve", f"--velocity={case_file}", f"--out={target}") == 2
    assert "--out must be a folder" in capsys.readouterr().err
    assert target.read_text() == "mine"


def test_a_missing_value_and_a_missing_folder(capsys):
    assert run("solve", "--frequency") == 2
    assert run("meta-train") == 2
    assert capsys.readouterr().err == (
        "meta-lrpinn: --frequency expected one argument\n"
        "meta-lrpinn: give the folder of the run, --out=FOLDER\n"
    )


def test_a_coarse_grid_is_warned_of(case_file, out, capsys, asked, monkeypatch):
    monkeypatch.setattr("meta_lrpinn.cli.solve._TRUSTED", 1.0)
    options = (f"--velocity={case_file}", "--frequency=9", f"--out={out}")
    assert run("solve", *options) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("meta-lrpinn: warning: the grid is too coarse for 9 Hz")
    assert "3.3 points per wavelength" in line


def test_a_field_not_to_be_trusted_is_warned_of(case_file, out, capsys, asked):
    assert run("solve", f"--velocity={case_file}", f"--out={out}") == 0
    assert "relative error 20.00%" in (captured := capsys.readouterr()).out
    error = "meta-lrpinn: warning: do not trust this field; ask for more unknowns\n"
    assert captured.err == error


def test_a_failure_while_writing_leaves_no_file(case_file, out, asked, capsys, monkeypatch):
    monkeypatch.setattr("meta_lrpinn.cli.solve._TRUSTED", 1.0)

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device", "wavefield.png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert run("solve", f"--velocity={case_file}", f"--out={out}") == 2
    error = "meta-lrpinn: No space left on device: wavefield.png\n"
    assert capsys.readouterr().err == error
    assert list(out.iterdir()) == []


def test_a_loss_that_is_not_finite_is_a_failure(case_file, out, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise FloatingPointError("the loss is nan after 10 steps")

    monkeypatch.setattr(ml, "solve", fail)
    assert run("solve", f"--velocity={case_file}", f"--out={out}") == 1
    assert capsys.readouterr().err == "meta-lrpinn: the loss is nan after 10 steps\n"
    assert not out.exists()


def test_interrupted(case_file, out, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ml, "solve", interrupt)
    assert run("solve", f"--velocity={case_file}", f"--out={out}") == 130
    assert capsys.readouterr().err == "meta-lrpinn: interrupted; nothing written\n"


# Help and information -----------------------------------------------------------------


def test_overview_and_help(capsys):
    assert run() == 0
    overview = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"    {name}" in overview
        assert run(name, "--help") == 0
        text = capsys.readouterr().out
        assert cli.command_module(name).SUMMARY in text
        assert max(map(len, text.splitlines())) <= 88


def test_every_field_of_settings_is_an_option(capsys):
    assert run("solve", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for kind in (*settings.SOLVERS.values(), ml.AdamW, ml.SOAP):
        for field in dataclasses.fields(kind):
            if "help" in field.metadata:
                assert f"--{field.name} " in text


def test_summary_as_json(case_file, out, capsys):
    assert run("solve", f"--velocity={case_file}", f"--out={out}", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["solver"] == "plane_waves"
    assert summary["frequency"] == FREQUENCY
    assert summary["files"] == [str(out / "wavefield.npz"), str(out / "wavefield.png")]
    assert 0 < summary["error_estimates"] < 0.1


def test_quiet(case_file, out, capsys):
    assert run("solve", f"--velocity={case_file}", f"--out={out}", "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_tolerance_not_reached_is_exit_code_1(case_file, out, capsys, monkeypatch):
    def solve(model, frequency, source, settings, **options):
        field = answer(model, frequency, source, settings, np.array(0.02), options)
        return dataclasses.replace(field, converged=False)

    monkeypatch.setattr(ml, "solve", solve)
    options = (f"--velocity={case_file}", "--tolerance=0.001", f"--out={out}")
    assert run("solve", *options, "--json") == 1
    printed = capsys.readouterr()
    assert "not converged: the tolerance 0.001" in printed.err
    assert json.loads(printed.out)["converged"] is False


@pytest.mark.filterwarnings("default:iterations ended")
def test_iterations_that_end_early_are_exit_code_1(tmp_path, capsys, monkeypatch):
    velocity = np.full((21, 21), 2.0)
    velocity[8:14, 9:15] = 4.0
    np.savez(tmp_path / "body.npz", velocity=velocity, spacing=0.05)
    monkeypatch.setattr(solution, "_MOST", 1)
    options = (f"--velocity={tmp_path / 'body.npz'}", "--frequency=6", "--compare=none")
    out = f"--out={tmp_path / 'field.npz'}"
    assert run("solve", *options, out, "--solver=plane_waves") == 1
    errors = capsys.readouterr().err
    assert "warning: iterations ended at a residual of" in errors
    assert "not converged: iterations ended early at 6 Hz; the estimate is" in errors


def test_make_tasks(tmp_path, capsys):
    path = tmp_path / "tasks.npz"
    options = ("--models=1", "--frequencies=3:4:1", f"--out={path}")
    assert run("make-tasks", *options) == 0
    printed = capsys.readouterr().out
    assert f"2 tasks in {path}" in printed and "projection" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tasks.json", "tasks.npz"]
    assert json.loads((tmp_path / "tasks.json").read_text())["frequencies"] == [3, 4]
    assert run("make-tasks", "--preset=paper", *options) == 0
    assert "projection" not in capsys.readouterr().out


def test_tasks_of_the_default_are_for_the_default_training(tmp_path, capsys):
    """All but their wavefields, which one line asks for."""
    path, out = tmp_path / "tasks.npz", tmp_path / "run"
    options = ("--models=1", "--frequencies=3:6:1", f"--out={path}")
    assert run("make-tasks", *options) == 0
    capsys.readouterr()
    training = ("meta-train", f"--tasks={path}", f"--out={out}", "--iterations=1")
    assert run(*training) == 2
    needed = "give tasks that have them (meta-lrpinn make-tasks --wavefields)\n"
    assert capsys.readouterr().err.endswith(needed)
    assert run("make-tasks", *options, "--wavefields", "--points=40") == 0
    tasks = task_files.load_task_set(path, configs.PRESETS["small"].tasks)
    assert tasks.scattered.shape == (4, 8, 40)


def test_the_frequencies_of_tasks_are_those_of_the_preset(tmp_path):
    path = tmp_path / "tasks.npz"
    assert run("make-tasks", "--models=1", f"--out={path}") == 0
    found = json.loads(path.with_suffix(".json").read_text())["frequencies"]
    np.testing.assert_allclose(found, np.linspace(2.5, 12, 14), rtol=1e-6)


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"{ml.__version__}\n"


def test_info(capsys):
    assert run("info") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"meta_lrpinn {ml.__version__}" in captured.out


def test_models_are_listed_as_they_are(capsys):
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(generators.BUILTIN)
    sizes = "2.5 x 2.5 km, VelocityModel(101 x 101, spacing 0.025 km, 1.5 to 4 km/s)"
    assert lines[0] == f"layered      water over folded and dipping layers; {sizes}"
    assert run("models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["models"]["layered_3d"]
    assert (listed["shape"], listed["spacing"]) == ([41] * 3, [0.025] * 3)


def test_info_of_initialisations(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(networks, "ASSETS", tmp_path)
    assert run("info") == 0
    assert "\ninit " not in capsys.readouterr().out
    network = dataclasses.asdict(configs.NetworkConfig(width=16, depth=1, rank=4))
    card = {"command": "meta-lrpinn meta-train", "seconds": 12}
    params = {"weight": np.zeros(2, np.float32)}
    checkpoints.save_initialisation(tmp_path / "mine", params, network, card)
    assert run("info") == 0
    printed = capsys.readouterr().out
    line = "init mine    2D lrpinn; 16 wide, 1 layers; meta-lrpinn meta-train; 12 s\n"
    assert line in printed


# Meta-training and evaluation ---------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """The preset `small`, at a size that trains within seconds."""
    small = configs.PRESETS["small"]
    config = configs.MetaConfig(
        network=configs.NetworkConfig(kind="pinn", width=16, depth=1, layer_fraction=0.5),
        objective=configs.ObjectiveConfig(points=32, source_penalty=0.0),
        tasks=dataclasses.replace(
            small.tasks,
            maximum_frequency=3.0,
            smallest_size=21,
            largest_size=21,
            spacing=0.1,
            velocities_per_task=1,
        ),
        training=dataclasses.replace(
            small.training, tasks_per_batch=1, checkpoint_every=1, evaluate_every=1
        ),
    )
    monkeypatch.setitem(configs.PRESETS, "small", config)
    monkeypatch.setattr(
        evaluation, "make_evaluation", lambda *_: lambda _, step: {"error": 0.5**step}
    )
    return config


def steps(path):
    with open(path, newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_meta_train_stops_resumes_and_adapts(tiny, case_file, out, capsys, monkeypatch):
    options = ("meta-train", "--iterations=3", f"--out={out}")
    # What it saves after its first update is what it goes on from.
    save, interrupt = checkpoints.RunCheckpoints.save, True

    def save_and_interrupt(self, step, *arguments, **keywords):
        save(self, step, *arguments, **keywords)
        if interrupt and step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.RunCheckpoints, "save", save_and_interrupt)
    assert run(*options) == 130
    error = capsys.readouterr().err
    assert error == (
        "meta-lrpinn: interrupted; the same command goes on from the last checkpoint "
        f"in {out}\n"
    )
    assert not (out / "initialisation").exists()
    interrupt = False
    assert run(*options) == 0
    assert f"{out / 'initialisation'}\n" in capsys.readouterr().out
    assert steps(out / "evaluation.csv") == [0, 1, 2, 3]
    _, network, card = checkpoints.load_initialisation(out / "initialisation")
    assert network == dataclasses.asdict(tiny.network)
    assert card["command"] == "meta-lrpinn meta-train --iterations=3"

    # Another configuration does not go on from this one's checkpoints.
    assert run(*options, "--seed=1") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

    target = out / "evaluation"
    assert (
        run(
            "evaluate",
            f"--velocity={case_file}",
            f"--init={out / 'initialisation'}",
            "--steps=0",
            f"--out={target}",
        )
        == 0
    )
    captured = capsys.readouterr()
    assert captured.err == ""
    assert re.search(r"^start +0$", captured.out, re.M)
    rows = re.findall(r"^(initialisation|random) +[0-9.]+%", captured.out, re.M)
    assert rows == ["initialisation", "random"]
    assert_png(target / "evaluate.png")
    with open(target / "evaluate.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["step"]) for row in rows] == [
        ("initialisation", "0"),
        ("random", "0"),
    ]
    errors = np.array([float(row["relative_l2"]) for row in rows])
    assert np.all(np.isfinite(errors)) and np.all(errors > 0)


def test_meta_train_without_time_left_says_so_and_writes_nothing(tiny, out, capsys):
    options = ("meta-train", "--iterations=3", f"--out={out}")
    assert run(*options, "--seconds=1e-3") == 0  # one iteration, however short
    assert "wrote" in capsys.readouterr().out
    before = sorted(path for path in out.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in before]
    assert run(*options, "--seconds=1e-3", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["iterations"] == 0
    assert answer["initialisation"] == str(out / "initialisation")
    assert run(*options, "--seconds=1e-3") == 0
    said = capsys.readouterr().out
    assert "no iterations or seconds are left; nothing is written" in said
    assert sorted(path for path in out.rglob("*") if path.is_file()) == before
    csv_files = {path for path in before if path.suffix == ".csv"}
    after = [path.stat().st_mtime_ns for path in before]
    kept = [
        t == u for p, t, u in zip(before, times, after, strict=True) if p not in csv_files
    ]
    assert all(kept)

    assert run(*options) == 0  # without the limit it goes on
    assert (out / "initialisation_2").exists()
    assert steps(out / "evaluation.csv") == [0, 1, 2, 3]


def test_divergence_is_one_line_and_exit_code_1(out, capsys, monkeypatch):
    def diverge(*arguments, **options):
        raise training.TrainingDiverged("loss is not finite at step 7")

    monkeypatch.setattr(pipeline, "meta_train", diverge)
    assert run("meta-train", f"--out={out}") == 1
    assert capsys.readouterr().err == "meta-lrpinn: loss is not finite at step 7\n"


def test_meta_train_goes_on_from_an_initialisation(tiny, out, capsys):
    options = ("meta-train", "--iterations=1", "--learning_rate=1e-12")
    assert run(*options, f"--out={out / 'first'}") == 0
    first = out / "first" / "initialisation"
    assert run(*options, f"--out={out / 'second'}", f"--init={first}") == 0
    one, _, card = checkpoints.load_initialisation(first)
    two, _, later = checkpoints.load_initialisation(out / "second" / "initialisation")
    chex.assert_trees_all_close(one, two, atol=1e-9)
    assert card["started_from"] is None
    assert later["started_from"] == card

    capsys.readouterr()
    assert run(*options, f"--out={out / 'third'}", "--init=default") == 2
    assert "width was 256, is " in capsys.readouterr().err


def test_meta_train_passes_its_options_on(out, monkeypatch):
    seen = {}

    def keep(config, directory, **options):
        seen.update(options, config=config, directory=directory)
        return pipeline.Trained(pathlib.Path(directory), 1)

    monkeypatch.setattr(pipeline, "meta_train", keep)
    text = (
        f"--preset=paper --out={out} --source_penalty=0.5 --points=9 --seed=4 "
        "--tasks_per_batch=3 --nofirst_order --seconds=60 --tasks=t.npz,u.npz "
        "--learning_rate=5e-4 --inner_steps=2 --same_task --init=default"
    )
    assert run("meta-train", *text.split()) == 0
    config, paper = seen["config"], configs.PRESETS["paper"]
    assert config.objective == configs.ObjectiveConfig(points=9, source_penalty=0.5)
    maml = dataclasses.replace(
        paper.training.algorithm,
        inner=configs.InnerSteps(steps=2, learning_rate=2e-3),
        first_order=False,
        learning_rate=5e-4,
        same_task=True,
    )
    assert config.training == dataclasses.replace(
        paper.training, algorithm=maml, seed=4, tasks_per_batch=3
    )
    assert (config.network, config.tasks) == (paper.network, paper.tasks)
    assert seen["seconds"] == 60
    assert seen["task_files"] == ["t.npz", "u.npz"]
    assert seen["init"].name == "small"
    assert seen["progress"] is False  # standard error is no terminal here


def write_tasks(path, distribution, seed):
    rng = np.random.default_rng(seed)
    tasks = task_sets.draw_tasks(distribution, rng, sources=2)
    task_files.save_task_set(path, tasks, distribution, seed)
    return path


def test_meta_train_on_known_wavefields(tiny, tmp_path, out, capsys):
    known = dataclasses.replace(tiny.tasks, known_points=60)
    files = [write_tasks(tmp_path / f"{seed}.npz", known, seed) for seed in (0, 1)]
    named = ",".join(map(str, files))
    options = "meta-train", f"--tasks={named}", f"--out={out}", "--objective=projection"
    options += ("--tasks_per_batch=3",)  # more than either file holds
    assert run(*options, "--iterations=2") == 0
    _, _, card = checkpoints.load_initialisation(out / "initialisation")
    assert f"--tasks={named}" in card["command"]
    assert "--objective=projection" in card["command"]
    assert card["configuration"]["objective"]["name"] == "projection"
    assert np.isfinite(card["curve"][-1]["error"])


def test_tasks_without_wavefields_are_refused(tiny, tmp_path, out, capsys, monkeypatch):
    unknown = dataclasses.replace(tiny.tasks, known_points=0)
    path = write_tasks(tmp_path / "tasks.npz", unknown, 0)
    expected = (
        "meta-lrpinn: objective projection learns from known wavefields; give tasks "
        "that have them (meta-lrpinn make-tasks --wavefields)\n"
    )
    options = "meta-train", "--objective=projection", "--iterations=1", f"--out={out}"
    assert run(*options, f"--tasks={path}") == 2
    assert capsys.readouterr().err == expected
    # Nor are there any in new tasks of a distribution without.
    monkeypatch.setitem(configs.PRESETS, "small", dataclasses.replace(tiny, tasks=unknown))
    assert run(*options) == 2
    assert capsys.readouterr().err == expected
    assert not (out / "initialisation").exists()


def test_evaluate_averages_over_seeds_and_sources(case_file, out, capsys, monkeypatch):
    calls, figures = [], []

    def solve(model, frequency, source, settings, **options):
        is_trained = settings.network.metric is not None  # random ones have none
        calls.append((is_trained, options["seed"]))
        assert np.shape(options["truth"]) == (25, 25)
        start = 0.2 if is_trained else 0.8
        history = [
            {"step": step, "relative_l2": (start + 0.1 * options["seed"]) / (1 + step)}
            for step in range(9)
        ]
        return answer(model, frequency, source, settings, np.array(0.1), options, history)

    draw = plotting.convergence_figure
    monkeypatch.setattr(
        plotting,
        "convergence_figure",
        lambda *given, **named: figures.append(given[0]) or draw(*given, **named),
    )
    monkeypatch.setattr(ml, "solve", solve)
    options = "--seeds=3 --steps=8".split()
    assert run("evaluate", f"--velocity={case_file}", *options, f"--out={out}") == 0
    assert calls == [(start, seed) for start in (True, False) for seed in range(3)]
    printed = capsys.readouterr().out
    assert re.search(r"^start +0 +2 +4 +6 +8$", printed, re.M)
    assert re.search(r"^meta_lrpinn +30.00% +10.00% +6.00%", printed, re.M)
    assert re.search(r"^random +90.00% +30.00% +18.00%", printed, re.M)
    assert list(figures[0]) == ["meta_lrpinn", "random"]


def test_evaluate_below_a_free_surface(tmp_path, out):
    small = ml.VelocityModel(np.linspace(1.6, 2.4, 9)[:, None] * np.ones(9), 0.05)
    ml.save_velocity(tmp_path / "small.npz", small)
    options = "--frequency=3 --free_surface --init=none --steps=0"
    velocity = f"--velocity={tmp_path}/small.npz"
    assert run("evaluate", velocity, *options.split(), f"--out={out}") == 0


# The console script -------------------------------------------------------------------


def test_console_script(tmp_path):
    scripts = importlib.metadata.entry_points(group="console_scripts")
    (script,) = [entry for entry in scripts if entry.name == "meta-lrpinn"]
    assert script.value == "meta_lrpinn.cli:run"
    command = pathlib.Path(sys.executable).with_name("meta-lrpinn")
    if not command.exists():
        pytest.skip("the package is not installed")
    result = subprocess.run(
        [command, "solve", "--frequency=-3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "meta-lrpinn: frequency must be positive, got -3.0 Hz\n"
    assert list(tmp_path.iterdir()) == []


def test_learn_metric(tmp_path, capsys):
    out = tmp_path / "with_metric"
    options = ["--random=1", "--steps=2", "--points=16", f"--out={out}"]
    assert run("learn-metric", *options) == 0
    network = ml.load_network(out)
    assert network.metric is not None
    assert network.checksum() == ml.load_network("meta_lrpinn").checksum()
    _, _, card = checkpoints.load_initialisation(out)
    assert card["metric"]["tasks"] == 1
    command = "meta-lrpinn learn-metric --random=1 --steps=2 --points=16"
    assert card["metric"]["command"] == command
    capsys.readouterr()
    assert run("learn-metric", *options) == 2
    assert "exists already; an initialisation is not overwritten" in capsys.readouterr().err
