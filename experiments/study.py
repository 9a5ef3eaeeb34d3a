"""Adaptation studies: contenders adapted to cases, several seeds each.

A study is a set of cases (a velocity model, a frequency and a source with the known
wavefield) and a set of contenders (a network and where it starts). `run` adapts every
contender to every case and keeps each history as rows of one CSV file, from which
`histories` makes tables and figures.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common, histories
from experiments.histories import Curves, Row
from meta_lrpinn import configs, models
from meta_lrpinn.cases import Case
from meta_lrpinn.networks import Network, make_network, random_network
from meta_lrpinn.velocity import VelocityModel

FLAGS = flags.FLAGS
flags.DEFINE_string("init", "default", "Meta-initialisation: default, or a folder.")
flags.DEFINE_string("meta_pinn", None, "Folder of a meta-trained dense network.")
flags.DEFINE_integer("steps", None, "Adaptation steps.", lower_bound=1)
flags.DEFINE_integer("points", 1600, "Collocation points per step.", lower_bound=1)

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
    """A network, where it starts, and how it is adapted."""

    start: Callable[[int], Network]  # seed to the network
    is_pruned: bool = True  # whether a hypernetwork is pruned before adaptation
    learning_rate: float | None = None  # of AdamW; None for the solver's own
    output_start: str = "solved"  # of "gradient", as of `GradientTraining`
    points: int | None = None  # a step; None for those of --points
    precision: str = "double"  # of the exact solves
    thickness: float | None = None  # of the absorbing layer [km]; None for the default

    def network(self, frequency: float, seed: int) -> Network:
        """The network that adaptation to a frequency [Hz] starts from."""
        network = self.start(seed)
        if self.is_pruned and network.kind == "lrpinn" and not network.is_pruned:
            return network.prune(frequency)
        return network

    def settings(
        self,
        method: str,
        frequency: float,
        steps: int,
        seed: int,
        report_every: int | None = None,
    ) -> ml.NetworkFeatures | ml.GradientTraining:
        """Settings of `solve` for an adaptation.

        Args:
            method: One of `HOW`.
            frequency: Frequency [Hz].
            steps: Adaptation steps.
            seed: Seed of random starts.
            report_every: Steps between records; default: the solver's own.
        """
        network = self.network(frequency, seed)
        adamw = ml.AdamW(
            steps=steps,
            learning_rate=self.learning_rate,
            points=self.points or FLAGS.points,
            report_every=report_every,
        )
        if method == "gradient":
            return ml.GradientTraining(
                network, adamw=adamw, loss="published", output_start=self.output_start
            )
        return ml.NetworkFeatures(
            network,
            output_layer=method,
            adaptation=adamw if steps else None,
            precision=self.precision,
        )


def saved(folder: str) -> Callable[[int], Network]:
    """The start of a meta-initialisation, by the seed, which changes nothing."""
    return lambda seed: ml.load_network(folder)


def contenders(meta_pinn: str | None = None) -> dict[str, Contender]:
    """The paper's: Meta-LRPINN, pruned and kept, Meta-PINN, and random starts.

    Random starts have the size of the meta-initialisation.

    Args:
        meta_pinn: Folder of a meta-trained dense network; without it there is none.

    Returns:
        Name to contender.
    """
    chosen = {
        "Meta-LRPINN": Contender(meta_start),
        "Meta-LRPINN, hypernetwork kept": Contender(meta_start, is_pruned=False),
        "LRPINN, random start": Contender(random_start()),
        "PINN, random start": Contender(random_pinn()),
    }
    if meta_pinn is not None:
        chosen["Meta-PINN"] = Contender(saved(meta_pinn))
    return chosen


def meta_start(seed: int = 0) -> Network:
    """The meta-initialisation of --init, a 2D LRPINN, for every seed."""
    del seed
    return ml.load_network(FLAGS.init, kind="lrpinn", ndim=2)


def random_start(**changes: Any) -> Callable[[int], Network]:
    """Random parameters of a network of the shape of --init's, by the seed.

    Args:
        **changes: Attributes of the low-rank network that differ, as `initialisation`.

    Returns:
        What `Contender` takes as its `start`.
    """
    module = meta_start().module
    low_rank = module.network.clone(gain=None, **changes)
    embedding = module.embedding.clone(initialisation=low_rank.initialisation)
    module = module.clone(network=low_rank, embedding=embedding)
    return functools.partial(random_network, module)


def top_source(model: VelocityModel, seed: int | None = None) -> np.ndarray:
    """A source at 25 m depth, (ndim,) [km].

    Args:
        model: Velocity model.
        seed: Of a place in the middle two thirds of the top; None for its middle.
    """
    fraction = 0.5
    if seed is not None:
        fraction = np.random.default_rng(seed).uniform(1 / 6, 5 / 6, model.ndim - 1)
    across = model.lower[:-1] + fraction * (model.upper - model.lower)[:-1]
    return np.append(across, model.lower[-1] + 0.025)


def random_pinn() -> Callable[[int], Network]:
    """Random parameters of a dense network of the shape of --init's, by seed."""
    low_rank = low_rank_module()
    config = configs.NetworkConfig(
        kind="pinn",
        width=low_rank.width,
        depth=low_rank.depth,
        first_scale=low_rank.first_scale,
        features=low_rank.last_width,
        layer_fraction=low_rank.layer_fraction,
    )
    return functools.partial(random_network, make_network(config))


def low_rank_module() -> models.LRPINN:
    """The low-rank network of --init, without its hypernetwork."""
    return meta_start().module.network


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
    field = ml.reference_wavefield(model, frequency, source)
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
        method: One of `HOW`.
        steps: Number of steps.
        seed: Of random starts and of collocation points.

    Returns:
        A row per record of the history: step, seconds (compilation excluded), relative
        L2 error, loss at held-out points, and the estimate of the error, not a number
        of "gradient", which has none.
    """
    every = max(1, steps // _RECORDS)
    settings = contender.settings(method, case.frequency, steps, seed, every)
    try:
        field = _solve(case, contender, settings, seed, truth=case.scattered)
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
        method: One of `HOW`.
        steps: Number of steps.
        seed: Of random starts and of collocation points.

    Returns:
        Relative L2 error, not a number if it diverged; and seconds of the whole call.
    """
    began = time.perf_counter()
    settings = contender.settings(method, case.frequency, steps, seed, steps or None)
    try:
        field = _solve(case, contender, settings, seed)
        error = ml.relative_l2(field.scattered, case.scattered)
    except FloatingPointError:
        error = np.nan
    return {"relative_l2": error, "seconds": time.perf_counter() - began}


def _solve(
    case: Case, contender: Contender, settings: Any, seed: int, **more: Any
) -> ml.Wavefield:
    return ml.solve(
        case.model,
        case.frequency,
        case.source,
        settings,
        amplitude=case.amplitude,
        background_velocity=case.background_velocity,
        thickness=contender.thickness,
        seed=seed,
        **more,
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
        method: One of `HOW`.

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
            *position, ml.NetworkFeatures(meta_start().prune(case.frequency)), **problem
        ),
        "finite differences, one grid": lambda: ml.solve(
            *position, ml.FiniteDifferences(tolerance=None), **problem
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
    low_rank = low_rank_module()
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
    parts = [histories.errors(curves), direct_table(lines), *sections, sizes(method)]
    common.save_report(name, "\n\n".join(parts))
    out = common.folder(name)
    histories.draw(curves, lines).savefig(out / "figure.png", dpi=150)
    histories.draw(curves, lines, x="seconds").savefig(out / "seconds.png", dpi=150)
    histories.draw(curves, y="held_out").savefig(out / "loss.png", dpi=150)
