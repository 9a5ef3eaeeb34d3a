"""Histories of adaptations: what their errors are, as tables and as curves; and bars.

A row is a record of a history. Curves are the histories of a study: of every case and
contender one for each seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import common

Row = Mapping[str, Any]
# Relative L2 error, processor seconds, unknowns and memory [MB] of an exact solve.
Line = tuple[float, ...]
Curves = dict[tuple[str, str], list[list[Row]]]  # (case, contender) to a run per seed


def reached(rows: Sequence[Row], threshold: float) -> tuple[float, float]:
    """First step and seconds at which the error is below the threshold, or infinity."""
    for row in rows:
        if row["relative_l2"] <= threshold:
            return row["step"], row["seconds"]
    return np.inf, np.inf


def returned(rows: Sequence[Row]) -> Row:
    """The record whose parameters `solve` returns: of the smallest estimate or loss."""

    def figure(row: Row) -> float:
        estimate = row["error_estimate"]
        return row["held_out"] if np.isnan(estimate) else estimate

    return min(rows, key=lambda row: (np.isnan(figure(row)), figure(row)))


def error_returned(runs: Sequence[Sequence[Row]]) -> str:
    """Mean and spread over seeds of the error of what `solve` returns, in %."""
    sound = converged(runs)
    if not sound:
        return "diverged"
    return common.spread([100 * returned(rows)["relative_l2"] for rows in sound], " %")


def steps_to(runs: Sequence[Sequence[Row]], threshold: float) -> str:
    """Steps to an error over seeds, "> most" where no seed reaches it."""
    values = np.array([reached(rows, threshold)[0] for rows in runs])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return f"> {runs[0][-1]['step']}"
    missing = "" if len(finite) == len(values) else f" ({len(finite)}/{len(values)})"
    return common.spread(finite) + missing


def error_at(runs: Sequence[Sequence[Row]], step: int) -> str:
    """Mean and spread over seeds of the error at the record nearest to a step, in %."""
    sound = converged(runs)
    if not sound:
        return "diverged"
    nearest = [min(rows, key=lambda row: abs(row["step"] - step)) for rows in sound]
    lost = "" if len(sound) == len(runs) else f" ({len(sound)}/{len(runs)})"
    return common.spread([100 * row["relative_l2"] for row in nearest], " %") + lost


def costs(runs: Sequence[Sequence[Row]], *names: str) -> list[str]:
    """Mean and spread over seeds of what adaptation took, "" for what is not known."""
    columns = [[run[-1][name] for run in runs] for name in names]
    # What no seed changes has no spread.
    columns = [own if len(set(own)) > 1 else own[:1] for own in columns]
    return ["" if np.isnan(own).any() else common.spread(own) for own in columns]


def converged(runs: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """The runs that did not diverge."""
    return [rows for rows in runs if np.isfinite(rows[-1]["relative_l2"])]


def errors(curves: Curves, thresholds: Sequence[float] = (0.3, 0.2, 0.1)) -> str:
    """Markdown table: errors along the way, of what `solve` returns, and the pace.

    Without steps there is one error, and no way to it.

    Args:
        curves: Of `study.run`.
        thresholds: Errors to which the steps are counted.
    """
    ends = {runs[0][-1]["step"] for runs in curves.values()}
    shown = sorted({fraction * max(ends) // 20 for fraction in (0, 1, 2, 5, 10, 20)})
    along = max(ends) > 0
    thresholds = thresholds if along else ()
    rows = [
        [
            case,
            contender,
            *(error_at(runs, step) for step in shown),
            *([error_returned(runs)] if along else []),
            *(steps_to(runs, threshold) for threshold in thresholds),
            *costs(runs, "drawn", "parameters", "seconds", "memory"),
        ]
        for (case, contender), runs in curves.items()
    ]
    columns = [
        "case",
        "contender",
        *(f"error, step {step}" for step in shown),
        *(["returned"] if along else []),
        *(f"steps to {threshold:.0%}" for threshold in thresholds),
        "points",
        "parameters",
        "processor seconds",
        "memory, MB",
    ]
    return common.table(columns, rows)


_COLORS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000",
           "#999999", "#882255", "#8b5a2b")  # fmt: skip


def color(index: int) -> str:
    """The colour of the curve of that number."""
    return _COLORS[index % len(_COLORS)]


def draw(
    curves: Curves,
    lines: Mapping[str, Mapping[str, Line]] | None = None,
    x: str = "step",
    y: str = "relative_l2",
) -> Figure:
    """Curves of mean and range over the seeds, a panel per case.

    Args:
        curves: Of `run`.
        lines: Case to name to an exact solve, whose errors are drawn as lines of reference.
        x: "step" or "seconds".
        y: "relative_l2" or "held_out".

    Returns:
        The figure.
    """
    labels = {
        "step": "adaptation steps",
        "seconds": "processor seconds, compilation excluded",
        "relative_l2": "relative L2 error",
        "held_out": "loss at held-out points",
    }
    cases = list(dict.fromkeys(case for case, _ in curves))
    names = list(dict.fromkeys(contender for _, contender in curves))
    across = min(3, len(cases))
    down = -(-len(cases) // across)
    figure = Figure(
        figsize=(max(5.5, 3.4 * across), 3.1 * down + 0.8), layout="constrained"
    )
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.ravel()[len(cases) :]:
        axes.set_visible(False)
    for (case, contender), all_runs in curves.items():
        axes = panels.ravel()[cases.index(case)]
        runs = converged(all_runs)
        if not runs:
            continue
        shortest = min(len(rows) for rows in runs)
        along = np.array([[r[x] for r in rows[:shortest]] for rows in runs], float)
        values = np.array([[r[y] for r in rows[:shortest]] for rows in runs], float)
        along = along.mean(axis=0)
        color = _COLORS[names.index(contender) % len(_COLORS)]
        axes.plot(along, values.mean(axis=0), color=color, label=contender)
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
        axes.set(title=case, xlabel=labels[x], ylabel=labels[y])
        if y == "relative_l2":
            axes.set_yscale("log")
    for case, own in (lines or {}).items():
        axes = panels.ravel()[cases.index(case)]
        styles = (":", "--", "-.")
        for (name, (error, *_)), style in zip(own.items(), styles, strict=False):
            axes.axhline(error, color="0.4", ls=style, lw=1, label=name)
    handles = {}
    for axes in panels.ravel():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center",
        ncols=min(3, 1 + across),  # wider than the panels it would be cut off
        frameon=False, fontsize=8,
    )  # fmt: skip
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], label: str) -> Figure:
    """Horizontal bars, those of a group side by side.

    The axis is logarithmic where the values span more than a decade.

    Args:
        groups: Group to name to a positive value; one that is missing or not finite
            leaves its place empty.
        label: Of the axis.

    Returns:
        The figure.
    """
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    height = 0.8 / len(names)
    figure = Figure(figsize=(7.5, 1.2 + 0.42 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(names):
        values = [own.get(name, np.nan) for own in groups.values()]
        places = np.arange(len(groups)) + (index - (len(names) - 1) / 2) * height
        axes.barh(places, values, height, color=color(index), label=name)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    values = [value for of_group in groups.values() for value in of_group.values()]
    values = [value for value in values if np.isfinite(value)]
    if max(values, default=1) > 10 * min(values, default=1):
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=min(2, len(names)), frameon=False)
    return figure
