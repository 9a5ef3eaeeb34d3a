"""`meta-lrpinn learn-metric`: what SOAP begins with, learned over tasks."""

import argparse
import dataclasses

from meta_lrpinn.cli import output
from meta_lrpinn.cli.parsing import add_option, command_line
from meta_lrpinn.cli.report import Report
from meta_lrpinn.learning import configs

SUMMARY = "Learn over tasks what SOAP begins with, beside an initialisation."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("metric")
    add_option(
        group,
        "init",
        str,
        "The initialisation: a shipped one by its name, or a folder.",
        "meta_lrpinn",
    )
    add_option(group, "out", str, "Folder to write: the same parameters, and the metric.")
    add_option(
        group,
        "preset",
        str,
        "Network, objective and tasks.",
        "own_output",
        tuple(configs.PRESETS),
    )
    add_option(group, "random", int, "So many tasks of the preset's distribution.", 64)
    add_option(group, "steps", int, "Steps of SOAP on each task.", 50)
    add_option(group, "points", int, "Points of a step; default: the preset's.")
    add_option(group, "seed", int, "Seed of the tasks.", 0)


def run(options: argparse.Namespace, report: Report) -> None:
    """Learns the metric, and writes it into a new folder with the parameters."""
    for name in ("random", "steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    if options.out is None:
        raise ValueError("give the folder to write, --out=FOLDER")
    output.check_folder(options.out)

    from meta_lrpinn.learning import pipeline
    from meta_lrpinn.learning.networks import find_initialisation

    config = configs.PRESETS[options.preset]
    training = dataclasses.replace(config.training, seed=options.seed)
    config = dataclasses.replace(config, training=training)
    if options.points is not None:
        objective = dataclasses.replace(config.objective, points=options.points)
        config = dataclasses.replace(config, objective=objective)
    path = pipeline.learn_metric(
        config,
        options.out,
        init=find_initialisation(options.init),
        tasks=options.random,
        steps=options.steps,
        command=command_line(options),
    )
    report.say("wrote", str(path))
    report.add(initialisation=str(path))
