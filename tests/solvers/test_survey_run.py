"""Surveys into files: what is written, stops, refusals, and Dask."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.files import writing
from meta_lrpinn.runtime import executors
from meta_lrpinn.solvers import survey_run as engine
from meta_lrpinn.solvers.survey import Plan

xarray = pytest.importorskip("xarray")
pytest.importorskip("zarr")

FREQUENCIES = [3.0, 4.0]
SOURCES = np.array([[0.2, 0.05], [0.3, 0.05]])
RECEIVERS = np.array([[0.1, 0.05], [0.3, 0.1], [0.4, 0.05]])
DIRECT = ml.FiniteDifferences(tolerance=None)
# Which some of the wavefields reach on the finest grid that is allowed.
TIGHT = ml.FiniteDifferences(tolerance=3e-4, refinement=1, maximum_refinement=2)


def models(number=5):
    return [generators.random_velocity(seed, (11, 11), 0.05) for seed in range(number)]


def run_survey(out, settings=DIRECT, **options):
    options = {"receivers": RECEIVERS, "models_per_chunk": 2, **options}
    return ml.run_survey(models(), FREQUENCIES, SOURCES, out, settings, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The survey by one process, without a stop."""
    path = tmp_path_factory.mktemp("survey") / "whole.zarr"
    done = run_survey(path)
    assert done.solved == 20 and done.chunks == 6 and done.throughput > 0
    return path


def test_the_file_holds_what_memory_would(whole):
    survey = ml.solve_survey(models(), FREQUENCIES, SOURCES, DIRECT, receivers=RECEIVERS)
    with xarray.open_zarr(whole) as data:
        assert data.scattered.dims == ("model", "frequency", "source", "receiver")
        np.testing.assert_array_equal(data.scattered, survey.scattered)
        np.testing.assert_array_equal(data.unknowns[..., 0], survey.unknowns)
        np.testing.assert_array_equal(data.frequency, FREQUENCIES)
        np.testing.assert_array_equal(data.source_x, SOURCES[:, 0])
        np.testing.assert_array_equal(data.receiver_z, RECEIVERS[:, 1])
        assert data.frequency.units == "Hz" and data.source_x.units == "km"
        assert data.solved.all()


def test_whole_wavefields_have_the_axes_of_the_model(tmp_path):
    # So little memory that every source is a chunk of its own.
    memory = 5 * 11 * 11 * 8 / 2**30
    run_survey(tmp_path / "fields.zarr", receivers=None, memory=memory)
    survey = ml.solve_survey(models(), FREQUENCIES, SOURCES, DIRECT)
    with xarray.open_zarr(tmp_path / "fields.zarr") as data:
        assert data.scattered.dims[3:] == ("z", "x")
        assert data.scattered.data.chunksize == (1, 1, 1, 11, 11)
        np.testing.assert_allclose(data.x, 0.05 * np.arange(11))
        np.testing.assert_array_equal(data.scattered, survey.scattered)


def test_chunks_of_plane_waves_share_the_lattice_of_all(tmp_path):
    waves = ml.PlaneWaves(unknowns=120)
    run_survey(tmp_path / "waves.zarr", waves)
    survey = ml.solve_survey(models(), FREQUENCIES, SOURCES, waves, receivers=RECEIVERS)
    with xarray.open_zarr(tmp_path / "waves.zarr") as data:
        np.testing.assert_array_equal(data.scattered, survey.scattered)
        np.testing.assert_allclose(data.error_estimate, survey.error_estimates, rtol=1e-6)


def test_the_file_says_which_wavefields_reached_the_tolerance(tmp_path, contents):
    out = tmp_path / "tight.zarr"
    done = run_survey(out, TIGHT)
    survey = ml.solve_survey(models(), FREQUENCIES, SOURCES, TIGHT, receivers=RECEIVERS)
    with xarray.open_zarr(out) as data:
        assert data.converged.dtype == bool and data.converged.dims == data.solved.dims
        np.testing.assert_array_equal(data.converged, survey.converged)
    missed = np.sum(~survey.converged)
    assert 0 < missed == done.missed < 20 and done.converged is False
    again = run_survey(out, TIGHT)
    assert (again.solved, again.missed) == (0, missed)
    # The file of a version that did not keep it is left as it is.
    shutil.rmtree(out / "converged")
    metadata = json.loads((out / "zarr.json").read_text())
    del metadata["consolidated_metadata"]["metadata"]["converged"]
    (out / "zarr.json").write_text(json.dumps(metadata))
    before = contents(out)
    with pytest.raises(ValueError, match="did not keep which wavefields reached"):
        run_survey(out, TIGHT)
    assert contents(out) == before


def test_without_a_tolerance_none_is_missed(whole):
    done = run_survey(whole)
    assert done.missed is None and done.converged is None
    with xarray.open_zarr(whole) as data:
        assert "converged" not in data


class Stop(Exception):
    pass


def stop_after(monkeypatch, number):
    """Solving ends after so many models."""
    prepare = Plan.prepare

    def prepare_stopping(*arguments):
        prepared = prepare(*arguments)

        def solve(model):
            nonlocal number
            if number == 0:
                raise Stop
            number -= 1
            return prepared.solve(model)

        return dataclasses.replace(prepared, solve=solve)

    engine._prepared.cache_clear()
    monkeypatch.setattr(Plan, "prepare", prepare_stopping)


def test_the_same_call_goes_on(whole, tmp_path, monkeypatch, contents):
    out = tmp_path / "stopped.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stop):
            run_survey(out)
    engine._prepared.cache_clear()
    with xarray.open_zarr(out) as data:
        # Of the third model nothing is there: its chunk was not whole.
        assert data.solved.sum() == 2 * 2
        assert np.isfinite(data.scattered[:2, 0]).all()
        assert np.isnan(data.scattered[2:]).all()
    assert run_survey(out).solved == 16
    assert contents(out) == contents(whole)
    assert run_survey(out).solved == 0


def test_a_stop_between_the_arrays_of_a_chunk_costs_the_chunk(whole, tmp_path, contents):
    out = tmp_path / "torn.zarr"
    shutil.copytree(whole, out)
    (out / "solved/c/0/1/0").unlink()
    (out / "scattered/c/0/1/0/0").write_bytes(b"")
    assert run_survey(out).solved == 4
    assert contents(out) == contents(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"receivers": RECEIVERS[:2]}, "a survey with other receivers; give the same"),
        ({"settings": ml.FiniteDifferences()}, "other settings"),
        ({"settings": ml.PlaneWaves()}, "other settings, solver"),
        ({"amplitude": 2j, "seed": 1}, "other amplitude, seed"),
    ],
)
def test_another_survey_is_refused(whole, options, message, contents):
    before = contents(whole)
    with pytest.raises(ValueError, match=message):
        run_survey(whole, **options)
    assert contents(whole) == before


def test_what_is_no_survey_is_left_alone(tmp_path, contents):
    (tmp_path / "file").write_text("precious")
    with pytest.raises((ValueError, OSError)):
        run_survey(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(ValueError, match="is there and no survey"):
        run_survey(tmp_path)
    assert sorted(contents(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory must be positive"),
        ({"memory": 1e-9}, "one wavefield takes"),
        ({"receivers": [[9.0, 0.0]]}, "receiver .* outside"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"workers": 1, "cluster": "tcp://a:1"}, "cluster or workers, not both"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_survey(tmp_path / "out.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_survey_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    full = types.SimpleNamespace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ValueError, match="the survey takes .* GiB free"):
        run_survey(tmp_path / "out.zarr")
    assert list(tmp_path.iterdir()) == []


def test_one_run_at_a_time(whole):
    with writing.locked(whole), pytest.raises(BlockingIOError, match="in use"):
        run_survey(whole)


# Dask ---------------------------------------------------------------------------------


def test_workers_write_the_bytes_of_one_process(whole, tmp_path, contents):
    """Two threads of this process as workers, and the route of every task."""
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "dask.zarr"
    options = {"processes": False, "n_workers": 2, "threads_per_worker": 1}
    with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
        run_survey(out, cluster=cluster.scheduler_address)
    assert contents(out) == contents(whole)


def test_no_scheduler_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "_CONNECT_SECONDS", 0.2)
    with pytest.raises(OSError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        run_survey(tmp_path / "out.zarr", cluster="tcp://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


COMMAND = """
import sys
sys.path.insert(0, {tests!r})
import test_survey_run
if __name__ == "__main__":
    test_survey_run.run_survey(sys.argv[1], workers=2, models_per_chunk=1)
"""


def children(pid):
    """Processes below one."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    own = [int(child) for file in threads for child in file.read_text().split()]
    return own + [below for child in own for below in children(child)]


def is_worker(pid):
    """Whether a process computes: only workers and the first process map JAX."""
    try:
        return "jaxlib" in pathlib.Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_killed_worker_and_a_killed_run_change_no_byte(tmp_path, contents):
    script = tmp_path / "survey.py"
    script.write_text(COMMAND.format(tests=str(pathlib.Path(__file__).parent)))
    out = tmp_path / "killed.zarr"
    done = out / "solved" / "c"

    def chunks():
        return len([path for path in done.rglob("*") if path.is_file()])

    def start():
        return subprocess.Popen([sys.executable, script, out], start_new_session=True)

    def wait_for(number, process):
        while chunks() < number:
            assert process.poll() is None
            time.sleep(0.05)

    process = start()
    wait_for(2, process)
    worker = next(pid for pid in children(process.pid) if is_worker(pid))
    os.kill(worker, signal.SIGKILL)
    wait_for(5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert chunks() < 10
    assert start().wait() == 0
    run_survey(tmp_path / "alone.zarr", models_per_chunk=1)
    assert contents(out) == contents(tmp_path / "alone.zarr")
