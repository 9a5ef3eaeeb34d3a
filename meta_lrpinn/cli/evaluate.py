"""`meta-lrpinn evaluate`: an initialisation and random starts as they adapt."""

import argparse
import csv
import functools
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli import Report, check_folder
from meta_lrpinn.cli.parsing import Groups, Option
from meta_lrpinn.cli.problem import PROBLEM_OPTIONS, Problem, describe, pose, warn_of_grid
from meta_lrpinn.files import writing
from meta_lrpinn.solvers.settings import AdamW, GradientTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from meta_lrpinn.learning.networks import Network

SUMMARY = "Follow the error of an initialisation and of random starts as they adapt."
_COLUMNS: Sequence[str] = "start seed source step seconds loss relative_l2".split()
_MOST_SHOWN = 5  # records of a curve in the table printed


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "problem": PROBLEM_OPTIONS,
        "evaluation": [
            Option(
                "init",
                "Initialisation: the name of a shipped one, the folder of an "
                "initialisation or a run, or none to evaluate random starts alone.",
                default="meta_lrpinn",
            ),
            Option("steps", "Steps of AdamW on all parameters.", int, 100),
            Option("seeds", "Runs of each, seeds 0, 1, ...", int, 1),
        ],
        "files": [Option("out", "Folder to write to.", default=".")],
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """Trains, prints a table, and writes evaluate.csv and evaluate.png."""
    from meta_lrpinn import plotting

    check_folder(options.out)
    if options.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {options.seeds}")
    optimiser = AdamW(steps=options.steps)
    problem = pose(options, report)
    describe(problem, report)
    truth, known = problem.published, "published"
    if truth is None:
        truth, known = problem.reference().scattered, "reference"
    warn_of_grid(problem, report)
    report.say(
        "error", f"relative L2 against the {known} field, mean over seeds and sources"
    )
    rows, curves = [], {}
    for start, network_of in _starts(options.init, problem).items():
        records = []
        for seed in range(options.seeds):
            settings = GradientTraining(network_of(seed), optimiser=optimiser)
            field = problem.solve(
                settings, seed=seed, truth=truth, progress=report.shows_progress
            )
            labels = {"start": start, "seed": seed}
            records += [{**labels, **record} for record in field.history]
        curve = _mean_curve(records)
        shown = _thinned(curve)
        if not curves:
            _say_row(report, "start", [str(record["step"]) for record in shown])
        _say_row(report, start, [f"{record['relative_l2']:.2%}" for record in shown])
        rows += records
        curves[start] = curve
    report.add(curves=curves)
    figure = plotting.convergence_figure(curves, dashed=["random"])
    _write(pathlib.Path(options.out), rows, figure, report)


def _starts(init: str, problem: Problem) -> "dict[str, Callable[[int], Network]]":
    """Label → the network, pruned, that a seed starts from; random ones of its shape."""
    from meta_lrpinn.learning.networks import load_network

    def pruned(network):
        low_rank = network.kind == "lrpinn"
        return network.prune(problem.frequency) if low_rank else network

    network = load_network(None if init == "none" else init, ndim=problem.model.ndim)
    starts = {"random": lambda seed: pruned(network.reinitialised(seed))}
    if init == "none":
        return starts
    trained = pruned(network)
    name = os.path.basename(os.path.normpath(init))
    return {name: lambda seed: trained, **starts}


def _mean_curve(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Mean error over seeds and sources at every recorded step."""
    errors: dict[int, list[float]] = {}
    for record in records:
        errors.setdefault(record["step"], []).append(record["relative_l2"])
    return [
        {"step": step, "relative_l2": sum(values) / len(values)}
        for step, values in sorted(errors.items())
    ]


def _thinned(curve: Sequence[Any]) -> list[Any]:
    """At most so many records as are shown, from the first to the last."""
    last, parts = len(curve) - 1, _MOST_SHOWN - 1
    indices = {round(last * part / parts) for part in range(_MOST_SHOWN)}
    return [curve[index] for index in sorted(indices)]


def _say_row(report: Report, start: str, cells: Sequence[str]) -> None:
    report.say(start, "".join(f"{cell:>10}" for cell in cells))


def _write(
    folder: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    figure: "Figure",
    report: Report,
) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    writers: dict[pathlib.Path, Any] = {
        folder / "evaluate.csv": lambda file: file.write(table.getvalue().encode()),
        folder / "evaluate.png": functools.partial(figure.savefig, format="png", dpi=150),
    }
    writing.write_together(writers)
    report.say("wrote", ", ".join(map(str, writers)))
