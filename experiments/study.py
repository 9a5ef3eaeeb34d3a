"""Adaptation studies: contenders adapted to cases, several seeds each.

A study is a set of cases (a velocity model, a frequency and a source with the known
wavefield) and a set of contenders (a network and where it starts). `run` adapts every
contender to every case and keeps each history as rows of one CSV file, from which
`errors` makes a table and `draw` a figure.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import reference
from meta_lrpinn.velocity import Case, VelocityModel

FLAGS = flags.FLAGS
flags.DEFINE_string("init", "default", "Meta-initialisation: default, or a folder.")
flags.DEFINE_integer("steps", None, "Adaptation steps.", lower_bound=1)
flags.DEFINE_integer("points", 1600, "Collocation points per step.", lower_bound=1)

Row = Mapping[str, Any]
Curves = dict[tuple[str, str], list[list[Row]]]  # (case, contender) to a run per seed

METHOD = "least_squares"
_COLUMNS = ("step", "seconds", "relative_l2", "held_out")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A network, where it starts, and how it is adapted.

    Attributes:
        features: "lrpinn" or "pinn".
        init: As of `solve`, or a function of the seed that gives it.
        options: Further keywords of `solve`.
    """

    features: str = "lrpinn"
    init: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def start(self, seed: int) -> Any:
        """The `init` of a seed."""
        return self.init(seed) if callable(self.init) else self.init


def contenders(meta_pinn: str | None = None) -> dict[str, Contender]:
    """The paper's: Meta-LRPINN, pruned and kept, Meta-PINN, and random starts.

    Args:
        meta_pinn: Folder of a meta-trained dense network; without it there is none.

    Returns:
        Name to contender.
    """
    chosen = {
        "Meta-LRPINN": Contender(init=FLAGS.init),
        "Meta-LRPINN, hypernetwork kept": Contender(
            init=FLAGS.init, options={"prune_hypernetwork": False}
        ),
        "LRPINN, random start": Contender(),
        "PINN, random start": Contender("pinn"),
    }
    if meta_pinn is not None:
        chosen["Meta-PINN"] = Contender("pinn", meta_pinn)
    return chosen


def known_case(
    model: VelocityModel, frequency: float, source: Sequence[float] | None = None
) -> Case:
    """A case with its finite-difference wavefield, refined until it changes by 0.3 %.

    Args:
        model: Velocity model.
        frequency: Frequency, Hz.
        source: Position, km; by default the middle of the top, at 25 m depth.

    Returns:
        The case, complete.
    """
    if source is None:
        source = (model.lower + model.upper) / 2
        source[-1] = model.lower[-1] + 0.025
    field = reference.reference_wavefield(model, frequency, source, tolerance=0.003)
    return Case(
        model=model,
        frequency=float(frequency),
        source=np.asarray(source, float),
        scattered=field.scattered,
    )


def adapt(
    case: Case, contender: Contender, method: str, steps: int, seed: int
) -> list[Row]:
    """One adaptation.

    Args:
        case: With its known wavefield.
        contender: What adapts.
        method: As of `solve`.
        steps: Number of steps.
        seed: Of random starts and of collocation points.

    Returns:
        A row per record of the history: step, seconds (compilation excluded), relative
        L2 error, and the loss at held-out points.
    """
    options = {"points": FLAGS.points, **contender.options}
    field = ml.solve(
        case.model,
        case.frequency,
        case.source,
        method=method,
        features=contender.features,
        init=contender.start(seed),
        steps=steps,
        amplitude=case.amplitude,
        background_velocity=case.background_velocity,
        truth=case.scattered,
        seed=seed,
        **options,
    )
    return [{name: record[name] for name in _COLUMNS} for record in field.history]


def run(
    name: str,
    cases: Mapping[str, Case | Callable[[], Case]],
    chosen: Mapping[str, Contender],
    steps: int,
    method: str = METHOD,
) -> Curves:
    """Adapts every contender to every case; what is on file is not run again.

    Args:
        name: The experiment; its folder holds the histories.
        cases: Name to case, or to a function that makes it if it is needed.
        chosen: Name to contender.
        steps: Adaptation steps.
        method: As of `solve`.

    Returns:
        The histories.
    """
    keys = ("case", "contender", "method", "steps", "points", "init", "seed")
    records = common.Records(common.folder(name) / f"history_{method}.csv", keys)
    curves: Curves = {}
    for case_name, case in cases.items():
        made: list[Case] = []
        for contender_name, contender in chosen.items():
            for seed in range(FLAGS.seeds):

                def measure(contender=contender, case=case, made=made, seed=seed):
                    if not made:
                        made.append(case() if callable(case) else case)
                    return adapt(made[0], contender, method, steps, seed)

                values = (
                    case_name, contender_name, method, steps, FLAGS.points, FLAGS.init,
                    seed,
                )  # fmt: skip
                rows = records.ensure(dict(zip(keys, values, strict=True)), measure)
                curves.setdefault((case_name, contender_name), []).append(rows)
    return curves


def reached(rows: Sequence[Row], threshold: float) -> tuple[float, float]:
    """First step and seconds at which the error is below the threshold, or infinity."""
    for row in rows:
        if row["relative_l2"] <= threshold:
            return row["step"], row["seconds"]
    return np.inf, np.inf


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
    nearest = [min(rows, key=lambda row: abs(row["step"] - step)) for rows in runs]
    return common.spread([100 * row["relative_l2"] for row in nearest], " %")


def errors(curves: Curves, threshold: float = 0.2) -> str:
    """Markdown table: the error at the start, half way and at the end, and the pace."""
    columns = ["case", "contender"]
    rows = []
    for (case, contender), runs in curves.items():
        last = runs[0][-1]["step"]
        middle = runs[0][len(runs[0]) // 2]["step"]
        columns = [
            "case",
            "contender",
            "error, step 0",
            f"step {middle}",
            f"step {last}",
            f"steps to {threshold:.0%}",
            "seconds",
        ]
        rows.append(
            [
                case,
                contender,
                *(error_at(runs, step) for step in (0, middle, last)),
                steps_to(runs, threshold),
                common.spread([run[-1]["seconds"] for run in runs]),
            ]
        )
    return common.table(columns, rows)


def direct_lines(case: Case) -> dict[str, tuple[float, float]]:
    """The exact solves beside which adaptation stands.

    Args:
        case: With its known wavefield.

    Returns:
        Name to relative L2 error and seconds, compilation excluded.
    """
    problem = {
        "amplitude": case.amplitude,
        "background_velocity": case.background_velocity,
    }
    position = (case.model, case.frequency, case.source)
    solvers = {
        "plane waves": lambda: ml.solve(*position, **problem),
        "meta-learned features, 0 steps": lambda: ml.solve(
            *position, features="lrpinn", init=FLAGS.init, **problem
        ),
        "finite differences, one grid": lambda: reference.reference_wavefield(
            *position, **problem
        ),
    }
    lines = {}
    for name, solver in solvers.items():
        solver()
        field = solver()
        seconds = field.elapsed
        lines[name] = (ml.relative_l2(field.scattered, case.scattered), seconds)
    return lines


_COLORS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000")


def draw(
    curves: Curves,
    lines: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    x: str = "step",
    y: str = "relative_l2",
) -> Figure:
    """Curves of mean and range over the seeds, a panel per case.

    Args:
        curves: Of `run`.
        lines: Case to name to (error, seconds), drawn as lines of reference.
        x: "step" or "seconds".
        y: "relative_l2" or "held_out".

    Returns:
        The figure.
    """
    labels = {
        "step": "adaptation steps",
        "seconds": "seconds, compilation excluded",
        "relative_l2": "relative L2 error",
        "held_out": "loss at held-out points",
    }
    cases = list(dict.fromkeys(case for case, _ in curves))
    names = list(dict.fromkeys(contender for _, contender in curves))
    across = min(3, len(cases))
    down = -(-len(cases) // across)
    figure = Figure(figsize=(4.6 * across, 3.6 * down + 0.6), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes in panels.ravel()[len(cases) :]:
        axes.set_visible(False)
    for (case, contender), runs in curves.items():
        axes = panels.ravel()[cases.index(case)]
        shortest = min(len(rows) for rows in runs)
        along = np.array([[r[x] for r in rows[:shortest]] for rows in runs], float)
        values = np.array([[r[y] for r in rows[:shortest]] for rows in runs], float)
        along, color = along.mean(axis=0), _COLORS[names.index(contender) % len(_COLORS)]
        axes.plot(along, values.mean(axis=0), color=color, label=contender)
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
        axes.set(title=case, xlabel=labels[x], ylabel=labels[y])
        if y == "relative_l2":
            axes.set_yscale("log")
    for case, own in (lines or {}).items():
        axes = panels.ravel()[cases.index(case)]
        for (name, (error, _)), style in zip(own.items(), (":", "--", "-."), strict=False):
            axes.axhline(error, color="0.4", ls=style, lw=1, label=name)
    handles = {}
    for axes in panels.ravel():
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4,
        frameon=False, fontsize=8,
    )  # fmt: skip
    return figure
