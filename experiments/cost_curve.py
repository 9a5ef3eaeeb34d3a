"""Seconds against error of every solver, on smooth, layered, faulted and sharp models.

Plane waves and finite differences at one tolerance after the other, plane waves at their
default as well; learned features as they are; and the network's own output after a few
numbers of steps. Errors are against a wavenumber integral where the model varies with
depth alone, else against finite differences at a tenth of the smallest tolerance. Each
solve is timed by its second call. A row that has not converged says so.

The published models come from the data folder; without it they are left out. Five
minutes on one core for `layered` and `half-spaces`, far longer for all.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories, trust
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "cost_curve"
flags.DEFINE_list(
    "curve_tolerances", ["1e-2", "3e-3", "1e-3", "3e-4", "1e-4"], "Of both exact solvers."
)
flags.DEFINE_list("curve_steps", ["50", "200"], "AdamW steps of the own output.")
flags.DEFINE_list("curve_cases", None, "Of cost_curve's cases; by default all.")


class Run(NamedTuple):
    """One point of a curve."""

    solver: str
    asked: str  # of the solver: a tolerance, a number of steps, or the default
    settings: Any


def against_finer(case: trust.Case) -> tuple[trust.Case, np.ndarray]:
    """A case with δu by finite differences that are finer than those of the curve."""
    finest = min(map(float, FLAGS.curve_tolerances))
    return case, trust.differences(case, finest / 10).scattered


def layered() -> tuple[trust.Case, np.ndarray]:
    """The published layered model."""
    known = common.published_case("layered_5hz.npz")
    source = tuple(np.ravel(known.source).tolist())
    case = trust.Case(known.model, known.frequency, source, known.background_velocity)
    return against_finer(case)


def window(
    name: str, x: tuple[float, float], z: tuple[float, float], frequency: float
) -> tuple[trust.Case, np.ndarray]:
    """A part of a published velocity model, its source in the middle of its top."""
    model = ml.load_velocity(Path(FLAGS.data) / "velocity_models.npz", name)
    model = model.window(x=x, z=z)
    source = (float(model.lower[0] + model.upper[0]) / 2, float(model.lower[1]) + 0.025)
    return against_finer(trust.Case(model, frequency, source))


def exactly(name: str) -> tuple[trust.Case, np.ndarray]:
    """A case of `trust` with its wavenumber integral."""
    case = trust.exact_cases()[name]
    return case, trust.exact(case)


def make_cases() -> dict[str, Callable[[], tuple[trust.Case, np.ndarray]]]:
    """Cases by name, each made with its true δu when it is needed.

    Layered at 5 Hz, 3 × 2 km of Marmousi at 10 Hz, 10 × 4 km of Overthrust at 5 Hz, and
    two models of `trust` at 6 Hz.
    """
    return {
        "layered": layered,
        "half-spaces": functools.partial(exactly, "half-spaces 1.5 / 3"),
        "guide": functools.partial(exactly, "slow guide, source within"),
        "marmousi": functools.partial(window, "marmousi", (3, 6), (0, 2), 10.0),
        "overthrust": functools.partial(window, "overthrust", (5, 15), (0, 4), 5.0),
    }


def runs() -> list[Run]:
    """All points of the curves, the cheapest of each curve first."""
    tolerances = list(map(float, FLAGS.curve_tolerances))
    steps = list(map(int, FLAGS.curve_steps))
    return [
        Run("plane waves", "default", ml.PlaneWaves()),
        *(Run("plane waves", f"{t:g}", ml.PlaneWaves(tolerance=t)) for t in tolerances),
        *(
            Run("finite differences", f"{t:g}", ml.FiniteDifferences(tolerance=t))
            for t in tolerances
        ),
        Run("learned features", "default", ml.NetworkFeatures()),
        *(
            Run(
                "own output",
                f"{count} steps",
                ml.GradientTraining(optimiser=ml.AdamW(steps=count, points=576)),
            )
            for count in steps
        ),
    ]


def measure(case: trust.Case, truth: np.ndarray, run: Run) -> list[dict[str, Any]]:
    """One row; a refusal is one too."""

    def solve():
        return ml.solve(
            case.model,
            case.frequency,
            case.source,
            run.settings,
            background_velocity=case.background_velocity,
        )

    return trust.timed(solve, truth)


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    cases = make_cases()
    names = list(cases) if FLAGS.curve_cases is None else FLAGS.curve_cases
    unknown = sorted(set(names) - set(cases))
    if unknown:
        raise ValueError(f"there is no case {unknown[0]!r}; there are {', '.join(cases)}")
    keys = ("case", "solver", "asked")
    records = common.Records(common.folder(NAME) / "seconds.csv", keys)
    rows = []
    for name in names:
        known = functools.cache(cases[name])
        try:
            for run in runs():
                rows += records.at(
                    (name, run.solver, run.asked), lambda: measure(*known(), run)
                )
        except (ValueError, OSError) as error:  # of the data folder
            print(f"left out: {error}", flush=True)
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for each point."""
    lines = [
        [row[name] for name in ("case", "solver", "asked")]
        + trust.cells(row)
        + ["" if row.get("refusal") else row["unknowns"]]
        for row in rows
    ]
    columns = "case,solver,asked,error,its estimate,seconds,unknowns".split(",")
    return common.table(columns, lines)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error against seconds, a panel for each case, a curve for each solver."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    figure = Figure(figsize=(3.4 * max(len(cases), 1), 3.6), layout="constrained")
    panels = figure.subplots(1, max(len(cases), 1), squeeze=False, sharey=True)[0]
    for axes, case in zip(panels, cases, strict=False):
        for number, solver in enumerate(solvers):
            points = [
                (row["seconds"], row["error"])
                for row in rows
                if (row["case"], row["solver"]) == (case, solver) and not row.get("refusal")
            ]
            if points:
                axes.loglog(
                    *np.array(sorted(points), float).T,
                    "o-",
                    ms=3,
                    color=histories.color(number),
                    label=solver,
                )
        axes.set(title=case, xlabel="seconds, second call")
    panels[0].set_ylabel("relative L2 error")
    panels[0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    scripts.run(main)
