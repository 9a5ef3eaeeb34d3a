"""A run that is broken off, however often, ends where an unbroken one does."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.learning import checkpoints, configs, run_log, training

ROOT = str(pathlib.Path(__file__).parents[2])
ITERATIONS = 150
KILLS = 12
CONFIG = configs.TrainingConfig(
    algorithm=configs.MAML(first_order=False, learning_rate=1e-2),
    iterations=ITERATIONS,
    schedule=configs.Staircase(decay_every=20),
    clip_norm=1.0,
    tasks_per_batch=3,
    evaluate_every=10,
    checkpoint_every=7,
    log_every=3,
)
KILL_IN_WRITE = "KILL_IN_WRITE"


def objective(params, task, key):
    """A small network that learns sin(a·x)."""
    # Compiles in a tenth of the time of jax.random.normal.
    phase = jax.random.key_data(key).astype(jnp.float32) / 2.0**32
    points = 2 * jnp.sin(10 * (1 + phase) * jnp.arange(1.0, 33.0).reshape(16, 2))
    misfit = jnp.tanh(points @ params["first"]) @ params["last"]
    misfit = misfit - jnp.sin(points @ task["direction"])
    return jnp.mean(misfit**2), {}


def sampler(seed, step):
    rng = np.random.default_rng((seed, step))
    support, query = (
        {"direction": rng.normal(size=(3, 2)).astype(np.float32)} for _ in range(2)
    )
    return support, query


def parameters():
    rng = np.random.default_rng(0)
    shapes = {"first": (2, 8), "last": (8,)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def evaluate(params, step):
    return {"error": float(jnp.sum(params["last"] ** 2))}


def run(directory, config=CONFIG, sample=sampler):
    return training.train(
        config,
        objective,
        sample,
        parameters(),
        directory,
        evaluate=evaluate,
        progress=False,
    )


def rows(directory, name, columns):
    path = directory / f"{name}.csv"
    return [[row.get(c) for c in columns] for row in run_log.read_rows(path)]


def assert_same_run(one, other):
    for name, columns in {
        "training": ["step", "loss", "support_loss", "gradient_norm"],
        "evaluation": ["step", "error"],
    }.items():
        assert rows(one, name, columns) == rows(other, name, columns)


class BrokenOff(Exception):
    """Stands for whatever ends a process."""


ADAM = configs.InnerSteps(steps=3, optimiser="adam")
ALGORITHMS = {
    "maml": CONFIG.algorithm,
    "joint": configs.JointTraining(),
    "multi_step": configs.MultiStepMAML(inner=ADAM, step=0.3),
    "reptile": configs.Reptile(inner=ADAM, step=0.3),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_loop_broken_off_at_random_steps(tmp_path, algorithm):
    config = dataclasses.replace(CONFIG, iterations=40, algorithm=ALGORITHMS[algorithm])
    unbroken = run(tmp_path / "unbroken", config)
    rng = np.random.default_rng(5)
    breaks = 0
    broken = None
    while broken is None:
        left = iter(range(rng.integers(1, 20)))

        def sample(seed, step, left=left):
            if next(left, None) is None:
                raise BrokenOff
            return sampler(seed, step)

        try:
            broken = run(tmp_path / "broken", config, sample)
        except BrokenOff:
            breaks += 1
    assert breaks >= 3
    chex.assert_trees_all_equal(broken, unbroken)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path):
    config = dataclasses.replace(CONFIG, iterations=5)
    one, same = run(tmp_path / "one", config), run(tmp_path / "same", config)
    chex.assert_trees_all_equal(one, same)
    other = run(tmp_path / "other", dataclasses.replace(config, seed=1))
    assert not np.array_equal(one.params["first"], other.params["first"])


def child(directory):
    """What the processes to be killed run."""
    if os.environ.get(KILL_IN_WRITE):
        save = checkpoints.ocp.JsonCheckpointHandler.async_save

        async def save_and_die(*args, **kwargs):
            await save(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoints.ocp.JsonCheckpointHandler.async_save = save_and_die

    def sample(seed, step):
        print(step, flush=True)
        return sampler(seed, step)

    params = run(directory, sample=sample).params
    np.savez(f"{directory}/last.npz", **params)


def start(directory, kill_in_write=False):
    return subprocess.Popen(
        [sys.executable, __file__, str(directory)],
        env={
            **os.environ,
            "PYTHONPATH": ROOT,
            "JAX_PLATFORMS": "cpu",
            KILL_IN_WRITE: "1" if kill_in_write else "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_killed_at_random_moments(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    reference = start(unbroken)
    rng = np.random.default_rng(0)
    in_write = 0
    for number in range(KILLS):
        write = number in (3, 8)
        process = start(broken, kill_in_write=write)
        if not write:
            # Batches are drawn as updates proceed, so that these count updates.
            for _ in range(rng.integers(1, 25)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, errors
        in_write += bool(list(broken.glob("checkpoints/*.orbax-checkpoint-tmp*")))
    assert in_write >= 2
    for process in (reference, start(broken)):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

    with np.load(unbroken / "last.npz") as one, np.load(broken / "last.npz") as other:
        chex.assert_trees_all_equal(dict(other), dict(one))
    assert_same_run(broken, unbroken)
    assert not list(broken.glob("checkpoints/*tmp*"))


if __name__ == "__main__":
    child(pathlib.Path(sys.argv[1]))
