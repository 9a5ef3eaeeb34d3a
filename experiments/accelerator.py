"""Pace of everything that trains or solves, on whatever device JAX finds.

Within ten minutes on one GPU, and with small --accelerator_* flags on a CPU:

- the device's rate of float32 matrix products;
- seconds of a step of adaptation (value and gradient of the scaled loss) for the paper's
  network (6 × 320, rank 100, 4,000 points) and for the shipped one (3 × 192, rank 64),
  and the part of the matrix rate that its products reach;
- with --torch, which needs PyTorch, the same step as published: nested automatic
  differentiation;
- seconds of a meta-iteration of the preset `paper`, and what 50,000 take; and of
  `own_output`, its tasks at once (`--task_axis=vmap`) and one after the other (`map`);
- wavefields per second of surveys at 5 Hz: plane waves, finite differences, and an exact
  solve over the shipped features.

`META_LRPINN_PRECISION=tensorfloat32` runs all of it with products in TF32, on GPUs that
have it. The figures are written as <out>/accelerator/<device>.json too.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common, histories
from meta_lrpinn import generators, models
from meta_lrpinn.learning import configs, devices, networks, objectives, task_sets, training
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.physics import problem
from meta_lrpinn.runtime import scripts
from meta_lrpinn.runtime.precision import full_precision, matrix_precision

FLAGS = flags.FLAGS
NAME = "accelerator"
flags.DEFINE_integer("accelerator_repeats", 10, "Calls of each.", lower_bound=1)
flags.DEFINE_integer("accelerator_matrix", 2048, "Rows of the square matrices.")
flags.DEFINE_integer("accelerator_velocities", 100, "Of the surveys.", lower_bound=1)
flags.DEFINE_integer("accelerator_sources", 10, "Of the surveys.", lower_bound=1)
flags.DEFINE_integer("accelerator_points", 4000, "Of the paper's step.", lower_bound=4)
flags.DEFINE_bool("torch", False, "Also the published step, in PyTorch.")

_FREQUENCY = 5.0
_FIRST_SEED = 940_000

Row = dict[str, Any]


def seconds_of(call: Callable[[], Any]) -> float:
    """The fastest of some calls, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(FLAGS.accelerator_repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)


def matrix_rate() -> float:
    """GFLOP/s of a product of two square matrices in the precision of the package."""
    number = FLAGS.accelerator_matrix
    matrix = jax.random.normal(jax.random.key(0), (number, number))
    product = jax.jit(full_precision(jnp.matmul))
    return 2e-9 * number**3 / seconds_of(lambda: product(matrix, matrix))


def products(network: configs.NetworkConfig, points: int) -> float:
    """GFLOP of the matrix products in a step of adaptation.

    A value with its derivatives passes 1 + 2 ndim rows of each point through the factors
    of every layer; the gradient, for which it is computed again, makes four times that.
    """
    hidden = network.depth * 2 * network.width * network.rank
    rows = (1 + 2 * network.ndim) * points
    return 4 * 2e-9 * rows * (hidden + (network.ndim + 3) * network.width)


def step_case(network: configs.NetworkConfig, points: int) -> tuple[Callable, Any, Any]:
    """Objective, pruned parameters and task of a step on the layered model."""
    module = networks.make_network(network)
    params = models.initial_parameters(module, jax.random.key(0))
    module, params = models.prune_hypernetwork(module, params, _FREQUENCY)
    model = generators.builtin("layered")
    made = problem.make_problem(model, _FREQUENCY, (1.125, 0.025))
    task = single_task(jax.tree.map(jnp.asarray, objectives.unit_problem(made)))
    return objectives.own_output_objective(module, points), params, task


def step(name: str, network: configs.NetworkConfig, points: int, rate: float) -> Row:
    """Seconds of a step of adaptation, and the part of the matrix rate it reaches."""
    objective, params, task = step_case(network, points)
    gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))
    key = jax.random.key(1)
    seconds = seconds_of(lambda: gradient(params, task, key))
    work = products(network, points)
    return {
        "what": f"adaptation step, {name}",
        "seconds": seconds,
        "figure": f"{work / seconds:.3g} GFLOP/s of products, "
        f"{work / seconds / rate:.0%} of the matrix rate",
    }


def torch_step(network: configs.NetworkConfig, points: int) -> Row:
    """The same step with PyTorch and nested automatic differentiation, as published."""
    import torch

    torch.manual_seed(0)
    width, rank = network.width, network.rank
    sizes = [(network.ndim + 1, width)]
    first = torch.nn.Linear(*sizes[0])
    factors = [
        torch.nn.Parameter(torch.randn(width, rank) / width**0.5)
        for _ in range(2 * network.depth)
    ]
    values = [torch.nn.Parameter(torch.ones(rank)) for _ in range(network.depth)]
    last = torch.nn.Linear(width, 2)
    parameters = [*first.parameters(), *factors, *values, *last.parameters()]
    squared = torch.full((points, 1), 1.0)

    def loss():
        place = torch.rand(points, network.ndim + 1, requires_grad=True)
        hidden = torch.sin(first(place))
        for index, sigma in enumerate(values):
            left, right = factors[2 * index], factors[2 * index + 1]
            hidden = torch.sin(((hidden @ right) * sigma) @ left.T)
        output = last(hidden)
        total = 0.0
        for part in (0, 1):
            gradient = torch.autograd.grad(output[:, part].sum(), place, create_graph=True)[
                0
            ]
            second = [
                torch.autograd.grad(gradient[:, axis].sum(), place, create_graph=True)[0][
                    :, axis
                ]
                for axis in range(network.ndim)
            ]
            remainder = sum(second) + squared[:, 0] * output[:, part]
            total = total + (remainder**2).mean()
        return torch.autograd.grad(total, parameters)

    loss()
    times = []
    for _ in range(FLAGS.accelerator_repeats):
        began = time.perf_counter()
        loss()
        times.append(time.perf_counter() - began)
    return {
        "what": "adaptation step, paper's network, PyTorch on the CPU",
        "seconds": min(times),
        "figure": "nested automatic differentiation",
    }


def meta_iteration(name: str, task_axis: str) -> Row:
    """Seconds of a meta-iteration of a preset, its tasks at once or one by one."""
    preset = configs.PRESETS[name]
    config = dataclasses.replace(preset.training, task_axis=task_axis)
    model = networks.make_network(preset.network)
    points = min(FLAGS.accelerator_points, preset.objective.points)
    objective = objectives.make_objective(
        dataclasses.replace(preset.objective, points=points), model
    )
    params = models.initial_parameters(model, jax.random.key(0))
    mesh = devices.task_mesh()
    update = training.make_update(config, objective, mesh)
    batch = task_sets.streaming_sampler(preset.tasks, config)(0, 0)
    support, query = (devices.shard_tasks(tasks, mesh) for tasks in batch)
    state = [devices.replicate(training.initial_state(config, params), mesh)]

    def iterate():
        state[0], scalars = update(state[0], support, query)
        return scalars

    seconds = seconds_of(iterate)
    figure = f"{seconds / config.tasks_per_batch:.3g} s a task"
    if name == "paper":
        days = config.iterations * seconds / 86_400
        figure += f"; {config.iterations:,} iterations take {days:.3g} days"
    what = f"meta-iteration, preset {name}, {points} points, {task_axis}"
    return {"what": what, "seconds": seconds, "figure": figure}


def survey(name: str, settings: Any) -> Row:
    """Wavefields per second of a survey, compilation excluded."""
    number = FLAGS.accelerator_velocities
    velocities = [
        generators.random_velocity(_FIRST_SEED + index) for index in range(number)
    ]
    sources = np.stack(
        [
            np.linspace(0.3, 1.95, FLAGS.accelerator_sources),
            np.full(FLAGS.accelerator_sources, 0.025),
        ],
        axis=-1,
    )
    ml.solve_survey(velocities, [_FREQUENCY], sources, settings)  # compiles
    result = ml.solve_survey(velocities, [_FREQUENCY], sources, settings)
    return {
        "what": f"survey, {name}",
        "seconds": result.elapsed,
        "figure": f"{result.throughput:.3g} wavefields/s",
    }


def measure() -> list[Row]:
    """All rows of the table."""
    rate = matrix_rate()
    rows: list[Row] = [
        {
            "what": f"float32 matrix product, precision {matrix_precision()}",
            "seconds": 2e-9 * FLAGS.accelerator_matrix**3 / rate,
            "figure": f"{rate:.4g} GFLOP/s",
        }
    ]
    paper, own = configs.PRESETS["paper"].network, configs.PRESETS["own_output"].network
    points = FLAGS.accelerator_points
    rows.append(step(f"paper's network, {points} points", paper, points, rate))
    for number in (576, 2304):
        rows.append(step(f"shipped network, {number} points", own, number, rate))
    if FLAGS.torch:
        rows.append(torch_step(paper, points))
    rows.append(meta_iteration("paper", "vmap"))
    rows += [meta_iteration("own_output", axis) for axis in configs.TASK_AXES]
    solvers = {
        "plane waves": ml.PlaneWaves(),
        "finite differences": ml.FiniteDifferences(tolerance=None),
        "shipped features": ml.NetworkFeatures(
            ml.load_network("default").prune(_FREQUENCY)
        ),
    }
    rows += [survey(name, settings) for name, settings in solvers.items()]
    return rows


def main() -> None:
    """Measures everything anew, then writes the table, its figure and a JSON file."""
    rows = measure()
    device = jax.devices()[0].device_kind
    size = (
        f"{FLAGS.accelerator_velocities} velocities × {FLAGS.accelerator_sources} sources"
    )
    note = f"Device: {device}. Surveys: {size} at {_FREQUENCY:g} Hz."
    lines = [[row["what"], f"{row['seconds']:.3g}", row["figure"]] for row in rows]
    table = common.table(("what", "seconds", ""), lines)
    common.save_report(NAME, f"{table}\n\n{note}")
    seconds = {row["what"]: {device: row["seconds"]} for row in rows}
    histories.bars(seconds, "seconds").savefig(common.folder(NAME) / "figure.png", dpi=150)
    file = common.folder(NAME) / f"{device.replace(' ', '_').lower()}.json"
    file.write_text(json.dumps({"device": device, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    scripts.run(main)
