"""Configurations as frozen dataclasses, and the presets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

NETWORKS = ("lrpinn", "pinn")
OBJECTIVES = ("paper", "own_output", "residual", "projection", "galerkin")
LEARNS_FROM_WAVEFIELDS = ("projection", "galerkin")
SCHEDULES = ("staircase", "cosine")
TASK_AXES = ("vmap", "map")
ALGORITHMS = ("maml", "reptile")
INNER_OPTIMISERS = ("sgd", "adam", "soap")
# Random keys drop what is beyond 32 bits.
LARGEST_SEED = 2**32 - 1
_LARGEST_WHOLE, _MOST_INNER_STEPS = 2**31 - 1, 1_000_000


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which network; the defaults are the paper's."""

    kind: str = "lrpinn"  # or "pinn", the dense network of Meta-PINN
    width: int = 320
    depth: int = 6  # hidden layers after the first
    rank: int = 100  # of every hidden layer; "lrpinn" only
    ndim: int = 2
    first_scale: float = 8.0  # rad/km, initial wavenumbers of the first layer
    initialisation: str = "orthonormal"  # or "xavier", the published one
    frequency_input: bool = False  # "pinn" only
    features: int | None = None  # units of the last hidden layer; None for `width`
    layer_fraction: float = 1.0  # thickness of the absorbing layer, over the default

    def __post_init__(self):
        if self.kind not in NETWORKS:
            raise ValueError(
                f"network must be one of {', '.join(NETWORKS)}, got {self.kind!r}"
            )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised; see `meta_lrpinn.learning.objectives`."""

    name: str = "paper"
    points: int = 4000  # drawn per task, or (rounded to a grid) of a shifted grid
    source_penalty: float = 1.0  # strength of L_reg; "paper" only
    orthogonality: float = 0.0  # weight of L_ort; "own_output" only
    leading: tuple[int, ...] = ()  # parts that are bases themselves; "projection" only

    def __post_init__(self):
        if self.name not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {', '.join(OBJECTIVES)}, got {self.name!r}"
            )
        if not 1 <= self.points <= _LARGEST_WHOLE:
            raise ValueError(f"points must be 1 to {_LARGEST_WHOLE}, got {self.points}")
        if not self.orthogonality >= 0:
            raise ValueError(
                f"orthogonality must not be negative, got {self.orthogonality}"
            )
        if self.orthogonality and self.name != "own_output":
            raise ValueError(
                f"objective {self.name} has no weight of orthogonality to choose"
            )


def check_task_axis(task_axis: str) -> str:
    """The given way of treating tasks; raises ValueError unless it is known."""
    if task_axis not in TASK_AXES:
        raise ValueError(f"task axis must be one of {TASK_AXES}, got {task_axis!r}")
    return task_axis


def check_inner_optimiser(name: str, first_order: bool = True) -> str:
    """The given inner optimiser; raises ValueError unless it is known and can be used."""
    if name not in INNER_OPTIMISERS:
        raise ValueError(f"inner_optimiser must be one of {INNER_OPTIMISERS}, got {name!r}")
    if name == "soap" and not first_order:
        raise ValueError("inner_optimiser soap has no stable second order; use adam")
    return name


@dataclasses.dataclass(frozen=True)
class TaskDistribution:
    """Random velocity–frequency tasks; the defaults are the paper's, drawn for ever."""

    minimum_frequency: float = 2.0  # Hz
    maximum_frequency: float = 15.0  # Hz
    log_frequency: bool = False  # uniform in log f rather than f
    velocities_per_task: int = 1
    smallest_size: int = 91  # grid points along each axis
    largest_size: int = 91
    spacing: float = 0.025  # km
    source_depth: float = 0.025  # km
    minimum_velocity: float = 1.5  # km/s
    maximum_velocity: float = 5.0  # km/s
    absorbing: bool = False
    layer_fraction: float = 1.0  # thickness of the absorbing layer, over the default
    known_points: int = 0  # points of solved wavefields; 0 for none

    def __post_init__(self):
        if not 0 < self.minimum_frequency <= self.maximum_frequency:
            raise ValueError(
                "frequencies must be positive and in order, got "
                f"{self.minimum_frequency} to {self.maximum_frequency} Hz"
            )
        if self.smallest_size > self.largest_size:
            raise ValueError("smallest_size must not exceed largest_size")
        if not self.layer_fraction > 0:
            raise ValueError(f"layer_fraction must be positive, got {self.layer_fraction}")
        if self.known_points and not self.absorbing:
            raise ValueError("without an absorbing layer there is no one wavefield to know")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to meta-train; the defaults are the paper's.

    MAML without inner steps is plain joint training on the tasks.
    """

    algorithm: str = "maml"  # or "reptile"
    iterations: int = 50_000
    learning_rate: float = 1e-3  # of AdamW; Reptile: the fraction of the way that it goes
    weight_decay: float = 4e-5  # "maml" only
    schedule: str = "staircase"  # or "cosine", to zero at the last iteration
    decay: float = 0.8  # staircase: factor of the learning rate ...
    decay_every: int = 5_000  # ... after so many iterations
    clip_norm: float = 1.0  # of the meta-gradient
    inner_steps: int = 1
    inner_learning_rate: float = 2e-3
    inner_optimiser: str = "sgd"  # or "adam" or "soap", anew for every task
    inner_clip_norm: float | None = None  # of the gradient of an inner step
    inner_embedding_rate: float = 1.0  # of the hypernetwork, over inner_learning_rate
    learn_inner_rates: bool = False  # one for each array (Meta-SGD); "maml" only
    first_order: bool = True  # "maml" only
    same_task: bool = False  # query points of the support tasks, not other tasks
    orthonormal_bases: bool = False  # U and V made so after every update; "lrpinn" only
    tasks_per_batch: int = 5  # support tasks, and as many query tasks
    task_axis: str = "vmap"  # "map": one task after the other, in less memory
    evaluate_every: int = 500
    checkpoint_every: int = 500
    log_every: int = 10
    seed: int = 0

    def __post_init__(self):
        positive = (
            "iterations learning_rate decay decay_every clip_norm tasks_per_batch "
            "evaluate_every checkpoint_every log_every"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in (*positive.split(), "inner_learning_rate"):
            if not getattr(self, name) <= _LARGEST_WHOLE:
                raise ValueError(
                    f"{name} must be at most {_LARGEST_WHOLE}, got {getattr(self, name)}"
                )
        if self.inner_steps > _MOST_INNER_STEPS:
            raise ValueError(
                f"inner_steps must be at most {_MOST_INNER_STEPS:,}, got {self.inner_steps}"
            )
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed must be 0 to {LARGEST_SEED}, got {self.seed}")
        not_negative = "weight_decay inner_steps inner_learning_rate inner_embedding_rate"
        for name in not_negative.split():
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES}, got {self.schedule!r}")
        check_task_axis(self.task_axis)
        check_inner_optimiser(self.inner_optimiser, self.first_order)
        if self.inner_optimiser == "soap" and self.task_axis != "map":
            # Its decompositions, batched, can deadlock jaxlib on two cores.
            raise ValueError("inner_optimiser soap needs task_axis map")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {ALGORITHMS}, got {self.algorithm!r}"
            )
        if self.inner_clip_norm is not None and not self.inner_clip_norm > 0:
            raise ValueError(
                f"inner_clip_norm must be positive, got {self.inner_clip_norm}"
            )
        self._check_combination()

    def _check_combination(self) -> None:
        """Refuse settings that would have no effect."""
        if not self.inner_steps:
            if self.algorithm == "reptile":
                raise ValueError("Reptile needs inner steps")
            idle = {
                f"inner_optimiser {self.inner_optimiser}": self.inner_optimiser != "sgd",
                "inner_clip_norm": self.inner_clip_norm is not None,
                "inner_embedding_rate": self.inner_embedding_rate != 1,
                "learn_inner_rates": self.learn_inner_rates,
            }
            for name, chosen in idle.items():
                if chosen:
                    raise ValueError(f"{name} has no effect without inner steps")
        if self.algorithm == "reptile":
            if self.learning_rate > 1:
                raise ValueError(
                    "learning_rate of Reptile is a fraction of the way to the adapted "
                    f"parameters, at most 1, got {self.learning_rate}"
                )
            idle = {
                "weight_decay": self.weight_decay != 0,
                "second order": not self.first_order,
                "learn_inner_rates": self.learn_inner_rates,
                "a query of other tasks (same_task false)": not self.same_task,
            }
            for name, chosen in idle.items():
                if chosen:
                    raise ValueError(f"{name} has no effect in Reptile")

    @property
    def free_on_resume(self) -> tuple[str, ...]:
        """Fields that may change when a run is resumed: they alter no update.

        Apart from rounding, as for another number of devices.
        """
        names = ("evaluate_every", "checkpoint_every", "log_every", "task_axis")
        return names if self.schedule == "cosine" else (*names, "iterations")


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """A whole meta-training; the defaults are the paper's."""

    network: NetworkConfig = NetworkConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    tasks: TaskDistribution = TaskDistribution()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        if (
            self.tasks.absorbing
            and self.tasks.layer_fraction != self.network.layer_fraction
        ):
            raise ValueError(
                f"tasks with a layer of {self.tasks.layer_fraction:g} of the default "
                f"thickness cannot train a network for {self.network.layer_fraction:g}"
            )
        if self.objective.name == "own_output" and not self.tasks.absorbing:
            raise ValueError("objective own_output needs tasks with an absorbing layer")
        wants_bases = self.objective.orthogonality or self.training.orthonormal_bases
        if wants_bases and self.network.kind != "lrpinn":
            raise ValueError("only a low-rank network has bases to keep orthogonal")
        if self.training.inner_embedding_rate != 1 and self.network.kind != "lrpinn":
            raise ValueError("only a low-rank network has a hypernetwork to slow down")

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionary of plain values, for checkpoints and cards."""
        return dataclasses.asdict(self)


_RENAMED = {"layer_share": " (now layer_fraction: rename it in the card)"}


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """The network's configuration from what `as_dict` gave.

    Raises:
        ValueError: if a field is unknown; of one that was renamed it says the name now.
    """
    known = {field.name for field in dataclasses.fields(NetworkConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        names = [f"{name}{_RENAMED.get(name, '')}" for name in unknown]
        raise ValueError(f"unknown network fields: {', '.join(names)}")
    return NetworkConfig(**values)


# What `own_output` and `meta_pinn` share: Reptile, whose inner steps are those that adapt
# the network to a new problem (Adam at 2e-3, clipped at 1). Adam moves what a task does
# not care for at random: orthonormal bases keep that from adding up; measured, without
# them the error after 50 steps rises again from 300 tasks on. Few points along an axis,
# never the same ones, get further in the same seconds than many (measured, 24 and 48).
_OWN_OUTPUT_LAYER = 0.5  # in half of the default the field changes by less than 1 %
_OWN_OUTPUT = MetaConfig(
    network=NetworkConfig(
        width=192, depth=3, rank=64, first_scale=4.0, layer_fraction=_OWN_OUTPUT_LAYER
    ),
    objective=ObjectiveConfig(name="own_output", points=32 * 32),
    tasks=TaskDistribution(
        minimum_frequency=2.5,
        maximum_frequency=8.0,
        log_frequency=True,
        absorbing=True,
        layer_fraction=_OWN_OUTPUT_LAYER,
        largest_size=101,
    ),
    training=TrainingConfig(
        algorithm="reptile",
        iterations=100_000,
        learning_rate=0.5,
        weight_decay=0.0,
        decay_every=2_000,
        clip_norm=10.0,
        inner_steps=20,
        inner_optimiser="adam",
        inner_learning_rate=2e-3,
        inner_clip_norm=1.0,
        same_task=True,
        orthonormal_bases=True,
        tasks_per_batch=4,
        task_axis="map",
        evaluate_every=100,
        checkpoint_every=25,
    ),
)

# `paper` is the published setting: no absorbing layer (`tasks.absorbing` puts one), the
# three losses, one inner step.
# `own_output` is the paper's network and purpose, its own output the wavefield, on two
# cores; `meta_pinn` is the dense network in its place.
# `small` trains on two CPU cores, with the absorbing layer, so that wavefields are unique
# and known: its features are trained to span them, which takes values only. Measured,
# the Galerkin solution over them is within a factor of two of the best in their span,
# and two minutes of this do what an hour and a half on residuals did not. In half of
# the default layer the field changes by less than 1 %, and there is less to span.
PRESETS = {
    "paper": MetaConfig(),
    "own_output": _OWN_OUTPUT,
    "meta_pinn": dataclasses.replace(
        _OWN_OUTPUT,
        network=NetworkConfig(
            kind="pinn",
            width=128,
            depth=3,
            frequency_input=True,
            first_scale=4.0,
            layer_fraction=_OWN_OUTPUT_LAYER,
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
            layer_fraction=0.5,
        ),
        objective=ObjectiveConfig(
            name="projection", points=2048, leading=(128, 192, 256, 384)
        ),
        tasks=TaskDistribution(
            minimum_frequency=2.5,
            maximum_frequency=12.0,
            log_frequency=True,
            velocities_per_task=8,
            absorbing=True,
            layer_fraction=0.5,
            known_points=3072,
            largest_size=101,
        ),
        training=TrainingConfig(
            iterations=12_000,
            learning_rate=1e-3,
            schedule="cosine",
            inner_steps=0,
            same_task=True,
            tasks_per_batch=2,
            task_axis="map",
            evaluate_every=1000,
            checkpoint_every=250,
        ),
    ),
}
