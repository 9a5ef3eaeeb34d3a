"""`meta-lrpinn models`: the velocity models that --velocity knows by name."""

import argparse

from meta_lrpinn.cli import Report
from meta_lrpinn.cli.parsing import Groups

SUMMARY = "Velocity models by name: size, spacing, what they are."


def option_groups() -> Groups:
    """None: the command has no options of its own."""
    return {}


def run(options: argparse.Namespace, report: Report) -> None:
    """Prints one line for each model."""
    del options
    from meta_lrpinn import generators

    summaries = {}
    for name, (_, summary) in generators.BUILTIN.items():
        model = generators.builtin(name)
        sizes = (model.upper - model.lower).round(6).tolist()
        size = " x ".join(f"{length:g}" for length in sizes)
        report.say(name, f"{summary}; {size} km, {model!r}")
        summaries[name] = {
            "summary": summary,
            "size": sizes,
            "shape": model.shape,
            "spacing": model.spacing,
            "velocities": [model.minimum, model.maximum],
        }
    report.add(models=summaries)
