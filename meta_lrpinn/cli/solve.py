"""`meta-lrpinn solve`: a velocity model, a frequency and a source in, a wavefield out."""

import argparse
from typing import Any

from meta_lrpinn.cli import output, problem, solver, values
from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.cli.report import NotConverged, Report

SUMMARY = "Solve for a wavefield."
# Above this estimate a field may be wrong everywhere.
_TRUSTED = 0.1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    add_option(
        problem.add_options(parser),
        "frequencies",
        str,
        "Several, 3,4,5 or first:last:step such as 2:15:0.5; a file for each.",
    )
    group = parser.add_argument_group("absorbing layer and randomness")
    add_option(
        group,
        "thickness",
        float,
        "Absorbing layer in km, 0 for none; default: the solver's own.",
    )
    add_option(
        group,
        "reflection",
        float,
        "Amplitude that the layer reflects; default: the solver's own.",
    )
    add_option(group, "seed", int, "Of all that is random.", 0)
    add_option(
        group,
        "compare",
        str,
        "auto: with the file's wavefield where there is one, else, for built-in models, "
        "with finite differences; reference: with both.",
        "auto",
        ("auto", "reference", "none"),
    )
    solver.add_options(parser)
    output.add_field_options(parser)


def run(options: argparse.Namespace, report: Report) -> None:
    """Solves, compares, and writes wavefield.npz and wavefield.png, of each frequency."""
    problems = [problem.pose(each, report) for each in _each_frequency(options)]
    paths = output.field_paths(options, "wavefield", problems)
    settings = [
        solver.make_settings(options, posed.frequency, posed.model.ndim)
        for posed in problems
    ]
    results = []
    for posed, solver_settings in zip(problems, settings, strict=True):
        part = report if len(problems) == 1 else report.part("wavefields")
        results.append(_solve(posed, solver_settings, options, part))
    output.write_fields(paths, results, report)
    missed = [result.field for result in results if result.field.converged is False]
    if missed:
        where = ", ".join(f"{field.frequency:g}" for field in missed)
        worst = max(field.error_estimate for field in missed)
        tolerance, what = settings[0].tolerance, "iterations ended early"
        if tolerance is not None:
            what = f"the tolerance {tolerance:g} was not reached"
        raise NotConverged(
            f"not converged: {what} at {where} Hz; the estimate is {worst:.2g}"
        )


def _each_frequency(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of each frequency alone."""
    if options.frequencies is None:
        return [options]
    if options.frequency is not None:
        raise UsageError("give --frequency or --frequencies, not both")
    from meta_lrpinn.physics.problem import check_frequencies

    frequencies = check_frequencies(values.frequencies(options.frequencies))
    return [
        argparse.Namespace(**{**vars(options), "frequency": float(frequency)})
        for frequency in frequencies
    ]


def _solve(
    posed: problem.Problem, settings: Any, options: argparse.Namespace, report: Report
) -> output.Compared:
    """Solves one problem and compares the result with what is known."""
    import meta_lrpinn as ml

    problem.describe(posed, report)
    field = ml.solve(
        posed.model,
        posed.frequency,
        posed.source,
        settings,
        thickness=options.thickness,
        reflection=options.reflection,
        truth=posed.published,
        seed=options.seed,
        progress=report.shows_progress,
        **posed.keywords(),
    )
    problem.warn_of_grid(posed, report)
    output.say_field(field, report)
    if field.error_estimate is not None and field.error_estimate > _TRUSTED:
        report.warn("do not trust this field; ask for more unknowns")
    truths = {}
    if posed.published is not None and options.compare != "none":
        truths["published"] = posed.published
    # In 3D the reference takes minutes and gigabytes: only when asked for.
    if options.compare == "reference" or (
        options.compare == "auto" and posed.is_builtin and posed.model.ndim == 2
    ):
        reference = output.reference_field(posed, output.REFERENCE_TOLERANCE)
        truths["reference"] = reference.scattered
        report.say("reference", f"finite differences in {reference.elapsed:.2f} s")
    errors = {name: output.errors_of(field, truth) for name, truth in truths.items()}
    for name, error in errors.items():
        report.say(f"vs {name}", output.in_words(error))
    report.add(relative_l2=errors)
    best = truths.get("reference", truths.get("published"))
    return output.Compared(field, best, errors)
