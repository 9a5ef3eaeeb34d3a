"""`meta-lrpinn make-tasks`: task sets for meta-training, as files."""

import argparse
import pathlib

from meta_lrpinn import configs
from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.report import Report

SUMMARY = "Draw a set of velocity-frequency tasks; the same command goes on."

_MOST_FREQUENCIES = 100_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("tasks")

    def add(name, kind, text, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add("out", str, "File to write; its manifest is beside it.", "tasks.npz")
    add(
        "preset",
        str,
        "Whose grid and layer the tasks have.",
        "paper",
        tuple(configs.PRESETS),
    )
    add("random", int, "So many tasks from the preset's distribution instead.")
    add("sources", int, "Tasks that share velocities and frequency; with --random.", 1)
    add("models", int, "Velocity models, without --random.", 40)
    add("minimum_frequency", float, "Lowest frequency in Hz, without --random.", 2.0)
    add("maximum_frequency", float, "Highest frequency in Hz, without --random.", 15.0)
    add("frequencies", int, "How many frequencies, evenly spaced.", 14)
    add("wavefields", bool, "Add the solved wavefields (needs a layer).", False)
    add("points", int, "Points of each wavefield.", 3072)
    add("seed", int, "Seed.", 0)


def run(options: argparse.Namespace, report: Report) -> None:
    """Draws the tasks and writes them."""
    import numpy as np

    from meta_lrpinn import problem as problems
    from meta_lrpinn.meta import drawing

    for frequency in (options.minimum_frequency, options.maximum_frequency):
        problems.check_frequency(frequency)
    if not 1 <= options.frequencies <= _MOST_FREQUENCIES:
        raise ValueError(
            f"frequencies must be a number from 1 to {_MOST_FREQUENCIES:,}, got "
            f"{options.frequencies}"
        )
    path = pathlib.Path(options.out)
    number = drawing.make_task_set(
        path,
        configs.PRESETS[options.preset].tasks,
        random=options.random,
        sources=options.sources,
        models=options.models,
        frequencies=np.linspace(
            options.minimum_frequency, options.maximum_frequency, options.frequencies
        ),
        wavefields=options.wavefields,
        points=options.points,
        seed=options.seed,
        progress=report.shows_progress,
    )
    report.say("wrote", f"{number} tasks in {path}")
    report.add(tasks=number, files=[str(path), str(path.with_suffix(".json"))])
