"""What solvers by networks share: one network a source, which solves for unit amplitude.

A field is linear in its amplitude, and networks work best near one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from meta_lrpinn.learning import output_layer
from meta_lrpinn.learning.networks import Network, load_network
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers.protocol import Distance, Setup, Solved, at_receivers, keys_of
from meta_lrpinn.solvers.settings import NetworkLike
from meta_lrpinn.wavefield import Statistics

# The estimate of the own error is 1.25 times the change by the last third of the features.
# Of nine kinds of small models that the shipped ones were not trained on, sharp, smooth
# and long-wave, it is 0.5 to 2.5 times the error, 1.0 in the median
# (experiments.calibration), and three times the error on models like those of training
# (experiments.comparison).
ENRICHMENT = 1.5
CHANGE_OVER_ERROR = 0.8

# Points (n, ndim) → (n,) or (n, k): δu of unit amplitude in the first column, and in a
# second one, where there is one, what two thirds of the features would have given.
Values = Callable[[np.ndarray], np.ndarray]
# δu of unit amplitude on the grid, (n,) → its relative L2 distance from the known field.
SourceDistance = Callable[[np.ndarray], float]
History = tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class JoinedField:
    """The fields of several sources."""

    fields: tuple[Values, ...]  # of unit amplitude
    amplitude: complex

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        points = np.asarray(points)
        columns = [_columns(field, points)[:, 0] for field in self.fields]
        return self.amplitude * np.stack(columns)


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
        key, _ = keys_of(setup.conditions.seed)
        return load_network(network, ndim=ndim, seed=key)
    if network.ndim != ndim:
        raise ValueError(f"the network is {network.ndim}D, the model {ndim}D")
    return network


def unit_problem(
    setup: Setup, model: VelocityModel, source: np.ndarray, network: Network
) -> HelmholtzProblem:
    """The problem of one source, of unit amplitude, in the layer of the network."""
    fraction = network.layer_fraction
    return setup.problem(model, source, amplitude=1.0, layer_fraction=fraction)


def unit_problems(
    setup: Setup, model: VelocityModel, network: Network
) -> list[HelmholtzProblem]:
    """Those of all sources, in the thickest of their layers."""
    problems = [unit_problem(setup, model, source, network) for source in setup.sources]
    thickest = max(problems, key=lambda p: float(p.layer.thickness)).layer
    return [problem.replace(layer=thickest) for problem in problems]


def solve_output(
    network: Network, problem: HelmholtzProblem, is_double: bool
) -> output_layer.FeatureField:
    """Field of a network's features with their output layer solved in the weak form.

    Args:
        network: Network with features.
        problem: The problem of one source.
        is_double: Work in double precision.
    """
    options = network.module, network.params, problem
    weights = output_layer.solve_nested(*options, (1.0, 1 / ENRICHMENT), is_double)
    return output_layer.FeatureField(*options, np.asarray(weights), is_double)


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


def distance_of_source(
    distance: Distance | None, setup: Setup, model: VelocityModel, index: int
) -> SourceDistance | None:
    """The distance from the known field of one source, if any is known."""
    if distance is None:
        return None
    source, shape = slice(index, index + 1), (1, *model.shape)
    return lambda values: distance(setup.amplitude * values.reshape(shape), source)


def join(
    setup: Setup,
    model: VelocityModel,
    network: Network,
    solutions: Sequence[tuple[Values, History]],
    distance: Distance | None,
) -> Solved:
    """The solution for all sources.

    Args:
        setup: Where it is asked for.
        model: Velocity model.
        network: With which every source began.
        solutions: Field and history of each source.
        distance: From the known field; sources without a history have a record of it.
    """
    values = [_columns(field, model.grid_points()) for field, _ in solutions]
    estimates = np.array([estimate(on_grid) for on_grid in values])
    records = []
    for index, (_, history) in enumerate(solutions):
        error = distance_of_source(distance, setup, model, index)
        if not history and error is not None:
            figures = {
                "error_estimate": estimates[index],
                "relative_l2": error(values[index][:, 0]),
            }
            history = ({"step": 0, "seconds": 0.0, **figures},)
        records += [{"source": index, **record} for record in history]
    fields = np.stack([on_grid[:, 0].reshape(model.shape) for on_grid in values])
    evaluate = JoinedField(tuple(field for field, _ in solutions), setup.amplitude)
    return Solved(
        fields=at_receivers(setup, evaluate, setup.amplitude * fields),
        error_estimates=estimates if np.any(np.isfinite(estimates)) else None,
        evaluate=evaluate,
        stats=Statistics(
            unknowns=network.number_of_features,
            rank=network.ranks,
            steps=max((record["step"] for record in records), default=0),
        ),
        history=tuple(records),
        initialisation=network.checksum(),
    )


def _columns(field: Values, points: np.ndarray) -> np.ndarray:
    return np.asarray(field(points)).reshape(len(points), -1)
