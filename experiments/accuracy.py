"""Error of the exact plane-wave solve against its number of unknowns, and its estimate.

Random velocities never trained on, at several frequencies: relative L2 error of the
plane-wave solution against fourth-order finite differences, for growing wavenumber
ratios of the lattice, and how far the solver's own estimate lies from that error.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import generators
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "accuracy"
flags.DEFINE_list(
    "wavenumber_ratios",
    ["1.0", "1.2", "1.4", "1.7", "2.0", "2.4", "2.8"],
    "Of the lattice.",
)
flags.DEFINE_integer("models", 14, "Random velocity models.", lower_bound=1)
flags.DEFINE_integer("first_seed", 900_000, "Seed of the first model.")

_SHAPE, _SPACING = (91, 91), 0.025


@functools.cache
def truths(frequency: float) -> list[ml.Wavefield]:
    """Finite-difference wavefields of the test models."""
    return [
        ml.solve(
            generators.random_velocity(FLAGS.first_seed + index, _SHAPE, _SPACING),
            frequency,
            np.array([[1.0, 0.025]]),
            ml.FiniteDifferences(tolerance=None),
        )
        for index in range(FLAGS.models)
    ]


def measure(frequency: float, wavenumber_ratio: float) -> list[dict[str, Any]]:
    """A row per model."""
    known = truths(frequency)
    models, source = [field.model for field in known], known[0].source
    with jax.enable_x64(True):
        problem = common.shared_problem(models, frequency, source)
        of_one = lattices.wavenumber_ratio_for(problem, 1)
    number = round((wavenumber_ratio / of_one) ** problem.ndim)
    # The second call is timed: compiled already.
    for _ in range(2):
        survey = ml.solve_survey(
            models, [frequency], source, ml.PlaneWaves(unknowns=number)
        )
    return [
        {
            "unknowns": survey.unknowns[0, 0],
            "model": index,
            "error": ml.relative_l2(survey.scattered[index, 0], truth.scattered),
            "estimate": float(survey.error_estimates[index, 0, 0]),
            "seconds": survey.elapsed / len(models),
            "reference_seconds": truth.elapsed,
        }
        for index, truth in enumerate(known)
    ]


def main() -> None:
    """Measures what is missing, then writes tables and figure."""
    ratios = list(map(float, FLAGS.wavenumber_ratios))
    keys = ("frequency", "wavenumber_ratio", "models", "first_seed")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    rows = []
    for frequency in common.frequencies((4, 5, 8, 10)):
        for wavenumber_ratio in ratios:
            values = (frequency, wavenumber_ratio, FLAGS.models, FLAGS.first_seed)
            rows += records.at(values, lambda: measure(frequency, wavenumber_ratio))
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def grouped(rows: Sequence[dict[str, Any]], *keys: str) -> dict[tuple, list]:
    """Rows by the values of some columns."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: error by frequency and ratio, then the estimate's calibration."""
    lines = []
    for (frequency, wavenumber_ratio), group in grouped(
        rows, "frequency", "wavenumber_ratio"
    ).items():
        errors = np.array([row["error"] for row in group])
        lines.append(
            [
                f"{frequency:g}",
                f"{wavenumber_ratio:g}",
                group[0]["unknowns"],
                f"{errors.mean():.2%}",
                f"{errors.max():.2%}",
                group[0]["seconds"],
                float(np.mean([row["reference_seconds"] for row in group])),
            ]
        )
    columns = (
        "Hz,wavenumber ratio,unknowns,mean error,worst error,seconds each,"
        "seconds of finite differences"
    ).split(",")
    text = common.table(columns, lines)
    calibration = []
    for (wavenumber_ratio,), group in grouped(rows, "wavenumber_ratio").items():
        ratio = np.array([row["estimate"] / row["error"] for row in group])
        low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95))
        within = np.mean((ratio > 0.5) & (ratio < 2))
        calibration.append(
            [f"{wavenumber_ratio:g}", len(ratio), middle, low, high, f"{within:.0%}"]
        )
    columns = (
        "wavenumber ratio,tasks,estimate over error: median,5th percentile,95th,"
        "within a factor of 2"
    ).split(",")
    return f"{text}\n\n{common.table(columns, calibration)}"


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error against unknowns, and estimate against error."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (frequency,), group in grouped(rows, "frequency").items():
        by_size = grouped(group, "unknowns")
        sizes = [key[0] for key in by_size]
        errors = [np.mean([row["error"] for row in by_size[key]]) for key in by_size]
        left.loglog(sizes, errors, "o-", label=f"{frequency:g} Hz")
        pairs = np.array([(row["error"], row["estimate"]) for row in group])
        right.loglog(*pairs.T, ".", label=f"{frequency:g} Hz")
    left.set(xlabel="plane waves", ylabel="relative L2 error", title="Mean error")
    limits = np.array([2e-3, 1.0])
    right.plot(limits, limits, color="0.5")
    right.fill_between(limits, limits / 2, limits * 2, color="0.9", zorder=0)
    right.set(xlabel="error", ylabel="estimate", title="Its own estimate, factor of two")
    for axes in (left, right):
        axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    scripts.run(main)
