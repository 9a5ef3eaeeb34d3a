"""`meta-lrpinn meta-train`: meta-train an initialisation, or go on."""

import argparse

from meta_lrpinn.cli import CommandFailed, Report, check_folder
from meta_lrpinn.cli.parsing import Groups, Option, command_line, options_of, replaced
from meta_lrpinn.learning import configs

SUMMARY = "Meta-train an initialisation, or go on."


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "meta-training": [
            Option(
                "preset",
                "Network, objective, tasks and schedule; see meta_lrpinn.learning.configs.",
                default="small",
                choices=tuple(configs.PRESETS),
            ),
            Option("out", "Folder of the run, required; a run stopped there is resumed."),
            Option(
                "tasks", "Task set files, with commas between; default: new tasks for ever."
            ),
            Option(
                "init",
                "Start: none (random), the name of a shipped initialisation, or the folder "
                "of one of the same network.",
                default="none",
            ),
            Option("seconds", "Stop after so much time, all sittings.", float),
        ],
        "instead of the preset's": options_of(configs.MetaConfig).values(),
        "several processes": [
            Option(
                "distributed",
                "Join the processes that SLURM, Open MPI or a Cloud TPU started.",
                bool,
                False,
            ),
            Option(
                "coordinator",
                "host:port of process 0, to join processes started in another way.",
            ),
            Option("processes", "Number of processes; with --coordinator.", int),
            Option("process", "Number of this process; with --coordinator.", int),
        ],
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """Trains, and writes the initialisation into the folder of the run."""
    import jax

    from meta_lrpinn.learning import devices

    if options.out is None:
        raise ValueError("give the folder of the run, --out=FOLDER")
    check_folder(options.out)
    devices.initialise_distributed(
        options.coordinator, options.processes, options.process, detect=options.distributed
    )

    from meta_lrpinn.learning import pipeline, training
    from meta_lrpinn.learning.networks import find_initialisation

    try:
        trained = pipeline.meta_train(
            make_config(options),
            options.out,
            init=None if options.init == "none" else find_initialisation(options.init),
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
    return replaced(configs.PRESETS[options.preset], vars(options))
