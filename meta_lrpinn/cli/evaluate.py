"""`meta-lrpinn evaluate`: an initialisation and random starts as they adapt."""

import argparse
import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli import output, problem
from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.report import Report
from meta_lrpinn.files import writing
from meta_lrpinn.solvers.settings import AdamW, GradientTraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY = "Follow the error of an initialisation and of random starts as they adapt."
_COLUMNS: Sequence[str] = "start seed source step seconds loss relative_l2".split()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    problem.add_options(parser)
    group = parser.add_argument_group("evaluation")
    add_option(
        group,
        "init",
        str,
        "Initialisation: the name of a shipped one, the folder of an initialisation or a "
        "run, or none to evaluate random starts alone.",
        "meta_lrpinn",
    )
    add_option(group, "steps", int, "Steps of AdamW on all parameters.", 100)
    add_option(group, "seeds", int, "Runs of each, seeds 0, 1, ...", 1)
    output.add_options(parser)


def run(options: argparse.Namespace, report: Report) -> None:
    """Trains, prints a table, and writes evaluate.csv and evaluate.png."""
    from meta_lrpinn import plotting

    output.check_folder(options.out)
    if options.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {options.seeds}")
    optimiser = AdamW(steps=options.steps)
    posed = problem.pose(options, report)
    problem.describe(posed, report)
    truth = posed.published
    if truth is None:
        truth = output.reference_field(posed, output.REFERENCE_TOLERANCE).scattered
    problem.warn_of_grid(posed, report)
    known = "reference" if posed.published is None else "published"
    report.say(
        "error", f"relative L2 against the {known} field, mean over seeds and sources"
    )
    rows, curves = [], {}
    for start, network in _starts(options.init, posed).items():
        records = _records(posed, network, optimiser, truth, options.seeds, report)
        rows += [{"start": start, **record} for record in records]
        curve = _mean_curve(records)
        marks = _some(curve)
        if not curves:
            _say_row(report, "start", [str(row["step"]) for row in marks])
        _say_row(report, start, [f"{row['relative_l2']:.2%}" for row in marks])
        curves[start] = curve
    report.add(curves=curves)
    figure = plotting.convergence_figure(curves, dashed=["random"])
    _write(options.out, rows, figure, report)


def _starts(init: str, posed: problem.Problem) -> dict[str, Any]:
    """Label → the network, pruned, that a seed starts from; random ones of its shape."""
    from meta_lrpinn.learning.networks import load_network

    def pruned(network):
        low_rank = network.kind == "lrpinn"
        return network.prune(posed.frequency) if low_rank else network

    ndim = posed.model.ndim
    network = load_network(None if init == "none" else init, ndim=ndim)
    starts = {"random": lambda seed: pruned(network.reinitialised(seed))}
    if init == "none":
        return starts
    trained = pruned(network)
    name = os.path.basename(os.path.normpath(init))
    return {name: lambda seed: trained, **starts}


def _records(posed, network, optimiser, truth, seeds, report) -> list[dict[str, Any]]:
    import meta_lrpinn as ml

    return [
        {"seed": seed, **record}
        for seed in range(seeds)
        for record in ml.solve(
            posed.model,
            posed.frequency,
            posed.source,
            GradientTraining(network(seed), optimiser=optimiser),
            seed=seed,
            truth=truth,
            progress=report.shows_progress,
            **posed.keywords(),
        ).history
    ]


def _mean_curve(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Mean error over seeds and sources at every recorded step."""
    errors: dict[int, list[float]] = {}
    for record in records:
        errors.setdefault(record["step"], []).append(record["relative_l2"])
    return [
        {"step": step, "relative_l2": sum(some) / len(some)}
        for step, some in sorted(errors.items())
    ]


def _some(curve: Sequence[Any], most: int = 5) -> list[Any]:
    """At most so many records, from the first to the last."""
    last = len(curve) - 1
    chosen = {round(last * index / (most - 1)) for index in range(most)}
    return [curve[index] for index in sorted(chosen)]


def _say_row(report: Report, start: str, cells: Sequence[str]) -> None:
    report.say(start, "".join(f"{cell:>10}" for cell in cells))


def _write(
    out: str, rows: Sequence[Mapping[str, Any]], figure: "Figure", report: Report
) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder = pathlib.Path(out)
    paths = [folder / "evaluate.csv", folder / "evaluate.png"]
    writing.write_together(
        {
            paths[0]: lambda file: file.write(table.getvalue().encode()),
            paths[1]: lambda file: figure.savefig(file, format="png", dpi=150),
        }
    )
    report.say("wrote", ", ".join(str(path) for path in paths))
