"""What is the inner loop of meta-training worth?

Cheng and Alkhalifah (2025) meta-train with one inner SGD step of 2e-3, which hardly moves
anything. Put to the test on the own output, scaled loss: for equal seconds from the same
random parameters and on the same tasks,

- joint training, without inner steps: what is learned without MAML;
- first-order MAML as published: one SGD step, other tasks as query (of --maml_tasks=5 five
  and five), no clipping. It alone has --maml_published_seconds and --seeds;
- first-order MAML with five Adam steps and other points of the same tasks;
- second-order MAML with ten Adam steps;
- Reptile with twenty Adam steps, without and with orthonormal bases after every update.

What counts is the error of the own output on tasks that training never drew, after 0, 10,
50, 100 and 500 steps of AdamW, each number of steps a run with a rate that decays to zero.

A second table asks whether the meta-gradient is a direction of descent at all: how the
meta-loss of eight tasks changes after a step against the sign of their own meta-gradient,
which is what AdamW's first step does.

At the defaults (preset own_output, 576 points, four held tasks, 1,800 seconds for each)
five hours on one core.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from matplotlib.figure import Figure

from experiments import common, costs, histories
from meta_lrpinn import models
from meta_lrpinn.learning import (
    checkpoints,
    configs,
    evaluation,
    maml,
    networks,
    objectives,
    pipeline,
    task_sets,
)
from meta_lrpinn.learning.configs import MAML, InnerSteps, JointTraining, Reptile
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "maml"
flags.DEFINE_float("maml_seconds", 1800.0, "Of each meta-training.", lower_bound=1.0)
flags.DEFINE_float(
    "maml_published_seconds", None, "Of the published form; default: as others."
)
flags.DEFINE_list(
    "maml_algorithms", None, "Numbers of those to compare, from 0; default: all."
)
flags.DEFINE_list("maml_steps", ["10", "50", "100", "500"], "Of adaptation.")
flags.DEFINE_integer("maml_points", 576, "Points of a step.", lower_bound=1)
flags.DEFINE_integer("maml_tasks", 5, "Support tasks of an iteration.", lower_bound=1)

RANDOM, PUBLISHED = "random start", "first-order MAML as published"
# Frequency [Hz] and source position [km] of the judging tasks; none is one by which
# meta-training chooses its best checkpoint.
HELD = ((3.5, 0.6), (4.5, 1.2), (5.0, 1.6), (6.5, 0.9))
_ADAM = InnerSteps(steps=5, optimiser="adam", learning_rate=2e-3, clip_norm=1.0)
_TEN = dataclasses.replace(_ADAM, steps=10)
_TWENTY = dataclasses.replace(_ADAM, steps=20)
# What is changed in the training of the preset; AdamW goes with a norm of at most one.
_GRADIENT = {"clip_norm": 1.0, "orthonormal_bases": False}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "joint training": {"algorithm": JointTraining(), **_GRADIENT},
    PUBLISHED: {"algorithm": MAML(), "clip_norm": None, "orthonormal_bases": False},
    "first-order MAML, 5 Adam steps": {
        "algorithm": MAML(inner=_ADAM, same_task=True),
        **_GRADIENT,
    },
    "second-order MAML, 10 Adam steps": {
        "algorithm": MAML(inner=_TEN, same_task=True, first_order=False),
        **_GRADIENT,
    },
    "Reptile, 20 Adam steps": {
        "algorithm": Reptile(inner=_TWENTY),
        "orthonormal_bases": False,
    },
    "Reptile, orthonormal bases": {"algorithm": Reptile(inner=_TWENTY)},
}
# Of the second table: inner steps, and whether the meta-gradient is of first order.
DESCENTS: dict[str, tuple[InnerSteps, bool]] = {
    "first order, 10 SGD steps of 1e-2": (
        InnerSteps(steps=10, learning_rate=1e-2, clip_norm=1.0),
        True,
    ),
    "first order, 10 Adam steps of 2e-3": (_TEN, True),
    "first order, 20 Adam steps of 2e-3": (_TWENTY, True),
    "first order, 15 SOAP steps of 6e-3": (
        InnerSteps(steps=15, optimiser="soap", learning_rate=6e-3),
        True,
    ),
    "second order, 10 Adam steps of 2e-3": (_TEN, False),
}
LENGTHS = (1e-4, 3e-4, 1e-3)  # of the step, in every parameter
DESCENT_TASKS = 8


def configuration(name: str, seed: int) -> configs.MetaConfig:
    """The preset `own_output` with the algorithm of that name."""
    preset = configs.PRESETS["own_output"]
    training = dataclasses.replace(
        preset.training,
        tasks_per_batch=FLAGS.maml_tasks,
        evaluate_every=preset.training.iterations,  # at the start and the end
        seed=seed,
        **ALGORITHMS[name],
    )
    objective = dataclasses.replace(preset.objective, points=FLAGS.maml_points)
    return dataclasses.replace(preset, training=training, objective=objective)


def seconds_of(name: str) -> float:
    """Of the meta-training of that name."""
    own = FLAGS.maml_published_seconds if name == PUBLISHED else None
    return own or FLAGS.maml_seconds


def meta_train(name: str, seed: int) -> tuple[Any, int]:
    """Parameters after the last update, and the tasks that they have seen.

    A run that was stopped goes on.
    """
    config = configuration(name, seed)
    folder = common.folder(NAME) / f"{list(ALGORITHMS).index(name)}_{seed}"
    pipeline.meta_train(config, folder, seconds=seconds_of(name), progress=False)
    params, _, step = checkpoints.load_run_parameters(folder / "checkpoints", "latest")
    return params, step * FLAGS.maml_tasks


def errors_of(params: Any) -> dict[str, float]:
    """Error after each number of steps, the mean over the held tasks."""
    preset = configs.PRESETS["own_output"]
    model = networks.make_network(preset.network)
    objective = objectives.own_output_objective(model, FLAGS.maml_points)
    found = {}
    for steps in map(int, FLAGS.maml_steps):
        evaluate = evaluation.own_output_evaluation(
            preset.tasks, model, objective, HELD, (0, steps)
        )
        figures = evaluate(params, 0)
        found |= {"0": figures["error_0"], str(steps): figures["error"]}
    return found


def measure(name: str, seed: int) -> list[dict[str, Any]]:
    """A row of the table: tasks seen, what it took, and the errors."""
    if name == RANDOM:
        model = networks.make_network(configs.PRESETS["own_output"].network)
        # As meta-training draws them.
        params, tasks = models.initial_parameters(model, jax.random.key(seed)), 0
        cost = {"processor": 0.0, "memory": 0.0}
    else:
        (params, tasks), spent = costs.measured(lambda: meta_train(name, seed))
        cost = {"processor": spent.processor, "memory": spent.memory}
    return [{"parameters": costs.size(params), "tasks": tasks, **cost, **errors_of(params)}]


def descent(name: str) -> list[dict[str, Any]]:
    """Meta-loss of random parameters, and its change after steps of all lengths."""
    preset = configs.PRESETS["own_output"]
    model = networks.make_network(preset.network)
    objective = objectives.own_output_objective(model, FLAGS.maml_points)
    params = models.initial_parameters(model, jax.random.key(0))
    rng = np.random.default_rng(5)
    drawn = [task_sets.draw_tasks(preset.tasks, rng)[0] for _ in range(DESCENT_TASKS)]
    tasks = task_sets.stack_tasks(drawn)
    inner, first_order = DESCENTS[name]
    algorithm = MAML(inner=inner, same_task=True, first_order=first_order)
    keys = jax.random.split(jax.random.key(3), DESCENT_TASKS)
    batch = tasks, tasks, keys, algorithm, "map"

    @jax.jit
    def loss_after(length, direction):
        moved = jax.tree.map(lambda p, d: p - length * d, params, direction)
        return maml.gradient(objective, moved, *batch)[0][0]

    _, gradient = jax.jit(lambda p: maml.gradient(objective, p, *batch))(params)
    direction = jax.tree.map(jnp.sign, gradient)
    loss = float(loss_after(0.0, direction))
    changes = {
        f"{length:g}": float(loss_after(length, direction)) - loss for length in LENGTHS
    }
    return [{"loss": loss, "norm": float(optax.tree.norm(gradient)), **changes}]


def descent_report(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: change of the meta-loss by algorithm and length."""
    lines = [
        [
            name,
            f"{row['loss']:.3f}",
            f"{row['norm']:.3g}",
            *(f"{row[f'{length:g}']:+.4f}" for length in LENGTHS),
        ]
        for name, row in rows.items()
    ]
    columns = ["meta-gradient", "meta-loss", "norm of the gradient"]
    columns += [f"change at {length:g}" for length in LENGTHS]
    return (
        f"{common.table(columns, lines)}\n\nMeta-loss (residual relative to the "
        f"right-hand side, after the inner steps) of {DESCENT_TASKS} tasks at random "
        "parameters, and its change after a step of the given length against the sign of "
        "the meta-gradient of these very tasks."
    )


def report(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: error by algorithm and steps."""
    counts = ["0", *FLAGS.maml_steps]
    lines = [
        [
            name,
            len(own),
            *(
                common.spread([row[column] for row in own])
                for column in ("parameters", "tasks", "processor", "memory")
            ),
            *(common.spread([100 * row[count] for row in own], " %") for count in counts),
        ]
        for name, own in rows.items()
    ]
    columns = [
        "meta-training", "seeds", "parameters", "tasks", "processor seconds",
        "memory, MB", *(f"{count} steps" for count in counts),
    ]  # fmt: skip
    preset = configs.PRESETS["own_output"]
    held = ", ".join(f"{frequency:g}" for frequency, _ in HELD)
    return (
        f"{common.table(columns, lines)}\n\nRelative L2 error of the own output, mean over "
        f"held random velocities at {held} Hz. Meta-training of {FLAGS.maml_seconds:g} s, "
        f"as published {seconds_of(PUBLISHED):g} s, of which compiling and evaluation take "
        "a part; memory is what it adds to the process at most. On tasks of "
        f"{preset.tasks.minimum_frequency:g} to {preset.tasks.maximum_frequency:g} Hz, "
        f"{FLAGS.maml_tasks} an iteration; {FLAGS.maml_points} points a step."
    )


def draw(rows: dict[str, list[dict[str, Any]]]) -> Figure:
    """Error after adaptation of every start, the mean over seeds."""
    groups = {
        name: {
            f"{count} steps": 100 * float(np.mean([row[count] for row in own]))
            for count in FLAGS.maml_steps
        }
        for name, own in rows.items()
    }
    return histories.bars(groups, "relative L2 error, %")


def main() -> None:
    """Meta-trains and measures what is missing, then writes table and figure."""
    keys = ("algorithm", "seconds", "points", "tasks_per_batch", "seed")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    rows: dict[str, list[dict[str, Any]]] = {}
    names = list(ALGORITHMS)
    if FLAGS.maml_algorithms is not None:
        names = [names[int(number)] for number in FLAGS.maml_algorithms]
    for name in (RANDOM, *names):
        for seed in range(FLAGS.seeds if name in (RANDOM, PUBLISHED) else 1):
            values = (name, seconds_of(name), FLAGS.maml_points, FLAGS.maml_tasks, seed)
            found = records.at(values, lambda: measure(name, seed))
            rows.setdefault(name, []).extend(found)
    keys = ("algorithm", "points")
    records = common.Records(common.folder(NAME) / "descent.csv", keys)
    descents = {
        name: records.at((name, FLAGS.maml_points), lambda: descent(name))[0]
        for name in DESCENTS
    }
    common.save_report(NAME, f"{report(rows)}\n\n{descent_report(descents)}")
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
