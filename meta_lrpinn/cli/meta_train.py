"""`meta-lrpinn meta-train`: meta-train an initialisation, or go on."""

import argparse
import dataclasses
from typing import Any

from meta_lrpinn.cli import output
from meta_lrpinn.cli.parsing import PROGRAM, add_option
from meta_lrpinn.cli.report import CommandFailed, Report
from meta_lrpinn.learning import configs

SUMMARY = "Meta-train an initialisation, or go on."

# Fields of `configs.TrainingConfig` that are options; the preset has their defaults.
_TRAINING: dict[str, tuple[type, str]] = {
    "iterations": (int, "Meta-iterations."),
    "learning_rate": (float, "Of the outer AdamW; of Reptile, the fraction it goes."),
    "inner_steps": (int, "Adaptation steps inside a meta-iteration."),
    "inner_learning_rate": (float, "Of these steps."),
    "inner_embedding_rate": (float, "Of the hypernetwork, over inner_learning_rate."),
    "learn_inner_rates": (bool, "Learn a rate for each array (Meta-SGD)."),
    "first_order": (bool, "First-order meta-gradient; no: second-order."),
    "same_task": (bool, "Query points of the support tasks, instead of other tasks."),
    "orthonormal_bases": (bool, "Make U and V orthonormal after every update."),
    "tasks_per_batch": (int, "Tasks per meta-iteration."),
    "evaluate_every": (int, "Iterations between evaluations."),
    "checkpoint_every": (int, "Iterations between checkpoints."),
}


# Long: nothing but one option after the other.
def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("meta-training")

    def add(name, kind, text, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add(
        "preset",
        str,
        "Network, objective, tasks and schedule; see meta_lrpinn.learning.configs.",
        "small",
        tuple(configs.PRESETS),
    )
    add("out", str, "Folder of the run, required; a run stopped there is resumed.")
    add("tasks", str, "Task set files, with commas between; default: new tasks for ever.")
    add(
        "init",
        str,
        "Start: none (random), the name of a shipped initialisation, or the folder of "
        "one of the same network.",
        "none",
    )
    add("seconds", float, "Stop after so much time, all sittings.")
    add("seed", int, "Seed of parameters and tasks.", 0)
    own = parser.add_argument_group("instead of the preset's")
    add_option(own, "objective", str, "What is minimised.", None, configs.OBJECTIVES)
    add_option(own, "points", int, "Points per task.")
    add_option(own, "algorithm", str, "How to meta-train.", None, configs.ALGORITHMS)
    add_option(
        own,
        "inner_optimiser",
        str,
        "Of the steps inside a meta-iteration.",
        None,
        configs.INNER_OPTIMISERS,
    )
    for name, (kind, text) in _TRAINING.items():
        add_option(own, name, kind, text)
    many = parser.add_argument_group("several processes")
    add_option(
        many,
        "distributed",
        bool,
        "Join the processes that SLURM, Open MPI or a Cloud TPU started.",
        False,
    )
    add_option(
        many,
        "coordinator",
        str,
        "host:port of process 0, to join processes started in another way.",
    )
    add_option(many, "processes", int, "Number of processes; with --coordinator.")
    add_option(many, "process", int, "Number of this process; with --coordinator.")


def run(options: argparse.Namespace, report: Report) -> None:
    """Trains, and writes the initialisation into the folder of the run."""
    import jax

    from meta_lrpinn.learning import devices

    if options.out is None:
        raise ValueError("give the folder of the run, --out=FOLDER")
    output.check_folder(options.out)
    devices.initialise_distributed(
        options.coordinator,
        options.processes,
        options.process,
        detect=options.distributed,
    )

    from meta_lrpinn.learning import pipeline, training
    from meta_lrpinn.learning.networks import find_initialisation

    init = None if options.init == "none" else find_initialisation(options.init)
    try:
        path = pipeline.meta_train(
            make_config(options),
            options.out,
            init=init,
            task_files=options.tasks.split(",") if options.tasks else (),
            seconds=options.seconds,
            command=_command(options),
            progress=report.shows_progress,
        )
    except training.TrainingDiverged as error:
        raise CommandFailed(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command goes on from the last checkpoint in {options.out}"
        ) from None
    if jax.process_index() == 0:
        report.say("wrote", str(path))
        report.add(initialisation=str(path))


def make_config(options: argparse.Namespace) -> configs.MetaConfig:
    """The preset, with what the options replace in it."""
    config = configs.PRESETS[options.preset]
    names = ("algorithm", "inner_optimiser", *_TRAINING)
    chosen = {name: getattr(options, name) for name in names}
    return dataclasses.replace(
        config,
        training=_replaced(config.training, seed=options.seed, **chosen),
        objective=_replaced(
            config.objective, name=options.objective, points=options.points
        ),
    )


def _command(options: argparse.Namespace) -> str:
    """The command line for the card, which names what is trained, not where."""
    unnamed = ("command", "parser", "out", "quiet", "json")
    defaults = vars(options.parser.parse_args([]))
    given = [
        f"--{name}={value}"
        for name, value in vars(options).items()
        if name not in unnamed and value != defaults.get(name)
    ]
    return " ".join([PROGRAM, "meta-train", *given])


def _replaced(config: Any, **fields: Any) -> Any:
    """A dataclass with those of the fields replaced that are not None."""
    return dataclasses.replace(
        config, **{name: value for name, value in fields.items() if value is not None}
    )
