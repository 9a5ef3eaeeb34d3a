"""`meta-lrpinn models`: the velocity models that --velocity knows by name."""

import argparse

from meta_lrpinn.cli.report import Report

SUMMARY = "Velocity models by name: size, spacing, what they are."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no options of its own."""


def run(options: argparse.Namespace, report: Report) -> None:
    """Prints one line for each model."""
    del options
    from meta_lrpinn import generators

    listed = {}
    for name, (_, summary) in generators.BUILTIN.items():
        model = generators.builtin(name)
        sizes = (model.upper - model.lower).round(6).tolist()
        size = " x ".join(f"{length:g}" for length in sizes)
        report.say(name, f"{summary}; {size} km, {model!r}")
        listed[name] = {
            "summary": summary,
            "size": sizes,
            "shape": model.shape,
            "spacing": model.spacing,
            "velocities": [model.minimum, model.maximum],
        }
    report.add(models=listed)
