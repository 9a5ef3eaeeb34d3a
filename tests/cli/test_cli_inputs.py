"""Inputs of the command line that are refused before anything is computed."""

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import cli, generators
from meta_lrpinn.cli import traces
from meta_lrpinn.files import cases
from meta_lrpinn.results import trace_files
from meta_lrpinn.runtime import machine

VELOCITY = generators.random_velocity(0, (11, 11), 0.05).velocity
TRACES = (
    "traces", "--velocity=model.npz", "--source=0.1,0.05", "--receivers=0.3,0.05",
    "--solver=finite_differences",
)  # fmt: skip
SOLVE = ("solve", "--velocity=model.npz", "--frequency=5")


def refused(arguments, message, capsys, code=2):
    assert cli.main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ml.save_velocity("model.npz", ml.VelocityModel(VELOCITY, 0.05))
    slowness = np.minimum(VELOCITY, 3.0) ** -2.0  # all values could be slow velocities
    np.savez("slowness.npz", velocity=slowness, spacing=0.05)
    np.save("slowness.npy", slowness)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "--velocity=slowness.npz", "--frequency=5"),
        (
            "survey", "--velocity=slowness.npy", "--spacing=0.05", "--frequencies=5",
            "--sources=0.1,0.1", "--out=s.zarr",
        ),
    ],
)  # fmt: skip
def test_slowness_squared_is_not_taken_for_velocity(arguments, here, capsys):
    before = sorted(here.iterdir())
    refused(arguments, "is it slowness (unit='s/km') or slowness squared", capsys)
    assert sorted(here.iterdir()) == before


def test_slow_velocities_are_read_where_the_unit_is_given(here):
    np.savez("soil.npz", velocity=np.linspace(0.15, 0.45, 12).reshape(4, 3), spacing=1e-3)
    with pytest.raises(ValueError, match="at most 0.45: is it slowness"):
        cases.load_velocity("soil.npz")
    model = cases.load_velocity("soil.npz", unit="km/s")
    assert (model.minimum, model.maximum) == (0.15, 0.45)
    np.savez("soil.npz", velocity=1000 * np.asarray(model.velocity), spacing=1.0)
    metres = cases.load_velocity("soil.npz", unit="m/s")
    assert metres.maximum == pytest.approx(0.45) and metres.spacing[0] == 1e-3


@pytest.mark.parametrize("name", ["q.png", "q.PNG", "run/field.html"])
def test_a_folder_with_the_name_of_a_file(name, here, capsys):
    before = sorted(here.iterdir())
    refused((*SOLVE, f"--out={name}"), "has the name of a file", capsys)
    refused(("meta-train", f"--out={name}"), "has the name of a file", capsys)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("seconds", ["nan", "-1", "0", "inf"])
def test_seconds_of_meta_training(seconds, here, capsys):
    refused(
        ("meta-train", "--out=run", f"--seconds={seconds}"),
        "seconds must be positive and finite",
        capsys,
    )
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--record=32.767", "--peak_frequency=3", "--step=0.001"),
        # The step follows from the wavelet: 7 ms.
        ("--record=400", "--peak_frequency=5"),
    ],
)
def test_length_of_segy_traces(options, here, capsys, monkeypatch):
    pytest.importorskip("segyio")
    monkeypatch.setattr(ml, "time_traces", None)  # nothing is computed
    command = (*TRACES, *options, "--out=t.sgy")
    refused(command, "a SEG-Y trace has at most 32,767 samples", capsys)
    trace_files.check_path(here / "t.sgy", 0.001, 32_767)
    with pytest.raises(ValueError, match="not 32,768; choose a longer step"):
        trace_files.check_path(here / "t.sgy", 0.001, 32_768)


def test_memory_that_xla_does_not_get(here, capsys, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 12345 bytes")

    monkeypatch.setattr(ml, "solve", exhausted)
    refused(SOLVE, "needs more memory than there is; choose a smaller", capsys, code=1)
    assert [path.name for path in here.glob("wavefield*")] == []

    def broken(*_, **__):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(ml, "solve", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main(SOLVE)


TRAIN, TASKS = ("meta-train", "--out=run"), ("make-tasks", "--out=tasks.npz")
SURVEY = (
    "survey", "--velocity=model.npz", "--sources=0.1,0.05", "--frequencies=3",
    "--out=s.zarr",
)  # fmt: skip
EVERYWHERE = "0.11:0.4:1000,0.06:0.3:1000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*SOLVE, f"--source={EVERYWHERE}"),
            "1,000,000 wavefields on 11 x 11 points take 3.61 GiB or more, this machine "
            "has 2 GiB; solve for fewer sources or frequencies at a time, or by run_survey",
        ),
        (
            (*SOLVE, "--solver=gradient_training", "--points=2000000000"),
            "features at 2,000,000,000 points a step take",
        ),
        (
            (*TRACES, "--record=1", "--peak_frequency=3", f"--receivers={EVERYWHERE}"),
            "1 x 1,000,000 traces of",
        ),
        (
            (*TRACES, "--record=1", "--peak_frequency=3", "--movie=a.gif",
             "--source=0.1:0.4:300000,0.1"),
            "snapshots of 300,000 sources from",
        ),
        ((*TRAIN, "--points=2000000000"), "tasks with 2,000,000,000 points each take"),
        ((*TRAIN, "--tasks_per_batch=2000000"), "batches of 2,000,000 tasks with"),
        (
            (*TRAIN, "--preset=own_output", "--inner_steps=2000000000"),
            "inner_steps must be at most 1,000,000",
        ),
        ((*TRAIN, "--points=0"), "points must be positive, got 0"),
        ((*TRAIN, "--learning_rate=inf"), "learning_rate must be positive, got inf"),
        ((*TRAIN, "--seed=-1"), "seed must be 0 to 4294967295, got -1"),
        (
            (*TASKS, "--random=1000000", "--sources=1000000"),
            "1,000,000 tasks, which are read whole, take",
        ),
        (
            (*TASKS, "--preset=own_output", "--random=1", "--wavefields",
             "--points=1000000000"),
            "points must be at most 10,000,000, got 1000000000",
        ),
        ((*SURVEY, "--memory=1e300"), "memory must be positive and at most 1,000,000 GiB"),
        ((*TASKS, "--frequencies=3,inf"), "frequency must be positive, got inf Hz"),
        ((*TASKS, "--frequencies=3,1e300"), "is the frequency in Hz"),
        ((*TASKS, "--seed=-1"), "seed must be from 0 to 4294967295, got -1"),
    ],
)  # fmt: skip
def test_sizes_are_checked_before_anything_is_built(
    arguments, message, here, capsys, monkeypatch
):
    monkeypatch.setattr(machine, "machine_memory", lambda: 2.0 * 2**30)
    before = sorted(here.iterdir())
    refused(arguments, message, capsys)
    assert sorted(here.iterdir()) == before


TIMES = 0.01 * np.arange(61)
RICKER = (1 - TIMES) * TIMES


@pytest.mark.parametrize("name", ["wavelet.txt", "wavelet.npy"])
def test_a_wavelet_of_two_columns_has_times(name, here, capsys):
    save = np.save if name.endswith("npy") else np.savetxt
    for columns, step in ((RICKER, None), (RICKER[:, None], None)):
        save(name, columns)
        found, times = traces.samples(name)
        np.testing.assert_allclose(found, RICKER)
        assert times is step
    save(name, np.stack([TIMES, RICKER], axis=1))
    found, step = traces.samples(name)
    np.testing.assert_allclose(found, RICKER)
    assert step == 0.01
    command = (*TRACES, "--record=1", f"--wavelet={name}", "--out=t.npz")
    refused((*command, "--step=0.02"), "--step is 0.02 s, but the times in", capsys)
    save(name, np.stack([TIMES**2, RICKER], axis=1))
    refused(command, "the times of its first column are not evenly spaced", capsys)
    save(name, np.stack([TIMES - 0.3, RICKER], axis=1))
    refused(command, "its times begin at -0.3 s; let them begin at zero", capsys)
    save(name, np.stack([TIMES, RICKER, RICKER], axis=1))
    refused(command, "one column of samples, or two of times and samples", capsys)


def test_sources_with_weights_have_one_wavefield(here, capsys):
    command = ("solve", "--solver=finite_differences", "--frequency=4", "--compare=none")
    two = ("--velocity=model.npz", "--source=0.1,0.05;0.3,0.1", "--weights=1,-2i")
    assert cli.main((*command, *two, "--out=shot.npz")) == 0
    case = ml.load_case("shot.npz")
    assert case.weights.tolist() == [1, -2j] and case.scattered.shape == VELOCITY.shape
    capsys.readouterr()
    again = (
        "solve",
        "--solver=finite_differences",
        "--velocity=shot.npz",
        "--out=again.npz",
    )
    assert cli.main(again) == 0
    assert "vs published" in capsys.readouterr().out
    refused((*command, two[0], "--weights=1,2"), "weights are of several sources", capsys)
    refused((*command, *two[:2], "--weights=1"), "one number for each of 2", capsys)
    refused((*command, *two[:2], "--weights=a"), "weights must be numbers", capsys)
