"""What is the inner loop of meta-training worth?

Cheng and Alkhalifah (2025) meta-train with one inner SGD step of 2e-3, which hardly moves
anything. Put to the test on the own output, scaled loss: for equal seconds from the same
random parameters and on the same tasks,

- joint training, without inner steps: what is learned without MAML;
- first-order MAML as published: one SGD step, other tasks as query (of --maml_tasks=5 five
  and five), no clipping. It alone has --maml_published_seconds;
- first-order MAML with five Adam steps and other points of the same tasks;
- second-order MAML with ten Adam steps;
- Reptile with twenty Adam steps, without and with orthonormal bases after every update;
- first-order MAML on the loss of other points after each of twenty Adam steps, in the
  metric of those steps (multi-step MAML), with orthonormal bases.

What counts is the error of the own output on tasks that training never drew, after 0, 10,
50, 100 and 500 steps of AdamW, each number of steps a run with a rate that decays to zero.

A second table asks whether the meta-gradient is a direction of descent at all: how the
meta-loss of eight tasks changes after a step against the sign of their own meta-gradient,
which is what AdamW's first step does. A third one asks whether MAML has anything to add
to `meta_lrpinn_reptile`: how the loss of other tasks changes after such a step, against
the mean of the second-order gradients of 48 tasks. A fourth one judges the shipped
initialisations of this network, by AdamW and by SOAP without a metric, beside random
parameters, and counts their independent features.

At the defaults (preset own_output, 576 points, four held tasks, 1,800 seconds for each)
five hours on one core.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, costs, histories, reports
from meta_lrpinn import models
from meta_lrpinn.learning import (
    adaptation,
    checkpoints,
    configs,
    evaluation,
    maml,
    networks,
    objectives,
    pipeline,
    task_sets,
)
from meta_lrpinn.learning.configs import (
    MAML,
    InnerSteps,
    JointTraining,
    MultiStepMAML,
    Reptile,
)
from meta_lrpinn.learning.task_sets import Task
from meta_lrpinn.linear import weak_form
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
REPTILE, MULTI_STEP = "Reptile, orthonormal bases", "multi-step MAML, orthonormal bases"
SEVERAL = (RANDOM, PUBLISHED, REPTILE, MULTI_STEP)  # of --seeds; the others have one
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
    REPTILE: {"algorithm": Reptile(inner=_TWENTY)},
    MULTI_STEP: {"algorithm": MultiStepMAML(inner=_TWENTY, same_task=True)},
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
# Of the third table: the start, tasks that give the gradient, and those that judge it.
ONWARD_START = "meta_lrpinn_reptile"
ONWARD_TASKS, OTHER_TASKS = 48, 24
ONWARD_STEPS = (10, 30)  # of adaptation of those that judge
# Of the fourth table.
SHIPPED = ("meta_lrpinn", "meta_lrpinn_reptile")
SHIPPED_STEPS = (25, 50, 100)
_OPTIMISERS = ("AdamW", "SOAP")
_SAMPLES = (40, 40)  # of features, along each axis
_INDEPENDENT = 1e-3  # least variance of an independent feature, of the largest


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


def draw_tasks(rng: np.random.Generator, number: int) -> Task:
    """New tasks of the preset `own_output`, stacked."""
    preset = configs.PRESETS["own_output"]
    return task_sets.stack_tasks(
        [task_sets.draw_tasks(preset.tasks, rng)[0] for _ in range(number)]
    )


def descent(name: str) -> list[dict[str, Any]]:
    """Meta-loss of random parameters, and its change after steps of all lengths."""
    model = networks.make_network(configs.PRESETS["own_output"].network)
    objective = objectives.own_output_objective(model, FLAGS.maml_points)
    params = models.initial_parameters(model, jax.random.key(0))
    tasks = draw_tasks(np.random.default_rng(5), DESCENT_TASKS)
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


def onward() -> list[dict[str, Any]]:
    """Loss of other tasks from `meta_lrpinn_reptile`, and its change after a step of MAML.

    Gradients of single tasks are clipped at one: the largest are thirty times the median.
    """
    network = ml.load_network(ONWARD_START)
    objective = objectives.own_output_objective(network.module, FLAGS.maml_points)
    rng = np.random.default_rng(11)
    tasks, others = draw_tasks(rng, ONWARD_TASKS), draw_tasks(rng, OTHER_TASKS)
    algorithm = MAML(inner=_TEN, same_task=True, first_order=False)
    clip = optax.clip_by_global_norm(1.0)

    def of_task(task_and_key):
        batch = jax.tree.map(lambda leaf: leaf[None], task_and_key)
        task, key = batch
        _, gradient = maml.gradient(
            objective, network.params, task, task, key, algorithm, "map"
        )
        return clip.update(gradient, clip.init(network.params))[0]

    keys = jax.random.split(jax.random.key(7), ONWARD_TASKS)
    each = jax.jit(lambda batch: jax.lax.map(of_task, batch))((tasks, keys))
    first, second = (jax.tree.map(lambda g: jnp.mean(g[i::2], 0), each) for i in (0, 1))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    norms = optax.tree.norm(first) * optax.tree.norm(second)
    agreement = float(optax.tree.vdot(first, second) / norms)
    direction = jax.tree.map(jnp.sign, mean)
    rows = []
    for steps in ONWARD_STEPS:
        inner = dataclasses.replace(_TEN, steps=steps)

        @jax.jit
        def losses_after(length, inner=inner):
            moved = jax.tree.map(lambda p, d: p - length * d, network.params, direction)

            def adapted_loss(task_and_key):
                task, key = task_and_key
                adapted, _ = maml.adapt(objective, moved, task, key, inner)
                return objective(adapted, task, jax.random.fold_in(key, 1))[0]

            keys = jax.random.split(jax.random.key(9), OTHER_TASKS)
            return jax.lax.map(adapted_loss, (others, keys))

        before = losses_after(0.0)
        row = {"steps": steps, "agreement": agreement, "loss": float(jnp.mean(before))}
        for length in LENGTHS:
            change = losses_after(length) - before
            row[f"{length:g}"] = float(jnp.mean(change))
            row[f"{length:g}, error"] = float(jnp.std(change, ddof=1)) / OTHER_TASKS**0.5
        rows.append(row)
    return rows


def onward_report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: change of the loss of other tasks by steps of adaptation and length."""
    lines = [
        [
            row["steps"],
            f"{row['loss']:.4f}",
            *(
                f"{row[f'{length:g}']:+.4f} ± {row[f'{length:g}, error']:.4f}"
                for length in LENGTHS
            ),
        ]
        for row in rows
    ]
    columns = ["steps", "loss", *(f"change at {length:g}" for length in LENGTHS)]
    return (
        f"{common.table(columns, lines)}\n\nFrom {ONWARD_START}: loss of {OTHER_TASKS} "
        "tasks after so many Adam steps of 2e-3, and its change (mean and its standard "
        "error) after a step of the given length against the sign of the mean second-order "
        f"gradient, through ten Adam steps, of {ONWARD_TASKS} other tasks. The means of "
        f"its two halves have a cosine of {rows[0]['agreement']:.2f}."
    )


def shipped(name: str) -> list[dict[str, Any]]:
    """Errors of a start after each number of steps, by both optimisers."""
    preset = configs.PRESETS["own_output"]
    model = networks.make_network(preset.network)
    if name == RANDOM:
        params = models.initial_parameters(model, jax.random.key(0))
    else:
        params = ml.load_network(name).params
    objective = objectives.own_output_objective(model, FLAGS.maml_points)
    row: dict[str, Any] = {"independent": independent_features(model, params)}
    for optimiser, steps in itertools.product(_OPTIMISERS, SHIPPED_STEPS):
        rate = adaptation.default_rate(optimiser.lower(), steps)
        descent = adaptation.make_optimiser(optimiser.lower(), rate, "cosine", steps)
        evaluate = evaluation.own_output_evaluation(
            preset.tasks, model, objective, HELD, (steps,), descent
        )
        row[f"{optimiser}, {steps}"] = evaluate(params, 0)["error"]
    return [row]


def independent_features(model: Any, params: Any) -> float:
    """Number of features that do not depend on the others, the mean over held tasks.

    Of features without their mean and of unit variance: directions whose variance is above
    a thousandth of the largest.
    """
    counts = []
    distribution = configs.PRESETS["own_output"].tasks
    for task in evaluation.held_tasks(distribution, HELD, velocities=1):
        problem = objectives.unit_problem(task.problem)
        points = weak_form.quadrature_points(problem, _SAMPLES, jnp.full(2, 0.5))
        at_points = objectives.feature_function(model, params, problem)(points)
        centred = np.real(at_points) - np.mean(np.real(at_points), axis=0)
        unit = centred / np.maximum(np.std(centred, axis=0), np.finfo(np.float32).tiny)
        variances = np.linalg.svd(unit, compute_uv=False) ** 2
        counts.append(np.sum(variances > _INDEPENDENT * variances[0]))
    return float(np.mean(counts))


def shipped_report(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: errors by start, optimiser and steps."""
    names = [f"{o}, {n}" for o, n in itertools.product(_OPTIMISERS, SHIPPED_STEPS)]
    lines = [
        [
            start,
            "0" if start == RANDOM else reports.effort(start)[0],
            f"{row['independent']:.0f}",
            *(f"{100 * row[name]:.1f} %" for name in names),
        ]
        for start, row in rows.items()
    ]
    columns = ["start", "tasks", "independent features"]
    columns += [f"{name} steps" for name in names]
    return (
        f"{common.table(columns, lines)}\n\nMean error of the own output on the held tasks "
        "of the first table, every number of steps a run of its own; SOAP begins without a "
        "metric. A feature is independent if its direction has a thousandth of the largest "
        "variance."
    )


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
        for seed in range(FLAGS.seeds if name in SEVERAL else 1):
            values = (name, seconds_of(name), FLAGS.maml_points, FLAGS.maml_tasks, seed)
            found = records.at(values, lambda: measure(name, seed))
            rows.setdefault(name, []).extend(found)
    keys = ("algorithm", "points")
    records = common.Records(common.folder(NAME) / "descent.csv", keys)
    descents = {
        name: records.at((name, FLAGS.maml_points), lambda: descent(name))[0]
        for name in DESCENTS
    }
    records = common.Records(common.folder(NAME) / "onward.csv", ("init", "points"))
    init = common.fingerprint(ml.load_network(ONWARD_START))
    further = records.at((init, FLAGS.maml_points), onward)
    keys = ("start", "init", "points")
    records = common.Records(common.folder(NAME) / "shipped.csv", keys)
    starts = {}
    for name in (RANDOM, *SHIPPED):
        init = "" if name == RANDOM else common.fingerprint(ml.load_network(name))
        values = (name, init, FLAGS.maml_points)
        starts[name] = records.at(values, functools.partial(shipped, name))[0]
    parts = (
        report(rows),
        descent_report(descents),
        onward_report(further),
        shipped_report(starts),
    )
    common.save_report(NAME, "\n\n".join(parts))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
