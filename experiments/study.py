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
from meta_lrpinn import models
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import configs
from meta_lrpinn.learning.networks import Network, make_network, random_network
from meta_lrpinn.physics.velocity import VelocityModel

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "init", None, "Meta-initialisation: a name or a folder; by default the method's own."
)
flags.DEFINE_string(
    "meta_pinn", None, "Meta-trained dense network to compare with: a name or a folder."
)
flags.DEFINE_integer("steps", None, "Adaptation steps.", lower_bound=1)
flags.DEFINE_integer("points", 1600, "Collocation points per step.", lower_bound=1)

HOW = {
    "own_output": "AdamW on everything (SOAP where a contender says so), the network's own "
    "output, the residual relative to the right-hand side",
    "published": "AdamW on everything, the network's own output, the published losses",
    "galerkin": "no steps: the output layer solved for in the weak form (Galerkin)",
}
METHOD = "own_output"  # the paper's meta-testing, with the scaled loss
_OWN_OUTPUT = ("own_output", "published")
_RECORDS = 50  # of a history
_COLUMNS = ("step", "seconds", "relative_l2", "held_out", "error_estimate")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A network, where it starts, and how it is adapted."""

    start: Callable[[int], Network]  # seed to the network
    is_pruned: bool = True  # whether a hypernetwork is pruned before adaptation
    optimiser: type[ml.AdamW] = ml.AdamW  # or SOAP
    learning_rate: float | None = None  # None for the solver's own
    polish: bool = False  # of the own output: its layer solved exactly at the end
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
        if method not in _OWN_OUTPUT:
            if steps:
                raise ValueError(f"{method} has no steps, got {steps}")
            return ml.NetworkFeatures(network, precision=self.precision)
        optimiser = self.optimiser(
            steps=steps,
            learning_rate=self.learning_rate,
            points=self.points or FLAGS.points,
            report_every=report_every,
        )
        return ml.GradientTraining(
            network,
            optimiser=optimiser,
            loss="relative" if method == "own_output" else "published",
            polish=self.polish,
        )


def saved(folder: str) -> Callable[[int], Network]:
    """The start of a meta-initialisation, by the seed, which changes nothing."""
    return lambda seed: ml.load_network(folder)


def contenders() -> dict[str, Contender]:
    """The paper's: Meta-LRPINN, pruned and kept, Meta-PINN, and random starts.

    All by AdamW, as published, and some by SOAP. Random starts have the sizes of the
    meta-trained networks.

    Returns:
        Name to contender; Meta-PINN is among them with --meta_pinn.
    """
    chosen = {
        "Meta-LRPINN": Contender(meta_start),
        "Meta-LRPINN, hypernetwork kept": Contender(meta_start, is_pruned=False),
        "Meta-LRPINN by SOAP": Contender(meta_start, optimiser=ml.SOAP),
        "LRPINN, random start": Contender(random_start()),
        "LRPINN, random start, by SOAP": Contender(random_start(), optimiser=ml.SOAP),
        "PINN, random start": Contender(random_pinn()),
    }
    if FLAGS.meta_pinn is not None:
        start = saved(FLAGS.meta_pinn)
        chosen["Meta-PINN"] = Contender(start)
        chosen["Meta-PINN by SOAP"] = Contender(start, optimiser=ml.SOAP)
    return chosen


def initialisation(method: str = METHOD) -> str:
    """Name or folder of the meta-initialisation: that of --init, or the method's own."""
    own = "meta_lrpinn" if method in _OWN_OUTPUT else "default"
    return FLAGS.init or own


def meta_start(seed: int = 0) -> Network:
    """The initialisation for the own output, a 2D LRPINN, for every seed."""
    del seed
    return ml.load_network(initialisation(), kind="lrpinn", ndim=2)


def feature_start(seed: int = 0) -> Network:
    """The initialisation for exact solves over features, for every seed."""
    del seed
    return ml.load_network(initialisation("galerkin"), kind="lrpinn", ndim=2)


def random_start(
    like: Callable[[], Network] = meta_start, **changes: Any
) -> Callable[[int], Network]:
    """Random parameters of a network of the shape of a meta-trained one, by the seed.

    Args:
        like: Gives that one.
        **changes: Attributes of the low-rank network that differ, as `initialisation`.

    Returns:
        What `Contender` takes as its `start`.
    """
    module = like().module
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
    """Random parameters of a dense network, by seed.

    Of the shape of --meta_pinn; without it, as wide and deep as the low-rank network.
    """
    if FLAGS.meta_pinn is not None:
        dense = ml.load_network(FLAGS.meta_pinn, kind="pinn", ndim=2)
        return functools.partial(random_network, dense.module)
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
    """The low-rank network for the own output, without its hypernetwork."""
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
        of the own output, which has none.
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
                    case_name, contender_name, method, steps, FLAGS.points,
                    initialisation(method), seed,
                )  # fmt: skip
                rows = records.at(values, measure)
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
            *position, ml.NetworkFeatures(feature_start().prune(case.frequency)), **problem
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

        rows = records.ensure(
            {"case": case_name, "init": initialisation("galerkin")}, measure
        )
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
        f"{common.over_seeds().capitalize()} (collocation points and random "
        f"starts). Adaptation by {HOW[method]}, {FLAGS.points} "
        f"points a step; networks {low_rank.width} wide with {low_rank.depth} hidden "
        f"layers of rank {low_rank.rank} and {low_rank.number_of_features} features. "
        f"Initialisation {initialisation(method)}. Errors are relative L2 against finite "
        "differences refined until they change by 0.3 %; seconds are of the steps alone, "
        "without compilation and evaluation."
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
