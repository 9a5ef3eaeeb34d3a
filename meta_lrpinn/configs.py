"""Configurations as frozen dataclasses, and the presets `paper` and `small`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from meta_lrpinn import models, objectives
from meta_lrpinn.meta.task_sets import TaskDistribution
from meta_lrpinn.meta.training import TrainingConfig

NETWORKS = ("lrpinn", "pinn")
OBJECTIVES = ("paper", "residual", "projection", "galerkin")
LEARNS_FROM_WAVEFIELDS = ("projection", "galerkin")


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
    layer_share: float = 1.0  # thickness of the absorbing layer, over the default

    def __post_init__(self):
        if self.kind not in NETWORKS:
            raise ValueError(
                f"network must be one of {', '.join(NETWORKS)}, got {self.kind!r}"
            )


def make_network(config: NetworkConfig) -> nn.Module:
    """The network of a configuration."""
    common = {
        "width": config.width,
        "depth": config.depth,
        "ndim": config.ndim,
        "first_scale": config.first_scale,
        "last_width": config.features,
        "layer_share": config.layer_share,
    }
    if config.kind == "pinn":
        return models.PINN(**common, frequency_input=config.frequency_input)
    return models.make_meta_lrpinn(
        **common, rank=config.rank, initialisation=config.initialisation
    )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised; see `meta_lrpinn.objectives`."""

    name: str = "paper"
    points: int = 4000  # drawn per task, or (rounded to a grid) quadrature points
    source_penalty: float = 1.0  # strength of L_reg; "paper" only
    leading: tuple[int, ...] = ()  # parts that are bases themselves; "projection" only

    def __post_init__(self):
        if self.name not in OBJECTIVES:
            raise ValueError(
                f"objective must be one of {', '.join(OBJECTIVES)}, got {self.name!r}"
            )


def make_objective(config: ObjectiveConfig, model: nn.Module) -> objectives.Objective:
    """The objective of a configuration, for a network."""
    if config.name == "paper":
        return objectives.paper_objective(model, config.points, config.source_penalty)
    if config.name == "residual":
        return objectives.residual_objective(model, config.points)
    if config.name == "projection":
        leading = tuple(config.leading)
        return objectives.projection_objective(model, config.points, leading)
    side = round(config.points ** (1 / model.ndim))
    return objectives.galerkin_objective(model, (side,) * model.ndim)


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """A whole meta-training; the defaults are the paper's."""

    network: NetworkConfig = NetworkConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    tasks: TaskDistribution = TaskDistribution()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        if self.tasks.absorbing and self.tasks.layer_share != self.network.layer_share:
            raise ValueError(
                f"tasks with a layer of {self.tasks.layer_share:g} of the default "
                f"thickness cannot train a network for {self.network.layer_share:g}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Nested dictionary of plain values, for checkpoints and cards."""
        return dataclasses.asdict(self)


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """The network's configuration from what `as_dict` gave.

    Raises:
        ValueError: a field this version does not know.
    """
    known = {field.name for field in dataclasses.fields(NetworkConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown network fields: {', '.join(unknown)}")
    return NetworkConfig(**values)


# `paper` is the published setting: no absorbing layer, the three losses, one inner step.
# `small` trains on two CPU cores, with the absorbing layer, so that wavefields are unique
# and known: its features are trained to span them, which takes values only. Measured,
# the Galerkin solution over them is within a factor of two of the best in their span,
# and two minutes of this do what an hour and a half on residuals did not. In half of
# the default layer the field changes by less than 1 %, and there is less to span.
PRESETS = {
    "paper": MetaConfig(),
    "small": MetaConfig(
        network=NetworkConfig(
            width=256,
            depth=4,
            rank=64,
            first_scale=1.0,
            features=512,
            layer_share=0.5,
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
            layer_share=0.5,
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
