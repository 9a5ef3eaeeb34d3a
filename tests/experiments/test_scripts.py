"""Every script runs for a few steps and leaves its table and figure."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn.files.cases import load_case, load_velocity
from meta_lrpinn.learning import checkpoints, configs, task_files

ROOT = Path(__file__).parents[2]


def run(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("name", "arguments", "files"),
    [
        pytest.param(
            "accuracy",
            ("--frequencies=3", "--wavenumber_ratios=1.1,1.3", "--models=2"),
            ("errors.csv", "table.md", "figure.png"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "absorbing_layer",
            ("--frequencies=3", "--thicknesses=1,0.5", "--waves=1", "--models=1"),
            ("errors.csv", "table.md", "figure.png"),
            marks=pytest.mark.slow,
        ),
        (
            "inversion",
            ("--frequencies=3", "--iterations=1", "--sources=2", "--receivers=8"),
            ("layered.npz", "table.md", "layered.png"),
        ),
    ],
)
def test_experiment(name, arguments, files, tmp_path):
    result = run(f"experiments.{name}", f"--out={tmp_path}", *arguments)
    assert result.returncode == 0, result.stderr
    for file in files:
        assert (tmp_path / name / file).stat().st_size > 0


def test_unknowns_for_an_error_lie_between_the_sizes():
    curve = [(100, 0.5), (400, 0.05), (800, 0.01)]
    assert common.needed(curve, 0.05) == pytest.approx(400)
    # A power law, half way in the logarithms.
    assert common.needed(curve, (0.5 * 0.05) ** 0.5) == pytest.approx(200)
    assert common.needed(curve, 0.6) == 100
    assert common.needed(curve, 0.001) == np.inf


def test_missing_data_is_one_line(tmp_path):
    missing = f"--data={tmp_path / 'nowhere'}"
    result = run("experiments.marmousi", f"--out={tmp_path}", missing)
    assert result.returncode == 2
    assert "there is no" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_records_are_measured_once_and_survive(tmp_path):
    calls = []

    def measure():
        calls.append(1)
        return [{"error": 0.5}, {"error": 0.25}]

    for _ in range(2):
        records = common.Records(tmp_path / "a.csv", ("case", "seed"))
        rows = records.ensure({"case": "x", "seed": 1}, measure)
        assert [row["error"] for row in rows] == [0.5, 0.25]
    assert len(calls) == 1
    records.ensure({"case": "x", "seed": 2}, measure)
    assert len(calls) == 2


def test_fingerprints_tell_networks_of_one_name_apart():
    network = ml.load_network("meta_lrpinn")
    others = [
        dataclasses.replace(network, metric=None),
        dataclasses.replace(network, params=jax.tree.map(lambda p: 2 * p, network.params)),
        network,
    ]
    found = [common.fingerprint(other) for other in others]
    assert len(set(found)) == 3
    assert found[-1] == common.fingerprint(ml.load_network("meta_lrpinn"))


def test_records_find_a_fingerprint_that_looks_like_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "checksum", lambda _: "12e4" + 60 * "0")
    start = common.fingerprint(ml.load_network("meta_lrpinn"))
    for error in (0.5, 0.25):
        records = common.Records(tmp_path / "a.csv", ("start",))
        (row,) = records.at((start,), lambda error=error: [{"error": error}])
        assert row["error"] == 0.5


def test_task_set_of_models_and_frequencies(tmp_path):
    path = tmp_path / "tasks.npz"
    options = "--preset=paper", "--models=2", "--frequencies=2,8.5,15"
    result = run("data_gen.make_tasks", f"--out={path}", *options)
    assert result.returncode == 0, result.stderr
    distribution = configs.TaskDistribution()
    tasks = task_files.load_task_set(path, distribution)
    chex.assert_shape(tasks.velocities, (6, 1, 91, 91))
    frequencies = tasks.problem.omega / (2 * np.pi)
    np.testing.assert_allclose(frequencies, 2 * [2.0, 8.5, 15.0], rtol=1e-6)
    assert path.with_suffix(".json").exists()


def test_random_task_set_with_wavefields(tmp_path):
    path = tmp_path / "tasks.npz"
    result = run(
        "data_gen.make_tasks", f"--out={path}", "--preset=small", "--random=3",
        "--sources=2", "--wavefields", "--points=50",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tasks = task_files.load_task_set(path, configs.PRESETS["small"].tasks)
    chex.assert_shape([tasks.scattered, tasks.points], [(3, 8, 50), (3, 50, 2)])
    assert np.abs(tasks.scattered).max(axis=2).min() > 0
    # The first two share all but their sources, and the points.
    np.testing.assert_array_equal(tasks.velocities[0], tasks.velocities[1])
    assert tasks.problem.omega[0] == tasks.problem.omega[1] != tasks.problem.omega[2]
    assert len(set(tasks.problem.source[:, 0].tolist())) == 3


def test_task_set_of_models_with_wavefields(tmp_path):
    path = tmp_path / "tasks.npz"
    result = run(
        "data_gen.make_tasks", f"--out={path}", "--preset=small", "--models=1",
        "--frequencies=2,5", "--wavefields", "--points=40",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    tasks = task_files.load_task_set(path, configs.PRESETS["small"].tasks)
    chex.assert_shape(tasks.scattered, (2, 8, 40))
    assert np.abs(tasks.scattered).max(axis=2).min() > 0
    # The eight of a task at both frequencies, and all different.
    np.testing.assert_array_equal(tasks.velocities[0], tasks.velocities[1])
    assert len(np.unique(tasks.velocities[0].sum(axis=(1, 2)))) == 8


def test_wavefields_need_a_layer(tmp_path):
    path = tmp_path / "tasks.npz"
    options = "--preset=paper", "--random=1", "--wavefields"
    result = run("data_gen.make_tasks", f"--out={path}", *options)
    assert result.returncode == 2 and not path.exists()
    assert "wavefields need a preset with an absorbing layer" in result.stderr


def test_task_set_goes_on_where_it_was_stopped(tmp_path):
    """And is the one of an unbroken call; not of other options."""
    distribution = configs.TaskDistribution(
        smallest_size=5, largest_size=6, absorbing=True, known_points=4
    )
    plain = task_files.at_random(distribution, 7, sources=2)
    options = {"number": 7, "seed": 3, "distribution": distribution, "part": 3}
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    task_files.collect(whole, plain, settings={"sources": 2}, **options)
    seen = []

    def stopped(rng, done):
        seen.append(done)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return plain(rng, done)

    with pytest.raises(KeyboardInterrupt):
        task_files.collect(broken, stopped, settings={"sources": 2}, **options)
    assert not broken.exists()
    with pytest.raises(ValueError, match=r"broken.parts holds tasks of other options"):
        task_files.collect(broken, plain, settings={"sources": 1}, **options)
    task_files.collect(broken, stopped, settings={"sources": 2}, **options)
    assert seen == [0, 2, 4, 6, 4, 6]  # those after the last part once more
    with np.load(whole) as one, np.load(broken) as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    manifests = [path.with_suffix(".json").read_text() for path in (whole, broken)]
    assert manifests[0] == manifests[1]
    assert {path.name for path in tmp_path.iterdir()} == {
        "whole.npz", "whole.json", "broken.npz", "broken.json"
    }  # fmt: skip


def test_velocity_files_and_their_references(tmp_path):
    models = tmp_path / "models"
    shape = "--shape=31,31"
    assert run("data_gen.make_velocity", f"--out={models}", shape).returncode == 0
    path = models / "random_0.npz"
    assert load_velocity(path).shape == (31, 31)
    cases = tmp_path / "cases"
    result = run(
        "data_gen.make_references",
        f"--velocity={path}",
        "--frequencies=4",
        f"--out={cases}",
    )
    assert result.returncode == 0, result.stderr
    case = load_case(cases / "random_0_4hz.npz")
    assert case.frequency == 4.0
    assert np.abs(case.scattered).max() > 0
