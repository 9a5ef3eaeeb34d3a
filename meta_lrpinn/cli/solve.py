"""`meta-lrpinn solve`: a velocity model, a frequency and a source in, a wavefield out."""

import argparse
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from meta_lrpinn.cli import NotConverged, Report, check_folder, parsing, solver
from meta_lrpinn.cli.parsing import Groups, Option, UsageError
from meta_lrpinn.cli.problem import PROBLEM_OPTIONS, Problem, describe, pose, warn_of_grid
from meta_lrpinn.files import writing

if TYPE_CHECKING:
    import numpy as np

    import meta_lrpinn as ml

SUMMARY = "Solve for a wavefield."
# Above this estimate a field may be wrong everywhere. Untuned.
_TRUSTED = 0.1
_SMALLEST_SHOWN = 1e-4  # of an estimate, in two digits of per cent
_FIGURE, _PAGE = ".png", ".html"


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "problem": [
            *PROBLEM_OPTIONS,
            Option(
                "frequencies",
                "Several, 3,4,5 or first:last:step such as 2:15:0.5; a file for each.",
                parsing.frequencies,
            ),
        ],
        "absorbing layer and randomness": [
            Option(
                "thickness",
                "Absorbing layer in km, 0 for none; default: the solver's own.",
                float,
            ),
            Option(
                "reflection",
                "Amplitude that the layer reflects; default: the solver's own.",
                float,
            ),
            Option("seed", "Of all that is random.", int, 0),
            Option(
                "compare",
                "auto: with the file's wavefield where there is one, else, for built-in "
                "models, with finite differences; reference: with both.",
                default="auto",
                choices=("auto", "reference", "none"),
            ),
        ],
        **solver.option_groups(),
        "files": [
            Option(
                "out",
                "Folder to write to, or a file: .npz, .nc, .zarr or .h5, which is the "
                "format.",
                default=".",
            ),
            Option("report", "Also write a page to look at in a browser.", bool, False),
        ],
    }


class _Compared(NamedTuple):
    """A wavefield and what is known about it."""

    field: "ml.Wavefield"
    truth: "np.ndarray | None"  # δu to show beside it
    # Errors of every source by the name of what they are distances from.
    errors: Mapping[str, list[float | None]]


def run(options: argparse.Namespace, report: Report) -> None:
    """Solves, compares, and writes wavefield.npz and wavefield.png, of each frequency."""
    problems = [pose(each, report) for each in _each_frequency(options)]
    fields, page = _paths(options, problems)
    settings = [
        solver.make_settings(options, problem.frequency, problem.model.ndim)
        for problem in problems
    ]
    results = []
    for problem, solver_settings in zip(problems, settings, strict=True):
        part = report if len(problems) == 1 else report.part("wavefields")
        results.append(_solve(problem, solver_settings, options, part))
    _write(fields, page, results, report)
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

    return [
        argparse.Namespace(**{**vars(options), "frequency": float(frequency)})
        for frequency in check_frequencies(options.frequencies)
    ]


def _paths(
    options: argparse.Namespace, problems: Sequence[Problem]
) -> tuple[list[pathlib.Path], pathlib.Path | None]:
    """The files of the fields, whose figures have another ending, and a page of all.

    Several fields have their frequency in their files' names.

    Raises:
        ValueError: if one of them cannot be written, before anything is computed.
    """
    import numpy as np

    from meta_lrpinn.results import storage
    from meta_lrpinn.results.report import check_path, check_size

    path = pathlib.Path(options.out)
    if path.suffix.lower() not in storage.SUFFIXES:
        path = path / "wavefield.npz"
    check_folder(path.parent)
    fields = [path]
    if len(problems) > 1:
        fields = [
            path.with_stem(f"{path.stem}_{problem.frequency:.15g}Hz")
            for problem in problems
        ]
    for field in fields:
        storage.check_path(field)
    for field in fields:
        writing.check_file(field.with_suffix(_FIGURE))
    if not options.report:
        return fields, None
    page = path.with_suffix(_PAGE)
    check_path(page)
    sources = sum(len(np.atleast_2d(problem.source)) for problem in problems)
    check_size(problems[0].model, sources)
    return fields, page


def _solve(
    problem: Problem, settings: Any, options: argparse.Namespace, report: Report
) -> _Compared:
    """Solves one problem and compares the result with what is known."""
    describe(problem, report)
    field = problem.solve(
        settings,
        thickness=options.thickness,
        reflection=options.reflection,
        truth=problem.published,
        seed=options.seed,
        progress=report.shows_progress,
    )
    warn_of_grid(problem, report)
    _say(field, report)
    truths = {}
    if problem.published is not None and options.compare != "none":
        truths["published"] = problem.published
    # In 3D the reference takes minutes and gigabytes: only when asked for.
    if options.compare == "reference" or (
        options.compare == "auto" and problem.is_builtin and problem.model.ndim == 2
    ):
        reference = problem.reference()
        truths["reference"] = reference.scattered
        report.say("reference", f"finite differences in {reference.elapsed:.2f} s")
    errors = {name: _errors(field, truth) for name, truth in truths.items()}
    for name, values in errors.items():
        shown = ["none: nothing scatters" if e is None else f"{e:.2%}" for e in values]
        report.say(f"vs {name}", f"relative L2 {', '.join(shown)}")
    report.add(relative_l2=errors)
    best = truths.get("reference", truths.get("published"))
    return _Compared(field, best, errors)


def _say(field: "ml.Wavefield", report: Report) -> None:
    """Says what a solver did, and how good it takes its field to be."""
    unknowns = f"{field.stats.unknowns} complex unknowns"
    report.say("solver", f"{field.solver.replace('_', ' ')}, {unknowns}")
    report.say("seconds", f"{field.elapsed:.2f}, compilation included")
    report.add(
        solver=field.solver,
        unknowns=field.stats.unknowns,
        iterations=field.stats.iterations,
        rank=field.stats.rank,
        steps=field.stats.steps,
        seconds=field.elapsed,
        error_estimates=field.error_estimates,
        converged=field.converged,
    )
    estimate = field.error_estimate
    if estimate is None:
        return
    least = "" if estimate >= _SMALLEST_SHOWN else "below "
    text = f"{least}{max(estimate, _SMALLEST_SHOWN):.2%}"
    report.say("estimate", f"relative error {text} by its own estimate")
    if estimate > _TRUSTED:
        report.warn("do not trust this field; ask for more unknowns")


def _errors(field: "ml.Wavefield", truth: "np.ndarray") -> list[float | None]:
    """Relative L2 error of every source; None where nothing scatters."""
    import meta_lrpinn as ml

    shape = (-1, *field.model.shape)
    pairs = zip(field.scattered.reshape(shape), truth.reshape(shape), strict=True)
    return [
        ml.relative_l2(prediction, known) if known.any() else None
        for prediction, known in pairs
    ]


def _write(
    fields: Sequence[pathlib.Path],
    page: pathlib.Path | None,
    results: Sequence[_Compared],
    report: Report,
) -> None:
    """Writes fields as cases that can be loaded again, their figures, and their page."""
    import numpy as np

    from meta_lrpinn.results import storage
    from meta_lrpinn.results.report import html

    writers: dict[pathlib.Path, Any] = {}
    for path, (field, truth, errors) in zip(fields, results, strict=True):
        known = {name: np.array(error, float) for name, error in errors.items()}
        writers[path] = storage.writer(storage.contents(field, known), path)
        save = field.plot(truth).savefig
        writers[path.with_suffix(_FIGURE)] = functools.partial(save, format="png", dpi=150)
    if page is not None:
        truths = [result.truth for result in results if result.truth is not None]
        text = html(
            [result.field for result in results],
            truths if len(truths) == len(results) else None,
        )
        writers[page] = lambda file: file.write(text.encode())
    writing.write_together(writers)
    written = [str(path) for path in writers]
    report.say("wrote", ", ".join(written))
    report.add(files=written)
