"""What a learned start and a learned metric are worth to SOAP, each alone and together.

Random tasks that training never drew, adapted by SOAP from four beginnings: random or
meta-trained parameters, each with an empty state or with the metric that `learn-metric`
learns over other tasks from these very parameters. That of the random parameters is
learned here; that of the meta-trained ones is shipped beside them.

At the defaults (ten held tasks; 25, 50 and 100 steps of 576 points, each number a run
with a rate that decays to zero) five minutes on one core.
"""

from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories, study
from meta_lrpinn import models
from meta_lrpinn.learning import (
    adaptation,
    configs,
    evaluation,
    networks,
    objectives,
    soap,
    task_sets,
)
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "metric"
flags.DEFINE_list("metric_steps", ["25", "50", "100"], "Of adaptation.")
flags.DEFINE_integer("metric_points", 576, "Points of a step.", lower_bound=1)
flags.DEFINE_integer(
    "metric_tasks", 24, "From which the random start's metric is learned.", lower_bound=1
)

# Frequency [Hz] and source position [km] of the judging tasks, a velocity each. By the
# first five meta-training chooses its best checkpoint.
HELD = (
    (3.0, 0.4), (4.0, 1.9), (5.0, 0.7), (6.0, 1.2), (8.0, 0.9),
    (3.0, 1.4), (4.0, 0.6), (5.0, 1.8), (6.0, 0.8), (8.0, 1.6),
)  # fmt: skip
# Whether the start is meta-trained, and whether SOAP begins with a metric.
ROWS = {
    "neither": (False, False),
    "metric alone": (False, True),
    "start alone": (True, False),
    "start and metric": (True, True),
}
_TASK_SEED = 2**31  # of the random start's metric


def beginning(
    network: networks.Network, is_trained: bool, has_metric: bool, seed: int
) -> tuple[Any, soap.Metric | None]:
    """Parameters, and what SOAP begins with.

    Raises:
        ValueError: if a metric is wanted that is not saved with the initialisation.
    """
    if is_trained:
        if has_metric and network.metric is None:
            raise ValueError(f"{study.initialisation()} has no metric; use learn-metric")
        return network.params, network.metric if has_metric else None
    params = models.initial_parameters(network.module, jax.random.key(seed))
    if not has_metric:
        return params, None
    distribution = configs.PRESETS["own_output"].tasks
    rng = np.random.default_rng(_TASK_SEED)
    drawn = [task_sets.draw_tasks(distribution, rng)[0] for _ in range(FLAGS.metric_tasks)]
    objective = objectives.own_output_objective(network.module, FLAGS.metric_points)
    tasks = task_sets.stack_tasks(drawn)
    return params, soap.measure_metric(objective, params, tasks, jax.random.key(seed))


def measure(name: str, seed: int) -> list[dict[str, Any]]:
    """Error [0, 1] of each number of steps and frequency."""
    network = ml.load_network(study.initialisation())
    params, metric = beginning(network, *ROWS[name], seed)
    objective = objectives.own_output_objective(network.module, FLAGS.metric_points)
    distribution = configs.PRESETS["own_output"].tasks
    rows = []
    for steps in map(int, FLAGS.metric_steps):
        rate = adaptation.default_rate("soap", steps, metric)
        evaluate = evaluation.own_output_evaluation(
            *(distribution, network.module, objective, HELD, (steps,)),
            optimiser=adaptation.make_optimiser("soap", rate, "cosine", steps),
            metric=metric,
        )
        figures = evaluate(params, 0)
        rows += [
            {"steps": steps, "frequency": f, "error": figures[f"{f:g}Hz_{x:g}km"]}
            for f, x in HELD
        ]
    return rows


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean error by steps, and after the middle number of them by frequency."""
    counts = [int(steps) for steps in FLAGS.metric_steps]
    middle = counts[len(counts) // 2]
    every = sorted({frequency for frequency, _ in HELD})

    def mean(rows, steps, frequencies=None):
        errors = [
            row["error"]
            for row in rows
            if row["steps"] == steps
            and (frequencies is None or row["frequency"] in frequencies)
        ]
        return f"{100 * np.mean(errors):.1f} %"

    lines = [
        [
            name,
            *(mean(rows, steps) for steps in counts),
            *(mean(rows, middle, (frequency,)) for frequency in every),
        ]
        for name, rows in found.items()
    ]
    columns = [
        "what is learned",
        *(f"{steps} steps" for steps in counts),
        *(f"{frequency:g} Hz, {middle} steps" for frequency in every),
    ]
    return (
        f"{common.table(columns, lines)}\n\nRelative L2 error of the own output, mean over "
        f"{len(HELD)} held random velocities; {common.count_seeds()} (of random starts). "
        f"SOAP at its default rates, {FLAGS.metric_points} points a step, hypernetwork "
        f"kept. Initialisation {study.initialisation()}; the random start's metric is "
        f"learned from {FLAGS.metric_tasks} tasks."
    )


def draw(found: dict[str, list[dict[str, Any]]]) -> Figure:
    """Error after each number of steps, the mean over tasks and seeds."""
    groups = {
        name: {
            f"{steps} steps": 100
            * float(np.mean([row["error"] for row in rows if row["steps"] == int(steps)]))
            for steps in FLAGS.metric_steps
        }
        for name, rows in found.items()
    }
    return histories.bars(groups, "relative L2 error, %")


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    keys = ("row", "points", "init", "tasks", "counts", "seed")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    init = common.fingerprint(ml.load_network(study.initialisation()))
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (is_trained, _) in ROWS.items():
        for seed in range(1 if is_trained else FLAGS.seeds):
            values = (
                *(name, FLAGS.metric_points, init, FLAGS.metric_tasks),
                *(" ".join(FLAGS.metric_steps), seed),
            )
            rows = records.at(values, lambda: measure(name, seed))
            found.setdefault(name, []).extend(rows)
    common.save_report(NAME, report(found))
    draw(found).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
