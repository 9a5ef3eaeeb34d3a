"""`meta-lrpinn meta-train`: meta-train an initialisation, or go on."""

import argparse

from meta_lrpinn.cli import fields, output
from meta_lrpinn.cli.parsing import add_option, command_line
from meta_lrpinn.cli.report import CommandFailed, Report
from meta_lrpinn.learning import configs

SUMMARY = "Meta-train an initialisation, or go on."


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
    fields.add_flags(
        parser.add_argument_group("instead of the preset's"), configs.MetaConfig
    )
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
        trained = pipeline.meta_train(
            make_config(options),
            options.out,
            init=init,
            task_files=options.tasks.split(",") if options.tasks else (),
            seconds=options.seconds,
            command=command_line(options),
            progress=report.shows_progress,
        )
    except training.TrainingDiverged as error:
        raise CommandFailed(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command goes on from the last checkpoint in {options.out}"
        ) from None
    if jax.process_index() != 0:
        return
    report.add(initialisation=str(trained.initialisation), iterations=trained.iterations)
    if trained.iterations:
        report.say("wrote", str(trained.initialisation))
    else:
        left = "iterations" if options.seconds is None else "iterations or seconds"
        report.say("done", f"no {left} are left; nothing is written")


def make_config(options: argparse.Namespace) -> configs.MetaConfig:
    """The preset, with what the options replace in it."""
    return fields.replaced(configs.PRESETS[options.preset], options)
