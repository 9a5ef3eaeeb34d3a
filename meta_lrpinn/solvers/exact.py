"""What the solvers that solve an output layer exactly have in common."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from meta_lrpinn.learning import output_layer
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.solvers.request import Request, Solution
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
class Outcome:
    """The solution for one source."""

    field: Values
    values: np.ndarray  # of the field on the model's grid, (n, k)
    shape: tuple[int, ...]  # of the grid
    stats: Statistics
    history: tuple[dict[str, Any], ...]


def split_amplitude(problem: HelmholtzProblem) -> tuple[HelmholtzProblem, complex]:
    """The problem with the amplitude one, and the amplitude that it had.

    The field is linear in the amplitude, and networks work best near one.
    """
    one = np.ones_like(problem.amplitude)
    return problem.replace(amplitude=one), complex(problem.amplitude)


def solve_output(
    method: str, network: Network, problem: HelmholtzProblem, is_double: bool
) -> Values:
    """Field of a network's features with their output layer solved exactly.

    Args:
        method: "galerkin" (weak form) or "least_squares" (strong residual).
        network: Network with features.
        problem: The problem of one source.
        is_double: Work in double precision.
    """
    unit, factor = split_amplitude(problem)
    parts = (1.0, 1 / ENRICHMENT)
    weights = output_layer.solve_nested(
        method, network.module, network.params, unit, parts, is_double
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


def figures(values: np.ndarray, distance: Distance | None) -> dict[str, float]:
    """Figures of a record: the estimate, where there is one, and the error, if known."""
    found = {} if values.shape[1] == 1 else {ESTIMATE: estimate(values)}
    if distance is not None:
        found["relative_l2"] = distance(values[:, 0])
    return found


def distance_of(request: Request, index: int) -> Distance | None:
    """The distance from the known field of one source, if any is known."""
    if request.truth is None:
        return None
    one, shape = slice(index, index + 1), (1, *request.model.shape)
    return lambda values: request.error(values.reshape(shape), one)


def outcome(
    field: Values,
    problem: HelmholtzProblem,
    distance: Distance | None,
    history: tuple[dict[str, Any], ...],
    stats: Statistics,
) -> Outcome:
    """A field with its values on the grid, and a record of them where there is none."""
    values = field(problem.model.grid_points())
    if not history and distance is not None:
        history = ({"step": 0, "seconds": 0.0, **figures(values, distance)},)
    return Outcome(field, values, problem.model.shape, stats, history)


def join(outcomes: Sequence[Outcome]) -> Solution:
    """The solution for all sources of a request."""
    estimates = np.array([estimate(one.values) for one in outcomes])
    steps = [one.stats.steps for one in outcomes if one.stats.steps is not None]
    records = [
        {"source": index, **record}
        for index, one in enumerate(outcomes)
        for record in one.history
    ]
    return Solution(
        fields=np.stack([one.values[:, 0].reshape(one.shape) for one in outcomes]),
        evaluate=JoinedField(tuple(one.field for one in outcomes)),
        # Unknowns and ranks are those of all: every source starts from the same network.
        stats=dataclasses.replace(outcomes[0].stats, steps=max(steps, default=None)),
        history=tuple(records),
        error_estimates=estimates if np.any(np.isfinite(estimates)) else None,
    )


def key_of_source(key: jax.Array, index: int) -> jax.Array:
    """Another key for every source."""
    return jax.random.fold_in(key, index)
