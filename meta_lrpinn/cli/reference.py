"""`meta-lrpinn reference`: the wavefield by finite differences, refined."""

import argparse

from meta_lrpinn.cli import output, problem
from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.report import NotConverged, Report

SUMMARY = "Solve by finite differences, refined until nothing changes."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    problem.add_options(parser)
    group = parser.add_argument_group("solver")
    add_option(
        group,
        "tolerance",
        float,
        "Refine until the field's own relative change is below this.",
        output.REFERENCE_TOLERANCE,
    )
    output.add_field_options(parser)


def run(options: argparse.Namespace, report: Report) -> None:
    """Solves, and writes reference.npz and reference.png."""
    posed = problem.pose(options, report)
    places = output.field_places(options, "reference", [posed])
    problem.describe(posed, report)
    field = output.reference_field(posed, options.tolerance)
    problem.warn_of_grid(posed, report)
    output.say_field(field, report)
    output.write_fields(places, [output.Compared(field)], report)
    if field.converged is False:
        raise NotConverged(
            f"not converged: the tolerance {options.tolerance:g} was not reached; the "
            f"estimate is {field.error_estimate:.2g}"
        )
