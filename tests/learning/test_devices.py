"""Tasks spread over eight simulated devices, and over two processes, against one."""

import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import chex
import jax
import numpy as np
import pytest

from meta_lrpinn.learning import devices

ROOT = str(pathlib.Path(__file__).parents[2])

# Run in processes of their own, whose devices are set before JAX starts.
PROBLEM = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from meta_lrpinn.learning import checkpoints, configs
from meta_lrpinn.learning import maml, devices, training

jax.config.update("jax_enable_x64", True)
TASKS = 8
INNER = configs.InnerSteps(steps=2, learning_rate=0.1)
FIRST = configs.MAML(inner=INNER)
SECOND = configs.MAML(inner=INNER, first_order=False)
ADAM = configs.InnerSteps(steps=2, learning_rate=0.1, optimiser="adam")

def objective(params, task, key):
    phase = jax.random.key_data(key).astype(float) / 2.0**32
    points = jnp.sin(100 * (1 + phase) * jnp.arange(1.0, 17.0).reshape(8, 2))
    matrix = task["shift"] + jnp.tanh(points @ params["first"])
    # A solve, as in objectives that eliminate the output layer.
    gram = matrix.T @ matrix + jnp.eye(4)
    last = jnp.linalg.solve(gram, matrix.T @ jnp.sin(points @ task["direction"]))
    loss = jnp.mean((matrix @ last - 1) ** 2) + jnp.sum(params["bias"] ** 2)
    return loss, {"last": jnp.sum(last)}

def tasks(seed, step=0):
    rng = np.random.default_rng((seed, step))
    shapes = {"direction": (TASKS, 2), "shift": (TASKS,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}

def sampler(seed, step):
    return tasks(seed, step), tasks(seed + 100, step)

def parameters():
    rng = np.random.default_rng(3)
    return {"first": rng.normal(size=(2, 4)), "bias": rng.normal(size=(4,))}

def gradient(mesh, algorithm, task_axis="vmap"):
    ours = devices.local_tasks(TASKS, mesh)
    support, query = (
        devices.shard_tasks(jax.tree.map(lambda leaf: leaf[ours], tasks(seed)), mesh)
        for seed in (1, 2)
    )
    function = devices.sharded_meta_gradient(objective, mesh, algorithm, task_axis)
    params = devices.replicate(parameters(), mesh)
    result = jax.jit(function)(params, support, query, jax.random.key(5))
    return jax.tree.map(np.asarray, devices.local_copy(result))

def agree(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)

def train(directory, mesh, iterations):
    config = configs.TrainingConfig(
        iterations=iterations, tasks_per_batch=TASKS, checkpoint_every=2,
        evaluate_every=2, log_every=1,
    )
    evaluate = lambda params, step: {"size": float(jnp.sum(params["first"] ** 2))}
    state = training.train(
        config, objective, sampler, parameters(), directory, mesh=mesh,
        evaluate=evaluate, progress=False,
    )
    return jax.tree.map(np.asarray, devices.local_copy(state.params))
"""

EIGHT_DEVICES = """
assert jax.device_count() == 8
one, eight = devices.task_mesh(jax.devices()[:1]), devices.task_mesh()
whole, split = devices.replicated(eight), devices.shard_tasks(tasks(1), eight)
assert len(split["direction"].sharding.device_set) == 8
assert split["direction"].addressable_data(3).shape == (1, 2)
whole_gradient = jax.jit(maml.gradient, static_argnums=(0, 5, 6))
reptile = configs.Reptile(inner=ADAM)
keys = jax.random.split(jax.random.key(5), TASKS)
for options in ((SECOND, "vmap"), (FIRST, "map"), (reptile, "vmap")):
    alone = whole_gradient(objective, parameters(), tasks(1), tasks(2), keys, *options)
    agree(alone, gradient(eight, *options))

directory = sys.argv[1]
train(directory, eight, 4)
resumed = train(directory, one, 8)  # from eight devices to one
agree(resumed, train(directory + "-unbroken", one, 8))
saved, _, step = checkpoints.load_run_parameters(directory, "latest")
assert step == 8 and len(saved["first"].sharding.device_set) == 1
agree(saved, resumed)
try:
    devices.shard_tasks(jax.tree.map(lambda leaf: leaf[:5], tasks(1)), eight)
except ValueError as error:
    assert "got 5 tasks for 8 devices" in str(error)
else:
    raise AssertionError("five tasks went to eight devices")
"""

TWO_PROCESSES = """
address, process, directory = sys.argv[1:]
devices.initialise_distributed(address, 2, int(process))
assert jax.process_count() == 2 and jax.device_count() == 2
mesh = devices.task_mesh()
ours = devices.local_tasks(TASKS, mesh)
assert (ours.start, ours.stop) == (4 * int(process), 4 * int(process) + 4)
result = gradient(mesh, SECOND)
train(directory, mesh, 2)
trained = train(directory, mesh, 4)
np.savez(f"{directory}/process_{process}.npz", *jax.tree.leaves((result, trained)))
"""

ONE_PROCESS = """
directory = sys.argv[1]
mesh = devices.task_mesh()
trained = train(directory, mesh, 4)
result = gradient(mesh, SECOND)
np.savez(f"{directory}/alone.npz", *jax.tree.leaves((result, trained)))
"""


def start(script: str, *arguments: str, devices: int = 1) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(
            (
                os.environ.get("XLA_FLAGS", ""),
                f"--xla_force_host_platform_device_count={devices}",
            )
        ),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROBLEM + textwrap.dedent(script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, output


def test_eight_devices_give_what_one_gives(tmp_path):
    finish(start(EIGHT_DEVICES, str(tmp_path / "run"), devices=8))


def test_two_processes_give_what_one_gives(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    processes = [
        start(TWO_PROCESSES, address, str(number), str(shared)) for number in range(2)
    ]
    for process in processes:
        finish(process)
    finish(start(ONE_PROCESS, str(alone)))

    with np.load(alone / "alone.npz") as file:
        expected = dict(file)
    for number in range(2):
        with np.load(shared / f"process_{number}.npz") as file:
            chex.assert_trees_all_close(dict(file), expected, rtol=1e-11, atol=1e-14)
    rows = (shared / "training.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3", "4"]


def test_a_mesh_of_one_device_holds_all_tasks():
    mesh = devices.task_mesh(jax.devices()[:1])
    tasks = {"velocity": np.ones((3, 4, 5), np.float32)}
    placed = devices.shard_tasks(tasks, mesh)
    chex.assert_trees_all_equal(placed, tasks)
    assert devices.local_tasks(3, mesh) == slice(0, 3)


def test_replicas_may_be_donated():
    mesh = devices.task_mesh(jax.devices()[:1])
    given = {"weights": np.ones(1000, np.float32)}
    replica = devices.replicate(given, mesh)
    increase = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0
    )
    chex.assert_trees_all_equal(increase(replica), {"weights": np.full(1000, 2.0)})
    chex.assert_trees_all_equal(given, {"weights": np.ones(1000, np.float32)})


def test_half_an_address_is_refused():
    with pytest.raises(ValueError, match="go together, got localhost:1, None, None"):
        devices.initialise_distributed("localhost:1")


def test_without_an_address_nothing_is_initialised():
    devices.initialise_distributed()
    assert jax.process_count() == 1
