"""Wavefields of networks: one network a source, its output layer its own or solved for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from meta_lrpinn.learning import output_layer
from meta_lrpinn.learning.networks import Network, load_network
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers.protocol import Setup, Solved, Truth, at_receivers
from meta_lrpinn.solvers.settings import NetworkLike
from meta_lrpinn.wavefield import Statistics

# The estimate of the own error is 1.25 times the change by the last third of the features.
# Of nine kinds of small models that the shipped ones were not trained on, sharp, smooth
# and long-wave, it is 0.5 to 2.5 times the error, 1.0 in the median
# (experiments.calibration), and three times the error on models like those of training
# (experiments.comparison).
ENRICHMENT = 1.5
CHANGE_OVER_ERROR = 0.8
ESTIMATE = "error_estimate"  # of a record of the history

# Points (n, ndim) → (n, k): δu in the first column, and in a second one, where there is
# one, what two thirds of the features would have given.
Values = Callable[[np.ndarray], np.ndarray]
# δu on the grid, (n,) → its relative L2 distance from the known field.
Distance = Callable[[np.ndarray], float]


@dataclasses.dataclass(frozen=True)
class ScaledField:
    """A field of a problem of unit amplitude, times the amplitude."""

    field: Values
    factor: complex

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → (n, k), complex."""
        values = self.factor * self.field(points)
        return values if values.ndim == 2 else values[:, None]


@dataclasses.dataclass(frozen=True)
class JoinedField:
    """The fields of several sources."""

    fields: tuple[Values, ...]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        return np.stack([field(np.asarray(points))[:, 0] for field in self.fields])


@dataclasses.dataclass(frozen=True)
class SourceField:
    """What was found for one source."""

    field: Values
    stats: Statistics
    history: tuple[dict[str, Any], ...] = ()


def split_amplitude(problem: HelmholtzProblem) -> tuple[HelmholtzProblem, complex]:
    """The problem with the amplitude one, and the amplitude that it had.

    The field is linear in the amplitude, and networks work best near one.
    """
    unit = np.ones_like(problem.amplitude)
    return problem.replace(amplitude=unit), complex(problem.amplitude)


def solve_output(
    network: Network, problem: HelmholtzProblem, is_double: bool
) -> ScaledField:
    """Field of a network's features with their output layer solved in the weak form.

    Args:
        network: Network with features.
        problem: The problem of one source.
        is_double: Work in double precision.
    """
    unit, factor = split_amplitude(problem)
    parts = (1.0, 1 / ENRICHMENT)
    weights = output_layer.solve_nested(
        network.module, network.params, unit, parts, is_double
    )
    field = output_layer.FeatureField(
        network.module, network.params, unit, np.asarray(weights), is_double
    )
    return ScaledField(field, factor)


def estimate(values: np.ndarray) -> float:
    """Estimated relative error of the field in the first column of values (n, k).

    Args:
        values: In the second column the field of the leading features; it may lack.

    Returns:
        The estimate; not a number without that column, or of a field of zeros.
    """
    field, *coarser = values.T
    if not coarser or not np.any(field):
        return np.nan
    return relative_l2(coarser[0], field) / CHANGE_OVER_ERROR


def distance_of(truth: Truth | None, model: VelocityModel, index: int) -> Distance | None:
    """The distance from the known field of one source, if any is known."""
    if truth is None:
        return None
    source, shape = slice(index, index + 1), (1, *model.shape)
    return lambda values: truth.distance(values.reshape(shape), source)


def join(
    setup: Setup,
    model: VelocityModel,
    network: Network,
    sources: Sequence[SourceField],
    truth: Truth | None,
) -> Solved:
    """The solution for all sources.

    Args:
        setup: Where it is asked for.
        model: Velocity model.
        network: With which every source began.
        sources: What was found for each.
        truth: The known field; sources without a history have a record of its distance.
    """
    values = [source.field(model.grid_points()) for source in sources]
    records = []
    for index, (source, on_grid) in enumerate(zip(sources, values, strict=True)):
        history = source.history
        distance = distance_of(truth, model, index)
        if not history and distance is not None:
            history = ({"step": 0, "seconds": 0.0, **figures(on_grid, distance)},)
        records += [{"source": index, **record} for record in history]
    estimates = np.array([estimate(on_grid) for on_grid in values])
    steps = [source.stats.steps for source in sources if source.stats.steps is not None]
    fields = np.stack([on_grid[:, 0].reshape(model.shape) for on_grid in values])
    evaluate = JoinedField(tuple(source.field for source in sources))
    return Solved(
        fields=at_receivers(setup, evaluate, fields),
        error_estimates=estimates if np.any(np.isfinite(estimates)) else None,
        evaluate=evaluate,
        # Unknowns and ranks are those of all: every source starts from the same network.
        stats=dataclasses.replace(sources[0].stats, steps=max(steps, default=None)),
        history=tuple(records),
        initialisation=network.checksum(),
    )


def figures(values: np.ndarray, distance: Distance) -> dict[str, float]:
    """Figures of a record: the estimate, where there is one, and the distance."""
    known = {} if values.shape[1] == 1 else {ESTIMATE: estimate(values)}
    return {**known, "relative_l2": distance(values[:, 0])}


def find_network(network: NetworkLike, setup: Setup) -> Network:
    """The network that settings name, or are; the setup's seed is of random parameters.

    Raises:
        ValueError: if there is none, it is of another space dimension, or sources are to
            be fired together.
    """
    if setup.conditions.weights is not None:
        raise ValueError(
            "networks solve for each source alone; weights are for plane waves and finite "
            "differences"
        )
    ndim = setup.grid.ndim
    if not isinstance(network, Network):
        return load_network(network, ndim=ndim, seed=setup.keys.network)
    if network.ndim != ndim:
        raise ValueError(f"the network is {network.ndim}D, the model {ndim}D")
    return network
