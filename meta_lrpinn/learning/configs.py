"""Configurations as frozen dataclasses, and the presets."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from meta_lrpinn.runtime.options import (
    as_dict,
    check_choices,
    check_not_negative,
    check_positive,
    check_whole,
    option,
    variant,
)

NETWORKS = ("lrpinn", "pinn")
INITIALISATIONS = ("orthonormal", "xavier")
OBJECTIVES = ("paper", "own_output", "projection")
TASK_AXES = ("vmap", "map")
INNER_OPTIMISERS = ("sgd", "adam", "soap")
# Random keys drop what is beyond 32 bits.
LARGEST_SEED = 2**32 - 1
# Each has a random key, all drawn at once.
_MOST_INNER_STEPS = 1_000_000
_INNER = {"prefix": "inner_"}  # of the options of inner steps


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which network; the defaults are the paper's, but for the start."""

    kind: str = option(
        "lrpinn", "Low-rank, or the dense network of Meta-PINN.", NETWORKS, "network"
    )
    width: int = option(320, "Units of a layer.")
    depth: int = option(6, "Hidden layers after the first.")
    rank: int = option(100, "Rank of every hidden layer; of lrpinn.")
    ndim: int = option(2, "Dimensions of space.")
    first_scale: float = option(8.0, "Initial wavenumbers of the first layer, rad/km.")
    initialisation: str = option(
        "orthonormal", "How U, V and σ start; of lrpinn.", INITIALISATIONS
    )
    frequency_input: bool = option(False, "Give the network the frequency; of pinn.")
    features: int | None = option(
        None, "Units of the last hidden layer, if not as of the others."
    )
    layer_fraction: float = option(1.0, "Thickness of the absorbing layer, of its default.")

    def __post_init__(self):
        check_choices(self)
        sizes = ("width", "depth", "rank", "features")
        check_whole(self, *sizes)
        check_positive(self, *sizes, "first_scale", "layer_fraction")
        if self.ndim not in (2, 3):
            raise ValueError(f"ndim must be 2 or 3, got {self.ndim}")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised; see `meta_lrpinn.learning.objectives`."""

    name: str = option("paper", "What is minimised.", OBJECTIVES, "objective")
    points: int = option(4000, "Points per task.")
    source_penalty: float = option(1.0, "Strength of L_reg; of paper.")
    leading: tuple[int, ...] = option(
        (), "Leading parts of the features that are bases themselves; of projection."
    )

    def __post_init__(self):
        check_choices(self)
        check_positive(self, "points")
        check_whole(self, "points")
        check_not_negative(self, "source_penalty")

    @property
    def learns_from_wavefields(self) -> bool:
        """Whether its tasks must hold their known wavefields."""
        return self.name == "projection"


@dataclasses.dataclass(frozen=True)
class TaskDistribution:
    """Random velocity–frequency tasks; the defaults are the paper's, drawn for ever.

    A fixed set has each of its models, or groups of velocities, at every frequency.
    """

    minimum_frequency: float = option(2.0, "Smallest frequency of tasks, Hz.")
    maximum_frequency: float = option(15.0, "Largest frequency of tasks, Hz.")
    log_frequency: bool = option(False, "Frequencies uniform in log f rather than f.")
    velocities_per_task: int = option(1, "Velocities that share frequency and source.")
    smallest_size: int = option(91, "Least grid points along each axis.")
    largest_size: int = option(91, "Most grid points along each axis.")
    spacing: float = option(0.025, "Grid spacing, km.")
    source_depth: float = option(0.025, "Depth of the sources, km.")
    minimum_velocity: float = option(1.5, "Smallest velocity of tasks, km/s.")
    maximum_velocity: float = option(5.0, "Largest velocity of tasks, km/s.")
    absorbing: bool = option(False, "Surround the model by an absorbing layer.")
    layer_fraction: float = option(1.0, "Thickness of the absorbing layer, of its default.")
    known_points: int = option(0, "Points of solved wavefields; 0 for none.")
    fixed_models: int = option(
        0, "Velocity models of a fixed set of tasks; 0 draws new tasks for ever."
    )
    fixed_frequencies: int = option(14, "Frequencies of each model of a fixed set.")

    def __post_init__(self):
        if not 0 < self.minimum_frequency <= self.maximum_frequency < math.inf:
            raise ValueError(
                "frequencies must be positive and in order, got "
                f"{self.minimum_frequency} to {self.maximum_frequency} Hz"
            )
        sizes = ("velocities_per_task", "smallest_size", "largest_size")
        check_whole(self, *sizes, "known_points", "fixed_models", "fixed_frequencies")
        lengths = ("spacing", "minimum_velocity", "layer_fraction")
        check_positive(self, *sizes, *lengths, "fixed_frequencies")
        check_not_negative(self, "source_depth")
        if self.smallest_size > self.largest_size:
            raise ValueError("smallest_size must not exceed largest_size")
        if not self.minimum_velocity <= self.maximum_velocity < math.inf:
            raise ValueError(
                f"velocities must be in order, got {self.minimum_velocity} to "
                f"{self.maximum_velocity} km/s"
            )
        if self.known_points and not self.absorbing:
            raise ValueError("without an absorbing layer there is no one wavefield to know")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InnerSteps:
    """The steps inside a meta-iteration, which adapt a network to one task."""

    steps: int = option(1, "Adaptation steps inside a meta-iteration.")
    learning_rate: float = option(2e-3, "Learning rate of the adaptation steps.")
    optimiser: str = option(
        "sgd", "Of the adaptation steps, anew for every task.", INNER_OPTIMISERS
    )
    clip_norm: float | None = option(None, "Largest gradient norm of the adaptation steps.")

    def __post_init__(self):
        check_choices(self)
        check_whole(self, "steps")
        check_positive(self, "steps", "clip_norm")
        check_not_negative(self, "learning_rate")
        if self.steps > _MOST_INNER_STEPS:
            raise ValueError(
                f"inner_steps must be at most {_MOST_INNER_STEPS:,}, got {self.steps}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointTraining:
    """AdamW on the loss of all tasks of a batch, without adaptation to any of them."""

    learning_rate: float = option(1e-3, "Learning rate of the outer AdamW.")
    weight_decay: float = option(4e-5, "Weight decay of the outer AdamW.")

    draws_query: ClassVar[bool] = False

    def __post_init__(self):
        check_positive(self, "learning_rate")
        check_not_negative(self, "weight_decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAML(JointTraining):
    """AdamW on the loss after inner steps (Finn et al. 2017); by default as published."""

    inner: InnerSteps = dataclasses.field(default=InnerSteps(), metadata=_INNER)
    first_order: bool = option(True, "First-order meta-gradient; no: second-order.")
    same_task: bool = option(
        False, "Query points of the support tasks, instead of other tasks."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.inner.optimiser == "soap" and not self.first_order:
            raise ValueError("inner_optimiser soap has no stable second order; use adam")

    @property
    def draws_query(self) -> bool:
        """Whether a batch has query tasks of its own."""
        return not self.same_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reptile:
    """A fraction of the way to the mean of the adapted parameters (Nichol et al. 2018)."""

    inner: InnerSteps = dataclasses.field(default=InnerSteps(), metadata=_INNER)
    step: float = option(0.5, "Fraction of the way to the adapted parameters, at most 1.")

    draws_query: ClassVar[bool] = False

    def __post_init__(self):
        if not 0 < self.step <= 1:
            raise ValueError(f"step must be above 0 and at most 1, got {self.step}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiStepMAML(Reptile):
    """First-order MAML on the query loss after every inner step (Antoniou et al. 2019).

    The inner optimiser turns each of the query gradients into a step, in the state that it
    has there, and a fraction of their sum is taken: Reptile, judged by queries.
    """

    step: float = option(0.5, "Fraction of the sum of the query's steps, at most 1.")
    same_task: bool = option(
        False, "Query points of the support tasks, instead of other tasks."
    )

    @property
    def draws_query(self) -> bool:
        """Whether a batch has query tasks of its own."""
        return not self.same_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staircase:
    """A rate that falls by a factor at regular intervals."""

    decay: float = option(0.8, "Factor of the outer rate at each stair.")
    decay_every: int = option(5_000, "Iterations of a stair.")

    def __post_init__(self):
        check_whole(self, "decay_every")
        check_positive(self, "decay", "decay_every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """A rate that falls to zero at the last iteration along a half cosine."""


Algorithm: TypeAlias = MAML | Reptile | JointTraining
ALGORITHMS = {
    "maml": MAML,
    "multi_step": MultiStepMAML,
    "reptile": Reptile,
    "joint": JointTraining,
}
SCHEDULES = {"staircase": Staircase, "cosine": Cosine}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to meta-train; the defaults are the paper's."""

    algorithm: Algorithm = variant(MAML(), "How to meta-train.", ALGORITHMS)
    iterations: int = option(50_000, "Meta-iterations.")
    schedule: Staircase | Cosine = variant(
        Staircase(), "How the outer rate falls.", SCHEDULES
    )
    clip_norm: float | None = option(None, "Largest norm of the meta-gradient.")
    orthonormal_bases: bool = option(
        False, "Make U and V orthonormal after every update; of lrpinn."
    )
    tasks_per_batch: int = option(
        5, "Support tasks per meta-iteration, and as many query tasks."
    )
    task_axis: str = option(
        "vmap", "All tasks at once, or one after the other in less memory.", TASK_AXES
    )
    evaluate_every: int = option(500, "Iterations between evaluations.")
    checkpoint_every: int = option(500, "Iterations between checkpoints.")
    log_every: int = option(10, "Iterations between records of the loss.")
    seed: int = option(0, "Seed of parameters and tasks.")

    def __post_init__(self):
        counts = ("iterations", "tasks_per_batch")
        intervals = ("evaluate_every", "checkpoint_every", "log_every")
        check_positive(self, *counts, *intervals, "clip_norm")
        check_whole(self, *counts, *intervals)
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed must be 0 to {LARGEST_SEED}, got {self.seed}")
        check_choices(self)
        if self.uses_soap and self.task_axis != "map":
            # Its decompositions, batched, can deadlock jaxlib on two cores.
            raise ValueError("inner_optimiser soap needs task_axis map")

    @property
    def uses_soap(self) -> bool:
        """Whether the inner steps are those of SOAP."""
        inner = getattr(self.algorithm, "inner", None)
        return inner is not None and inner.optimiser == "soap"

    @property
    def free_on_resume(self) -> tuple[str, ...]:
        """Fields that may change when a run is resumed: they alter no update.

        Apart from rounding, as for another number of devices.
        """
        names = ("evaluate_every", "checkpoint_every", "log_every", "task_axis")
        is_cosine = isinstance(self.schedule, Cosine)
        return names if is_cosine else (*names, "iterations")


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """A whole meta-training; the preset `paper` is the published one."""

    network: NetworkConfig = NetworkConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    tasks: TaskDistribution = TaskDistribution()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        tasks, name = self.tasks, self.objective.name
        thickness = self.network.layer_fraction
        if tasks.absorbing and tasks.layer_fraction != thickness:
            raise ValueError(
                f"tasks with a layer of {tasks.layer_fraction:g} of the default "
                f"thickness cannot train a network for {thickness:g}"
            )
        if name != "paper" and not tasks.absorbing:
            raise ValueError(f"objective {name} needs tasks with an absorbing layer")
        if not self.objective.learns_from_wavefields and tasks.velocities_per_task > 1:
            raise ValueError(
                f"objective {name} learns from one velocity a task, got "
                f"velocities_per_task {tasks.velocities_per_task}"
            )
        if self.training.orthonormal_bases and self.network.kind != "lrpinn":
            raise ValueError("only a low-rank network has bases to keep orthogonal")

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionary of plain values, for checkpoints and cards."""
        return as_dict(self)


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """The network's configuration from what `as_dict` gave; unknown fields are refused."""
    known = {field.name for field in dataclasses.fields(NetworkConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown network fields: {', '.join(unknown)}")
    return NetworkConfig(**values)


_HALF_LAYER = 0.5  # in half of the default the field changes by less than 1 %
_TASKS = TaskDistribution(
    minimum_frequency=2.5,
    maximum_frequency=8.0,
    log_frequency=True,
    absorbing=True,
    layer_fraction=_HALF_LAYER,
    largest_size=101,
)
# What `own_output` and `meta_pinn` share: Reptile, whose inner steps are those that adapt
# the network to a new problem (Adam at 2e-3, clipped at 1). Adam moves what a task does
# not care for at random: orthonormal bases keep that from adding up; measured, without
# them the error after 50 steps rises again from 300 tasks on. Few points along an axis,
# never the same ones, get further in the same seconds than many (measured, 24 and 48).
_OWN_OUTPUT = MetaConfig(
    network=NetworkConfig(
        width=192, depth=3, rank=64, first_scale=4.0, layer_fraction=_HALF_LAYER
    ),
    objective=ObjectiveConfig(name="own_output", points=32 * 32),
    tasks=_TASKS,
    training=TrainingConfig(
        algorithm=Reptile(
            inner=InnerSteps(steps=20, optimiser="adam", learning_rate=2e-3, clip_norm=1.0),
            step=0.5,
        ),
        iterations=100_000,
        schedule=Staircase(decay_every=2_000),
        clip_norm=10.0,
        orthonormal_bases=True,
        tasks_per_batch=4,
        task_axis="map",
        evaluate_every=100,
        checkpoint_every=25,
    ),
)

# `paper` is the published setting, start included: no absorbing layer (`tasks.absorbing`
# puts one), the three losses, 40 models at 14 frequencies, one inner step, no clipping.
# `paper_orthonormal` is the same network and losses from our start, on ever new tasks.
# `own_output` is the paper's network and purpose, its own output the wavefield, on two
# cores; `meta_pinn` is the dense network in its place, with as many parameters.
# `small` trains on two CPU cores, with the absorbing layer, so that wavefields are unique
# and known: its features are trained to span them, which takes values only. Measured,
# the Galerkin solution over them is within a factor of two of the best in their span,
# and two minutes of this do what an hour and a half on residuals did not. A thin layer
# leaves less to span.
PRESETS = {
    "paper": MetaConfig(
        network=NetworkConfig(initialisation="xavier"),
        tasks=TaskDistribution(fixed_models=40, fixed_frequencies=14),
    ),
    "paper_orthonormal": MetaConfig(training=TrainingConfig(clip_norm=1.0)),
    "own_output": _OWN_OUTPUT,
    "meta_pinn": dataclasses.replace(
        _OWN_OUTPUT,
        network=NetworkConfig(
            kind="pinn",
            width=184,
            depth=3,
            frequency_input=True,
            first_scale=4.0,
            layer_fraction=_HALF_LAYER,
        ),
        training=dataclasses.replace(_OWN_OUTPUT.training, orthonormal_bases=False),
    ),
    "small": MetaConfig(
        network=NetworkConfig(
            width=256,
            depth=4,
            rank=64,
            first_scale=1.0,
            features=512,
            layer_fraction=_HALF_LAYER,
        ),
        objective=ObjectiveConfig(
            name="projection", points=2048, leading=(128, 192, 256, 384)
        ),
        tasks=dataclasses.replace(
            _TASKS, maximum_frequency=12.0, velocities_per_task=8, known_points=3072
        ),
        training=TrainingConfig(
            algorithm=JointTraining(),
            iterations=12_000,
            schedule=Cosine(),
            clip_norm=1.0,
            tasks_per_batch=2,
            task_axis="map",
            evaluate_every=1000,
            checkpoint_every=250,
        ),
    ),
}
