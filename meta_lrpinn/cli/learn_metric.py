"""`meta-lrpinn learn-metric`: what SOAP begins with, learned over tasks."""

import argparse

from meta_lrpinn.cli import Report, check_folder, meta_train
from meta_lrpinn.cli.parsing import Groups, Option, command_line
from meta_lrpinn.learning import configs

SUMMARY = "Learn over tasks what SOAP begins with, beside an initialisation."


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "metric": [
            Option(
                "init",
                "The initialisation: a shipped one by its name, or a folder.",
                default="meta_lrpinn",
            ),
            Option("out", "Folder to write: the same parameters, and the metric."),
            Option(
                "preset",
                "Network, objective and tasks.",
                default="own_output",
                choices=tuple(configs.PRESETS),
            ),
            Option("random", "So many tasks of the preset's distribution.", int, 64),
            Option("steps", "Steps of SOAP on each task.", int, 50),
            Option(
                "points", "Points of a step; default: the preset's.", int, argparse.SUPPRESS
            ),
            Option("seed", "Seed of the tasks.", int, 0),
        ]
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """Learns the metric, and writes it into a new folder with the parameters."""
    for name in ("random", "steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    if options.out is None:
        raise ValueError("give the folder to write, --out=FOLDER")
    check_folder(options.out)

    from meta_lrpinn.learning import pipeline
    from meta_lrpinn.learning.networks import find_initialisation

    path = pipeline.learn_metric(
        meta_train.make_config(options),
        options.out,
        init=find_initialisation(options.init),
        tasks=options.random,
        steps=options.steps,
        command=command_line(options),
    )
    report.say("wrote", str(path))
    report.add(initialisation=str(path))
