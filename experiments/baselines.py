"""Is Meta-LRPINN better than Meta-PINN, when both are meta-trained alike?

Cheng and Alkhalifah (2025) compare Meta-LRPINN with Meta-PINN, the dense network, and
report a sooner and better adaptation for fewer parameters. Put to the test with
everything else the same: tasks, steps, points, objective, depth, features and number of
parameters, to which the width of the dense networks is fitted. The published Meta-PINN
has no frequency among its inputs, so that its features are those of one frequency range;
it is run as published and with the frequency as an input.

Each network is meta-trained from scratch for every seed, by the preset's objective and
tasks in a smaller size, in <out>/baselines/<network>_<seed>; a run that was stopped
goes on. Measured: the error at held-out tasks during meta-training (Galerkin solution
over the features as they are) by iteration and by seconds, parameters, seconds per
iteration; then the error of the features as they are on the built-in layered model at
5 Hz and on random velocities, held out, at 3 and 8 Hz (--frequencies), beside random
starts.

The initial wavenumbers of the first layer are the same for all.

At the defaults (256 wide, 3 hidden layers, rank 64, 512 features, 300 iterations of two
tasks of 8 velocities and 2,048 points, 3 seeds) the meta-trainings take about twenty
minutes on one core.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from experiments import common, costs, histories, study
from meta_lrpinn import generators
from meta_lrpinn.learning import (
    checkpoints,
    configs,
    networks,
    pipeline,
    task_files,
    task_sets,
)
from meta_lrpinn.learning.run_log import read_rows
from meta_lrpinn.learning.training import TrainingDiverged
from meta_lrpinn.runtime import options, scripts

FLAGS = flags.FLAGS
NAME = "baselines"
flags.DEFINE_enum(
    "meta_preset", "small", tuple(configs.PRESETS), "Objective, tasks and training of all."
)
flags.DEFINE_integer("meta_iterations", 300, "Of meta-training.", lower_bound=1)
flags.DEFINE_integer("meta_width", 256, "Of the low-rank network.", lower_bound=1)
flags.DEFINE_integer("meta_depth", 3, "Hidden layers of all networks.", lower_bound=1)
flags.DEFINE_integer("meta_rank", 64, "Of the low-rank network.", lower_bound=1)
flags.DEFINE_integer(
    "meta_features", None, "Of all networks; by default the preset's.", lower_bound=1
)
flags.DEFINE_integer("meta_points", 2048, "Points of a task.", lower_bound=1)
flags.DEFINE_integer("meta_velocities", 8, "Velocities per task.", lower_bound=1)
flags.DEFINE_integer("meta_tasks", 2, "Tasks per iteration.", lower_bound=1)
flags.DEFINE_integer("meta_task_set", 200, "Tasks to train on.", lower_bound=1)
flags.DEFINE_float(
    "meta_first_scale", 1.0, "Initial wavenumbers of all first layers, rad/km."
)

METHOD = "galerkin"
FREQUENCIES = (3, 8)
_VELOCITY_SEED = 770_000  # of no meta-training: those draw theirs from 31 bits
_EVALUATIONS = 4
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Meta-LRPINN": ("lrpinn", {"kind": "lrpinn"}),
    "Meta-PINN": ("pinn", {"kind": "pinn"}),
    "Meta-PINN, frequency input": (
        "pinn_frequency",
        {"kind": "pinn", "frequency_input": True},
    ),
}
RANDOM = {
    "Meta-LRPINN": "LRPINN, random start",
    "Meta-PINN": "PINN, random start",
}


def configuration(name: str, seed: int) -> configs.MetaConfig:
    """The preset in a smaller size, with one of the networks; all else is the same."""
    preset = configs.PRESETS[FLAGS.meta_preset]
    every = max(1, FLAGS.meta_iterations // _EVALUATIONS)
    one_velocity = not preset.objective.learns_from_wavefields
    network = dataclasses.replace(
        preset.network,
        kind="lrpinn",
        width=FLAGS.meta_width,
        depth=FLAGS.meta_depth,
        rank=FLAGS.meta_rank,
        first_scale=FLAGS.meta_first_scale,
        features=FLAGS.meta_features or preset.network.features,
    )
    if name != "Meta-LRPINN":
        low_rank = networks.random_network(networks.make_network(network), 0)
        network = dataclasses.replace(network, **NETWORKS[name][1])
        network = costs.as_large(network, costs.size(low_rank.params))
    return configs.MetaConfig(
        network=network,
        objective=dataclasses.replace(preset.objective, points=FLAGS.meta_points),
        tasks=dataclasses.replace(
            preset.tasks,
            velocities_per_task=1 if one_velocity else FLAGS.meta_velocities,
        ),
        training=dataclasses.replace(
            preset.training,
            iterations=FLAGS.meta_iterations,
            tasks_per_batch=FLAGS.meta_tasks,
            evaluate_every=every,
            checkpoint_every=every,
            log_every=max(1, min(10, FLAGS.meta_iterations // 4)),
            seed=seed,
        ),
    )


def run_folder(name: str, seed: int) -> Path:
    """Where a meta-training is kept."""
    return common.folder(NAME) / f"{NETWORKS[name][0]}_{seed}"


def meta_train(name: str, seed: int) -> Path | None:
    """The initialisation of a network and seed, trained if there is none.

    Args:
        name: One of `NETWORKS`.
        seed: Of parameters, tasks and points.

    Returns:
        Its folder, or None if the training diverged.

    Raises:
        ValueError: the one on file was made under other settings.
    """
    config, directory = configuration(name, seed), run_folder(name, seed)
    target = directory / pipeline.INITIALISATION
    if target.exists():
        _, _, card = checkpoints.load_initialisation(target)
        options.check_settings(card["configuration"], config.as_dict(), path=directory)
        return target
    tasks = task_file(config)
    print(f"meta-training {name}, seed {seed}", flush=True)
    try:
        trained = pipeline.meta_train(config, directory, task_files=tasks, progress=False)
        return trained.initialisation
    except TrainingDiverged as error:
        print(f"diverged: {error}", flush=True)
        return None


def task_file(config: configs.MetaConfig) -> list[Path]:
    """Tasks with their wavefields, the same for all, where the objective needs them."""
    if not config.objective.learns_from_wavefields:
        return []
    path = common.folder(NAME) / f"tasks_{FLAGS.meta_task_set}.npz"
    if not path.exists():
        rng, tasks = np.random.default_rng(0), []
        while len(tasks) < FLAGS.meta_task_set:
            tasks += task_sets.draw_tasks(config.tasks, rng, sources=4)
        task_files.save_task_set(path, tasks, config.tasks, seed=0)
    return [path]


def training_curve(name: str, seed: int) -> dict[str, Any]:
    """What a meta-training left: held-out error by iteration, and its pace.

    Args:
        name: One of `NETWORKS`.
        seed: Of the run.

    Returns:
        figure (what the error is called), step, error and seconds at each evaluation
        (without those of compiling and evaluating), and pace, seconds per iteration.
    """
    directory = run_folder(name, seed)
    rows = read_rows(directory / "evaluation.csv")
    figure = next(column for column in rows[0] if column != "step")
    log = read_rows(directory / "training.csv")
    # The first row's time is that of compiling.
    pace = np.median([row["seconds_per_iteration"] for row in log[1:] or log])
    step = np.array([row["step"] for row in rows])
    return {
        "figure": figure,
        "step": step,
        "error": np.array([row[figure] for row in rows]),
        "seconds": pace * step,
        "pace": float(pace),
    }


def random_start(name: str):
    """Seed to a network of the same size and random parameters."""
    module = networks.make_network(configuration(name, 0).network)
    return functools.partial(networks.random_network, module)


def number_of_parameters(name: str) -> tuple[int, int]:
    """How many are meta-trained, and how many are adapted once σ(f) is pruned."""
    network = random_start(name)(0)
    adapted = network.prune(5.0) if network.kind == "lrpinn" else network
    return costs.size(network.params), costs.size(adapted.params)


def cases() -> dict[str, Any]:
    """The layered model, and a random velocity for each frequency."""
    chosen = {"layered 5 Hz": lambda: study.known_case(generators.builtin("layered"), 5.0)}
    for index, frequency in enumerate(common.frequencies(FREQUENCIES)):

        def make(index=index, frequency=frequency):
            velocity = generators.random_velocity(_VELOCITY_SEED + index)
            return study.known_case(velocity, frequency)

        chosen[f"random velocity {frequency:g} Hz"] = make
    return chosen


def contenders(trained: Mapping[str, Sequence[Path | None]]) -> dict:
    """Those that were meta-trained at every seed, and random starts."""
    chosen = {}
    for name, folders in trained.items():
        if None not in folders:
            chosen[name] = study.Contender(
                lambda seed, folders=folders: networks.load_network(folders[seed])
            )
        if name in RANDOM:
            chosen[RANDOM[name]] = study.Contender(random_start(name))
    return chosen


def training_report(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown table of the meta-trainings; a diverged one says so."""
    rows = []
    for name, runs in curves.items():
        meta_trained, adapted = number_of_parameters(name)
        finite = [run for run in runs if run["folder"] is not None]
        paces = [run["pace"] for run in finite]
        rows.append(
            [
                name,
                meta_trained,
                adapted,
                *(
                    common.spread([pick(run["error"]) for run in finite])
                    if finite
                    else "diverged"
                    for pick in (lambda error: error[0], lambda error: error[-1], min)
                ),
                common.spread(paces) if finite else "diverged",
                f"{len(runs) - len(finite)}/{len(runs)}",
            ]
        )
    figure = next(
        (run["figure"] for runs in curves.values() for run in runs if "figure" in run),
        "error",
    )
    columns = (
        f"network,parameters,adapted parameters,held-out {figure} at first,at last,"
        "smallest,seconds per iteration,diverged"
    )
    return common.table(columns.split(","), rows)


def draw_training(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Held-out error by iteration and by seconds, mean and range over the seeds."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    labels = {"step": "meta-training iterations", "seconds": "seconds of updates"}
    for axes, (x, label) in zip(panels, labels.items(), strict=True):
        for index, (name, runs) in enumerate(curves.items()):
            finite = [run for run in runs if run["folder"] is not None]
            if not finite:
                continue
            along = np.mean([run[x] for run in finite], axis=0)
            errors = np.array([run["error"] for run in finite])
            color = histories.color(index)
            axes.plot(along, errors.mean(axis=0), color=color, label=name)
            low, high = errors.min(axis=0), errors.max(axis=0)
            axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
            axes.set_ylabel(f"{finite[0]['figure']} at held-out tasks")
        axes.set_xlabel(label)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Meta-trains and solves what is missing, then writes tables and figures."""
    seeds = range(FLAGS.seeds)
    trained = {name: [meta_train(name, seed) for seed in seeds] for name in NETWORKS}
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, folders in trained.items():
        for seed, folder in enumerate(folders):
            curve = {} if folder is None else training_curve(name, seed)
            curves.setdefault(name, []).append({"folder": folder, **curve})
    solved = study.run(NAME, cases(), contenders(trained), 0, METHOD)
    config = configuration(next(iter(NETWORKS)), 0)
    sizes = (
        f"{common.over_seeds().capitalize()}, each meta-trained from scratch. The low-rank "
        f"network is {config.network.width} wide, of rank {config.network.rank}, the dense "
        f"ones as wide as gives them as many parameters; {config.network.depth} hidden "
        f"layers, initial wavenumbers of {config.network.first_scale:g} rad/km; "
        f"{config.training.iterations} iterations of {config.training.tasks_per_batch} "
        f"tasks with {config.tasks.velocities_per_task} velocities and "
        f"{config.objective.points} points each, objective {config.objective.name}. "
        f"Features as they are, {study.HOW[METHOD]}. "
        "Errors are relative L2; the held-out one is the mean over seven tasks that "
        "training never draws."
    )
    common.save_report(
        NAME, "\n\n".join([training_report(curves), histories.errors(solved), sizes])
    )
    draw_training(curves).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
