"""Adaptation studies: contenders adapted to cases, several seeds each.

A study is a set of cases (a velocity model, a frequency and a source with the known
wavefield) and a set of contenders (a network and where it starts). `run` adapts every
contender to every case and keeps each history as rows of one CSV file, from which
`errors` makes a table and `draw` a figure.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import linen as nn
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import configs, models, networks, reference
from meta_lrpinn.cases import Case
from meta_lrpinn.solvers.solve import load_network
from meta_lrpinn.velocity import VelocityModel

FLAGS = flags.FLAGS
flags.DEFINE_string("init", "default", "Meta-initialisation: default, or a folder.")
flags.DEFINE_string("meta_pinn", None, "Folder of a meta-trained dense network.")
flags.DEFINE_integer("steps", None, "Adaptation steps.", lower_bound=1)
flags.DEFINE_integer("points", 1600, "Collocation points per step.", lower_bound=1)

Row = Mapping[str, Any]
Curves = dict[tuple[str, str], list[list[Row]]]  # (case, contender) to a run per seed

METHOD = "galerkin"
# Of a history. Each takes a solve in double precision, as long as several steps.
_RECORDS = 5
HOW = {
    "galerkin": "AdamW on the strong residual, the output layer eliminated, and solved "
    "for in the weak form (Galerkin) at every record",
    "least_squares": "AdamW on the strong residual, the output layer eliminated",
    "gradient": "AdamW on everything, from a solved output layer",
}
_COLUMNS = ("step", "seconds", "relative_l2", "held_out", "error_estimate")


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

    Random starts have the size of the meta-initialisation.

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
        "LRPINN, random start": Contender(init=random_start()),
        "PINN, random start": Contender("pinn", random_pinn()),
    }
    if meta_pinn is not None:
        chosen["Meta-PINN"] = Contender("pinn", meta_pinn)
    return chosen


def random_start(**changes: Any) -> Callable[[int], tuple[nn.Module, Any]]:
    """Random parameters of a network of the shape of --init's, by the seed.

    Args:
        **changes: Attributes of the low-rank network that differ, as `initialisation`.

    Returns:
        What `Contender` takes as its `init`.
    """
    model, _ = load_network(FLAGS.init, "lrpinn", 2, jax.random.key(0))
    network = model.network.clone(gain=None, **changes)
    embedding = model.embedding.clone(initialisation=network.initialisation)
    model = model.clone(network=network, embedding=embedding)
    return lambda seed: (model, models.initial_parameters(model, jax.random.key(seed)))


def top_source(model: VelocityModel, seed: int | None = None) -> np.ndarray:
    """A source at 25 m depth, (ndim,) [km].

    Args:
        model: Velocity model.
        seed: Of a place in the middle two thirds of the top; None for its middle.
    """
    share = 0.5
    if seed is not None:
        share = np.random.default_rng(seed).uniform(1 / 6, 5 / 6, model.ndim - 1)
    across = model.lower[:-1] + share * (model.upper - model.lower)[:-1]
    return np.append(across, model.lower[-1] + 0.025)


def random_pinn() -> Callable[[int], tuple[nn.Module, Any]]:
    """Random parameters of a dense network of the shape of --init's, by seed."""
    low_rank = network()
    config = configs.NetworkConfig(
        kind="pinn",
        width=low_rank.width,
        depth=low_rank.depth,
        first_scale=low_rank.first_scale,
        features=low_rank.last_width,
        layer_share=low_rank.layer_share,
    )
    model = networks.make_network(config)
    return lambda seed: (model, models.initial_parameters(model, jax.random.key(seed)))


def network() -> models.LRPINN:
    """The low-rank network of --init."""
    return load_network(FLAGS.init, "lrpinn", 2, jax.random.key(0))[0].network


def square_window(
    name: str, left: float, top: float, smoothing: float = 0.0, side: float = 2.25
) -> VelocityModel:
    """A part of a published velocity model, of a size that meta-training has seen.

    It is moved to the origin, where meta-training's models lie: networks take
    coordinates as they are.

    Args:
        name: In velocity_models.npz of the data folder.
        left: Where it begins, km.
        top: The same in depth, km.
        smoothing: Standard deviation of the Gaussian on slowness, km.
        side: Its width and depth, km.

    Returns:
        The window, on a grid of 25 m.
    """
    whole = ml.load_velocity(Path(FLAGS.data) / "velocity_models.npz", name)
    whole = whole.smoothed(smoothing)
    # A cell more than the side, for the grids of which the side is no multiple.
    (dz, dx), spacing = whole.spacing, 0.025
    part = whole.window(x=(left, left + side + dx), z=(top, top + side + dz))
    cells = round(side / spacing) + 1
    velocity = part.resampled(spacing).velocity[:cells, :cells]
    return VelocityModel(velocity, spacing)


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
        source = top_source(model)
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
        L2 error, loss at held-out points, and the estimate of the error, not a number
        of "gradient", which has none.
    """
    try:
        field = _solve(
            case,
            contender,
            method,
            steps,
            seed,
            truth=case.scattered,
            report_every=max(1, steps // _RECORDS),
        )
    except FloatingPointError:  # a row like any other, of no finite error
        return [{**dict.fromkeys(_COLUMNS, np.nan), "step": steps}]
    return [
        {name: record.get(name, np.nan) for name in _COLUMNS} for record in field.history
    ]


def final_error(
    case: Case, contender: Contender, method: str, steps: int, seed: int
) -> Row:
    """One adaptation without its history, which spares the exact solves on the way.

    What is kept is thus the start or the end.

    Args:
        case: With its known wavefield.
        contender: What adapts.
        method: As of `solve`.
        steps: Number of steps.
        seed: Of random starts and of collocation points.

    Returns:
        Relative L2 error, not a number if it diverged; and seconds of the whole call.
    """
    began = time.perf_counter()
    try:
        every = {"report_every": steps} if steps else {}
        field = _solve(case, contender, method, steps, seed, **every)
        error = ml.relative_l2(field.scattered, case.scattered)
    except FloatingPointError:
        error = np.nan
    return {"relative_l2": error, "seconds": time.perf_counter() - began}


def _solve(
    case: Case, contender: Contender, method: str, steps: int, seed: int, **more: Any
) -> ml.Wavefield:
    options = {"points": FLAGS.points, **contender.options, **more}
    return ml.solve(
        case.model,
        case.frequency,
        case.source,
        method=method,
        features=contender.features,
        init=contender.start(seed),
        steps=steps,
        amplitude=case.amplitude,
        background_velocity=case.background_velocity,
        seed=seed,
        **options,
    )


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

                init = contender.init if isinstance(contender.init, str) else FLAGS.init
                values = (
                    case_name, contender_name, method, steps, FLAGS.points, init, seed
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


def converged(runs: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """The runs that did not diverge."""
    return [rows for rows in runs if np.isfinite(rows[-1]["relative_l2"])]


def errors(curves: Curves, threshold: float = 0.2) -> str:
    """Markdown table: errors along the way and of what `solve` returns, and the pace."""
    columns = ["case", "contender"]
    rows = []
    for (case, contender), runs in curves.items():
        longest = max(runs, key=len)
        last = longest[-1]["step"]
        middle = longest[len(longest) // 2]["step"]
        columns = [
            "case",
            "contender",
            "error, step 0",
            f"step {middle}",
            f"step {last}",
            "returned",
            f"steps to {threshold:.0%}",
            "seconds",
        ]
        rows.append(
            [
                case,
                contender,
                *(error_at(runs, step) for step in (0, middle, last)),
                error_returned(runs),
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


def direct(
    name: str, cases: Mapping[str, Case | Callable[[], Case]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """The exact solves of every case; what is on file is not run again.

    Args:
        name: The experiment; its folder holds them.
        cases: As of `run`.

    Returns:
        Case to name to relative L2 error and seconds.
    """
    records = common.Records(common.folder(name) / "direct.csv", ("case", "init"))
    found = {}
    for case_name, case in cases.items():

        def measure(case=case):
            lines = direct_lines(case() if callable(case) else case)
            return [
                {"solver": solver, "error": error, "seconds": seconds}
                for solver, (error, seconds) in lines.items()
            ]

        rows = records.ensure({"case": case_name, "init": FLAGS.init}, measure)
        found[case_name] = {r["solver"]: (r["error"], r["seconds"]) for r in rows}
    return found


def direct_table(lines: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Markdown table of the exact solves: errors and seconds."""
    rows = [
        [case, solver, f"{100 * error:.3g} %", seconds]
        for case, own in lines.items()
        for solver, (error, seconds) in own.items()
    ]
    return common.table(("case", "exact solve", "error", "seconds"), rows)


def sizes(method: str = METHOD) -> str:
    """A line that says on what the numbers of a table rest."""
    low_rank = network()
    return (
        f"Mean ± standard deviation over {FLAGS.seeds} seeds, of collocation points "
        f"and random starts. Adaptation by {HOW[method]}, {FLAGS.points} "
        f"points a step; networks {low_rank.width} wide with {low_rank.depth} hidden "
        f"layers of rank {low_rank.rank} and {low_rank.number_of_features} features. "
        "Errors are relative L2 against finite differences refined until they change by "
        "0.3 %; seconds are of the steps alone, without compilation and exact solves."
    )


def publish(
    name: str,
    cases: Mapping[str, Case | Callable[[], Case]],
    curves: Curves,
    *sections: str,
    method: str = METHOD,
) -> None:
    """Table and figures of a study: error by step and by seconds, loss by step.

    Args:
        name: The experiment.
        cases: As of `run`.
        curves: What `run` gave.
        *sections: Markdown to stand between the tables and the line on sizes.
        method: The one of `run`.
    """
    lines = direct(name, cases)
    parts = [errors(curves), direct_table(lines), *sections, sizes(method)]
    common.save_report(name, "\n\n".join(parts))
    out = common.folder(name)
    draw(curves, lines).savefig(out / "figure.png", dpi=150)
    draw(curves, lines, x="seconds").savefig(out / "seconds.png", dpi=150)
    draw(curves, y="held_out").savefig(out / "loss.png", dpi=150)


_COLORS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000",
           "#999999")  # fmt: skip


def color(index: int) -> str:
    """The colour of the curve of that number."""
    return _COLORS[index % len(_COLORS)]


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
        for (name, (error, _)), style in zip(own.items(), styles, strict=False):
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
