"""Adaptation studies: contenders adapted to cases, several seeds each.

A study is a set of cases (a velocity model, a frequency and a source with the known
wavefield) and a set of contenders (a network and where it starts). `run` adapts every
contender to every case and keeps each history as rows of one CSV file, from which
`histories` makes tables and figures.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common, costs
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
flags.DEFINE_list(
    "beside", [], "Further meta-initialisations to compare with: names or folders."
)
flags.DEFINE_integer("steps", None, "Adaptation steps.", lower_bound=1)
flags.DEFINE_integer(
    "points",
    None,
    "Collocation points a step; default: by the wavelength.",
    lower_bound=1,
)
flags.DEFINE_float("one_seed_from", np.inf, "From this frequency on one seed must do, Hz.")

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
    points: int | None = None  # a step; None for those of `points_of`
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
        case: Case,
        method: str,
        steps: int,
        seed: int,
        report_every: int | None = None,
    ) -> ml.NetworkFeatures | ml.GradientTraining:
        """Settings of `solve` for an adaptation.

        Args:
            case: What it adapts to.
            method: One of `HOW`.
            steps: Adaptation steps.
            seed: Seed of random starts.
            report_every: Steps between records; default: the solver's own.
        """
        network = self.network(case.frequency, seed)
        if method not in _OWN_OUTPUT:
            if steps:
                raise ValueError(f"{method} has no steps, got {steps}")
            return ml.NetworkFeatures(network, precision=self.precision)
        optimiser = self.optimiser(
            steps=steps,
            learning_rate=self.learning_rate,
            points=self.points or points_of(case.model, case.frequency),
            report_every=report_every,
        )
        return ml.GradientTraining(
            network,
            optimiser=optimiser,
            loss="relative" if method == "own_output" else "published",
            polish=self.polish,
        )


def points_of(model: VelocityModel, frequency: float) -> int:
    """Collocation points of a step: --points, or by the wavelength."""
    return FLAGS.points or common.points_by_wavelength(model, frequency)


def points_asked() -> int | str:
    """--points, or what stands for it in records and reports."""
    return FLAGS.points or "by wavelength"


def seeds_at(frequency: float) -> int:
    """Seeds of a setting: --seeds, or one from --one_seed_from on."""
    return 1 if frequency >= FLAGS.one_seed_from else FLAGS.seeds


def saved(folder: str) -> Callable[[int], Network]:
    """The start of a meta-initialisation, by the seed, which changes nothing."""
    return lambda seed: ml.load_network(folder)


def contenders() -> dict[str, Contender]:
    """The paper's: Meta-LRPINN, pruned and kept, Meta-PINN, and random starts.

    All by AdamW, as published, and some by SOAP. Random starts have as many parameters as
    the pruned network.

    Returns:
        Name to contender; Meta-PINN is among them with --meta_pinn, and those of --beside.
        Of those that ship MAML trained Meta-LRPINN, and Reptile Meta-PINN.
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
    for name in FLAGS.beside:
        chosen[name] = Contender(saved(name))
        chosen[f"{name} by SOAP"] = Contender(saved(name), optimiser=ml.SOAP)
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
    """Random parameters, by seed, of a dense network as large as the pruned low-rank one.

    It has its depth and number of features, and the width that gives it as many parameters.
    """
    low_rank = low_rank_module()
    config = configs.NetworkConfig(
        kind="pinn",
        depth=low_rank.depth,
        first_scale=low_rank.first_scale,
        features=low_rank.last_width,
        layer_fraction=low_rank.layer_fraction,
        frequency_input=True,
    )
    config = costs.as_large(config, costs.size(meta_start().prune(5.0).params))
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
    case: Case,
    contender: Contender,
    method: str,
    steps: int,
    seed: int,
    every: int | None = None,
) -> list[Row]:
    """One adaptation.

    Args:
        case: With its known wavefield.
        contender: What adapts.
        method: One of `HOW`.
        steps: Number of steps.
        seed: Of random starts and of collocation points.
        every: Steps between records; by default a fiftieth of all.

    Returns:
        A row per record of the history: step, processor seconds (of the steps alone; of an
        exact solve the whole second call), relative L2 error, loss at held-out points,
        the estimate of the error, not a number of the own output, which has none, and
        the returned field's error; and number of parameters, of points, memory [MB] (of a
        step's compiled program, or the peak of the exact solve).
    """
    every = every or max(1, steps // _RECORDS)
    settings = contender.settings(case, method, steps, seed, every)
    cost = costs.cost_of(case, settings)

    def call() -> ml.Wavefield:
        return solve(case, contender, settings, seed, truth=case.scattered)

    try:
        if not steps:
            call()  # compiles
        field, spent = costs.measured(call)
    except FloatingPointError:  # a row like any other, of no finite error
        return [{**dict.fromkeys(_COLUMNS, np.nan), **cost, "step": steps}]
    rows = [{name: r.get(name, np.nan) for name in _COLUMNS} | cost for r in field.history]
    for row in rows:
        row["seconds"] = spent.of(row["seconds"])
        row["end_error"] = ml.relative_l2(field.scattered, case.scattered)
    if not steps:
        rows[-1] |= {"seconds": spent.processor, "memory": spent.memory}
    return rows


def final_error(
    case: Case, contender: Contender, method: str, steps: int, seed: int
) -> Row:
    """The last row of `adapt` without records on the way, of the returned field's error.

    What is kept is thus the start or the end.
    """
    row = adapt(case, contender, method, steps, seed, every=steps or 1)[-1]
    return {**row, "relative_l2": row.get("end_error", np.nan)}


def solve(
    case: Case, contender: Contender, settings: Any, seed: int, **more: Any
) -> ml.Wavefield:
    """`meta_lrpinn.solve` for a case, in the layer that a contender asks for."""
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
    seeds: Mapping[str, int] | None = None,
) -> Curves:
    """Adapts every contender to every case; what is on file is not run again.

    Args:
        name: The experiment; its folder holds the histories.
        cases: Name to case, or to a function that makes it if it is needed.
        chosen: Name to contender.
        steps: Adaptation steps.
        method: One of `HOW`.
        seeds: Case to its number of seeds, where it is not --seeds.

    Returns:
        The histories.
    """
    keys = ("case", "contender", "method", "steps", "points", "start", "seed")
    records = common.Records(common.folder(name) / f"history_{method}.csv", keys)
    curves: Curves = {}

    @functools.cache
    def start(contender_name: str, seed: int) -> str:
        return common.fingerprint(chosen[contender_name].start(seed))

    for case_name, case in cases.items():
        made: list[Case] = []
        for contender_name, contender in chosen.items():
            for seed in range((seeds or {}).get(case_name, FLAGS.seeds)):

                def measure(contender=contender, case=case, made=made, seed=seed):
                    if not made:
                        made.append(case() if callable(case) else case)
                    return adapt(made[0], contender, method, steps, seed)

                values = (
                    case_name, contender_name, method, steps, points_asked(),
                    start(contender_name, seed), seed,
                )  # fmt: skip
                rows = records.at(values, measure)
                curves.setdefault((case_name, contender_name), []).append(rows)
    return curves
