"""Exact solves over the last hidden layer of a network, and what solvers by networks share.

Of the weak form (`linear.weak_form`) only the mass matrix and the right-hand side depend
on the velocity. For many velocities the features themselves, their stiffness matrix and
their values at the receivers are therefore evaluated once for each source. Made
orthonormal there, in double precision, they can be summed in single precision for each
velocity. All solve for unit amplitude: a field is linear in its amplitude, and networks
work best near one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.learning import objectives, output_layer
from meta_lrpinn.learning.networks import Network, load_network
from meta_lrpinn.linear import weak_form
from meta_lrpinn.linear.weak_form import FeatureSamples
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import programs
from meta_lrpinn.runtime.precision import double_precision, full_precision
from meta_lrpinn.solvers.protocol import (
    Distance,
    Prepared,
    Setup,
    Solve,
    Solved,
    at_receivers,
    keys_of,
)
from meta_lrpinn.solvers.settings import NetworkFeatures, NetworkLike
from meta_lrpinn.wavefield import Statistics

# The estimate of the own error is 1.25 times the change by the last third of the features.
# Of nine kinds of small models that the shipped ones were not trained on, sharp, smooth
# and long-wave, it is 0.5 to 2.5 times the error, 1.0 in the median
# (experiments.calibration), and three times the error on models like those of training
# (experiments.comparison).
ENRICHMENT = 1.5
CHANGE_OVER_ERROR = 0.8
# GiB for shared features where no memory is set; not tuned.
_MEMORY = 4.0
# What a feature of norm one adds to those before it; less is rounding of the network.
_CUT = 1e-10
_BATCH = 1024  # points whose features are evaluated at a time

# Points (n, ndim) → (n,) or (n, k): δu of unit amplitude in the first column, and in a
# second one, where there is one, what two thirds of the features would have given.
Values = Callable[[np.ndarray], np.ndarray]
# δu of unit amplitude on the grid, (n,) → its relative L2 distance from the known field.
Error = Callable[[np.ndarray], float]
History = tuple[dict[str, Any], ...]


def prepare(settings: NetworkFeatures, setup: Setup) -> Prepared:
    """A network's features: of one model solved directly, of several evaluated once.

    Raises:
        ValueError: if there is no such network, or it is of another space dimension.
    """
    network = find_network(settings.network, setup)
    if not setup.bounds.are_of_one_model:
        return Prepared(setup, _sharing(settings, setup, network))

    def solve_source(index, problem, error):
        return solve_output(network, problem, settings.precision == "double"), ()

    return of_each_source(setup, network, solve_source)


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


def of_each_source(
    setup: Setup,
    network: Network,
    solve_source: Callable[[int, HelmholtzProblem, Error | None], tuple[Values, History]],
) -> Prepared:
    """A solver that solves for one source after the other, in the thickest of their layers.

    Args:
        setup: What it is prepared for.
        network: With which every source begins.
        solve_source: From the number of a source, its problem of unit amplitude, and its
            error where the field is known, to its field and history.
    """

    def solve(model: VelocityModel, distance: Distance | None = None) -> Solved:
        problems = [_unit_problem(setup, model, s, network) for s in setup.sources]
        thickest = max(problems, key=lambda p: float(p.layer.thickness)).layer
        fields, values, estimates, records = [], [], [], []
        for index, problem in enumerate(problems):
            error = None
            if distance is not None:
                error = functools.partial(_error, distance, setup.amplitude, model, index)
            field, history = solve_source(index, problem.replace(layer=thickest), error)
            columns = _columns(field, model.grid_points())
            fields.append(field)
            values.append(setup.amplitude * columns[:, 0].reshape(model.shape))
            estimates.append(estimate(columns))
            if not history and error is not None:
                figures = {
                    "error_estimate": estimates[-1], "relative_l2": error(columns[:, 0])
                }  # fmt: skip
                history = ({"step": 0, "seconds": 0.0, **figures},)
            records += [{"source": index, **record} for record in history]
        evaluate = functools.partial(_joined, tuple(fields), setup.amplitude)
        return Solved(
            fields=at_receivers(setup, evaluate, np.stack(values)),
            error_estimates=np.array(estimates) if np.any(np.isfinite(estimates)) else None,
            evaluate=evaluate,
            stats=Statistics(
                unknowns=network.number_of_features,
                rank=network.ranks,
                steps=max((record["step"] for record in records), default=0),
            ),
            history=tuple(records),
            initialisation=network.checksum(),
        )

    return Prepared(setup, solve)


def _unit_problem(
    setup: Setup, model: VelocityModel, source: np.ndarray, network: Network
) -> HelmholtzProblem:
    fraction = network.layer_fraction
    return setup.problem(model, source, amplitude=1.0, layer_fraction=fraction)


def _error(
    distance: Distance,
    amplitude: complex,
    model: VelocityModel,
    index: int,
    values: np.ndarray,
) -> float:
    fields = amplitude * values.reshape(1, *model.shape)
    return distance(fields, slice(index, index + 1))


def _joined(
    fields: tuple[Values, ...], amplitude: complex, points: np.ndarray
) -> np.ndarray:
    """Points (n, ndim) [km] → δu (n_sources, n) of fields of unit amplitude."""
    columns = [_columns(field, points)[:, 0] for field in fields]
    return amplitude * np.stack(columns)


def _columns(field: Values, points: np.ndarray) -> np.ndarray:
    return field(np.asarray(points)).reshape(len(points), -1)


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
    return output_layer.FeatureField(*options, weights, is_double)


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


def _sharing(settings: NetworkFeatures, setup: Setup, network: Network) -> Solve:
    """By features that are evaluated once for each source."""
    grid = setup.grid
    receivers = grid.grid_points() if setup.receivers is None else setup.receivers
    shape = grid.shape if setup.receivers is None else (len(receivers),)
    memory = (setup.conditions.memory or _MEMORY) * 2**30
    checksum = network.checksum()
    kept: dict[int, SharedFeatures] = {}

    def features_of(index: int) -> SharedFeatures:
        if index in kept:
            return kept[index]
        # The layer for a velocity in the middle of all: networks are trained in one for
        # the mean velocity.
        middle = setup.bounds.middle()
        problem = _unit_problem(setup, middle, setup.sources[index], network)
        problem = problem.replace(model=grid)
        features = share_features(network, problem, receivers, settings.precision)
        # Those that memory has no room for are made again for every velocity.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(features))
        if not kept or (len(kept) + 1) * size <= memory:
            kept[index] = features
        return features

    def solve(model: VelocityModel, distance: Distance | None = None) -> Solved:
        values, width = [], 0
        for index, velocity in enumerate(setup.background_velocities(model)):
            features = features_of(index)
            values.append(features.solve(model, velocity))
            width = features.value.shape[1]
        fields = setup.amplitude * np.stack(values)[..., 0].reshape(-1, *shape)
        history = ()
        if distance is not None:
            history = ({"step": 0, "seconds": 0.0, "relative_l2": distance(fields)},)
        return Solved(
            fields=fields,
            error_estimates=np.array([estimate(v) for v in values]),
            stats=Statistics(unknowns=width, rank=network.ranks, steps=0),
            history=history,
            initialisation=checksum,
        )

    return solve


class SharedFeatures(struct.PyTreeNode):
    """Orthonormal features of one frequency and source: w of them, at n points."""

    problem: HelmholtzProblem  # frequency, source, and the layer of all velocities
    value: jax.Array  # (n, w), in the precision of the sums
    stiffness: jax.Array  # (w, w) complex
    receivers: jax.Array  # (n_receivers, w), features there
    leading: int = struct.field(pytree_node=False)  # of the coarser solution
    shape: tuple[int, ...] = struct.field(pytree_node=False)  # of the quadrature
    refinement: tuple[int, ...] = struct.field(pytree_node=False)  # for the velocity

    def solve(self, model: VelocityModel, background_velocity: complex) -> np.ndarray:
        """δu at the receivers, (n_receivers, 2), the second over the leading features."""
        with double_precision():
            v0 = jnp.asarray(background_velocity)
            problem = self.problem.replace(model=model, background_velocity=v0)
            return np.asarray(_solve(self.replace(problem=problem)))


def share_features(
    network: Network, problem: HelmholtzProblem, receivers: np.ndarray, precision: str
) -> SharedFeatures:
    """The features of a network for one frequency and source.

    Args:
        network: Network with features.
        problem: Of the smallest velocity at every grid point, which sets the quadrature,
            and in the layer that all velocities share.
        receivers: Positions (n_receivers, ndim) [km].
        precision: "double" or "single", of the sums for each velocity.
    """
    shape = output_layer.quadrature_shape(network.module, network.params, problem)
    refinement = weak_form.refinement_of(problem, shape)
    with double_precision():
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), network.params)
        samples, at_receivers = _sample(
            network.module, params, problem, jnp.asarray(receivers), shape
        )
        leading = max(1, round(samples.value.shape[1] / ENRICHMENT))
        samples, at_receivers, leading = _orthonormal(samples, at_receivers, leading)
        kind = jnp.float64 if precision == "double" else jnp.float32
        return SharedFeatures(
            problem=problem,
            value=samples.value.astype(kind),
            stiffness=_stiffness(problem, samples, shape),
            receivers=at_receivers,
            leading=leading,
            shape=shape,
            refinement=refinement,
        )


@functools.partial(programs.jit_latest, static_argnames=("module", "shape"))
@full_precision
def _sample(
    module: Any,
    params: Any,
    problem: HelmholtzProblem,
    receivers: jax.Array,
    shape: tuple[int, ...],
) -> tuple[FeatureSamples, jax.Array]:
    """Features at the quadrature points, and at the receivers."""
    features = objectives.feature_function(module, params, problem)

    def sample(point):
        samples = weak_form.sample_features(features, point[None])
        return jax.tree.map(lambda leaf: leaf[0], samples)

    points = weak_form.quadrature_points(problem, shape)
    samples = jax.lax.map(sample, points, batch_size=_BATCH)
    at_receivers = jax.lax.map(
        lambda point: features(point[None])[0], receivers, batch_size=_BATCH
    )
    return samples, at_receivers


def _orthonormal(
    samples: FeatureSamples, at_receivers: jax.Array, leading: int
) -> tuple[FeatureSamples, jax.Array, int]:
    """Features orthonormal over the points, the first of which span the first given.

    Returns:
        Samples, values at the receivers, and how many span the `leading` ones given.
    """
    scale = 1 / (jnp.linalg.norm(samples.value, axis=0) + jnp.finfo(jnp.float64).tiny)
    added = jnp.abs(jnp.diag(jnp.linalg.qr(samples.value * scale, mode="r")))
    kept = np.flatnonzero(np.asarray(added) > _CUT)
    triangle = jnp.linalg.qr((samples.value * scale)[:, kept], mode="r")

    def change(values):
        scaled = (values * scale)[..., kept]
        rows = scaled.reshape(-1, len(kept))
        solved = jax.scipy.linalg.solve_triangular(triangle, rows.T, trans="T")
        return solved.T.reshape(scaled.shape)

    samples = jax.tree.map(change, samples)
    return samples, change(at_receivers), max(1, int(np.sum(kept < leading)))


@functools.partial(programs.jit_latest, static_argnames=("shape",))
@full_precision
def _stiffness(
    problem: HelmholtzProblem, samples: FeatureSamples, shape: tuple[int, ...]
) -> jax.Array:
    points = weak_form.quadrature_points(problem, shape)
    stretch = absorbing.stretch(problem.layer, points, jnp.asarray(problem.omega))
    return weak_form.stiffness_matrix(samples, stretch, _cell(problem, shape))


@programs.jit_latest
@full_precision
def _solve(features: SharedFeatures) -> jax.Array:
    problem = features.problem
    collocation = weak_form.collocate_grid(problem, features.shape, features.refinement)
    cell = _cell(problem, features.shape)
    mass = weak_form.mass_matrix(features.value, collocation, cell)
    rhs = weak_form.load_vector(features.value, collocation, cell)
    matrix, first = features.stiffness + mass, slice(features.leading)
    fine = jnp.linalg.solve(matrix, rhs)
    coarse = jnp.linalg.solve(matrix[first, first], rhs[first])
    coarse = jnp.pad(coarse, (0, len(fine) - len(coarse)))
    weights = jnp.stack([fine, coarse], axis=1)
    return jax.lax.complex(
        features.receivers @ weights.real, features.receivers @ weights.imag
    )


def _cell(problem: HelmholtzProblem, shape: tuple[int, ...]) -> jax.Array:
    return jnp.prod(jnp.asarray(problem.upper - problem.lower)) / np.prod(shape)
