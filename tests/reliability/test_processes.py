"""Threads, pools of processes and modes of JAX: the same wavefields."""

import os
import subprocess
import sys

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
# Wavefields of every solver; how they are computed is the first argument.
SCRIPT = """
import concurrent.futures
import multiprocessing
import sys

import numpy as np

import meta_lrpinn as ml
from meta_lrpinn import generators

SETTINGS = {
    "plane_waves": ml.PlaneWaves(),
    "finite_differences": ml.FiniteDifferences(tolerance=None),
    "network_features": ml.NetworkFeatures("small"),
    "gradient_training": ml.GradientTraining(
        "small", optimiser=ml.AdamW(steps=3, points=256)
    ),
}
JOBS = [(name, frequency) for name in SETTINGS for frequency in (3.0, 3.5)]


def solve(job):
    name, frequency = job
    model = generators.random_velocity(0, (15, 15), 0.05)
    field = ml.solve(model, frequency, (0.3, 0.05), SETTINGS[name])
    return np.asarray(field.scattered), np.asarray(field.at([[0.21, 0.33]]))


if __name__ == "__main__":
    if sys.argv[1] == "threads":
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(solve, JOBS))
    elif sys.argv[1] == "pool":
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
            results = list(pool.map(solve, JOBS))
    else:
        results = [solve(job) for job in JOBS]
    names = [f"{name}_{frequency:g}" for name, frequency in JOBS]
    np.savez(sys.argv[2], **{n: np.append(a, b) for n, (a, b) in zip(names, results)})
"""
# How, and in which environment.
WAYS = {
    "threads": ("threads", {}),
    "pool": ("pool", {}),
    "nans": ("alone", {"JAX_DEBUG_NANS": "1"}),
    "without preallocation": ("alone", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    "double precision": ("alone", {"JAX_ENABLE_X64": "1"}),
}


def run(folder, name, way, environment):
    script = folder / "solve.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, script, way, folder / f"{name}.npz"],
        env={**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, result.stderr
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), "alone", "alone", {})


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_the_same_wavefields(tmp_path, expected, name):
    """Bit for bit: each solver chooses its own precision."""
    way, environment = WAYS[name]
    found = run(tmp_path, name, way, environment)
    assert found.keys() == expected.keys()
    for key, field in expected.items():
        if name == "double precision" and "gradient_training" in key:
            # Differs, probably since its points are drawn in double precision.
            assert np.all(np.isfinite(found[key]))
            continue
        np.testing.assert_array_equal(found[key], field)


# So much memory may solves of one shape add after the first hundred, and what they share
# of ever new shapes [MiB]; and each new shape, of which JAX keeps what it traced.
ADDED, OF_A_SHAPE = 150.0, 0.75
MANY = """
import os
import sys

import numpy as np

import meta_lrpinn as ml
from meta_lrpinn import generators


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


number, rng = int(sys.argv[1]), np.random.default_rng(0)
first = generators.random_velocity(0, (21, 21), 0.05)
for index in range(1, number + 1):
    model = first
    if index > number // 2:
        shape = tuple(int(n) for n in rng.integers(12, 31, 2))
        model = generators.random_velocity(index, shape, 0.05)
    ml.solve(model, rng.uniform(3, 8), (0.3, 0.05))
    if index % 100 == 0 or index in (number // 2, number):
        print(index, resident(), flush=True)
"""


@pytest.mark.reliability
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_thousand_solves():
    """Half of one shape at ever new frequencies, half of ever new shapes, too."""
    number = max(200, round(1000 * float(os.environ.get("META_LRPINN_COUNTS", "1"))))
    result = subprocess.run(
        [sys.executable, "-c", MANY, str(number)],
        env={**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    memory = {int(index): float(size) for index, size in lines}
    print({index: f"{size:.0f} MiB" for index, size in memory.items()})
    half = number // 2
    assert memory[half] < memory[100] + ADDED
    assert memory[number] < memory[half] + ADDED + OF_A_SHAPE * (number - half)
