"""The output layer of a given network: solved in the weak form, replaced, evaluated."""

import dataclasses
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from meta_lrpinn import models
from meta_lrpinn.learning import objectives
from meta_lrpinn.learning.networks import number_of_features
from meta_lrpinn.learning.objectives import Params
from meta_lrpinn.learning.task_sets import Task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics import residual
from meta_lrpinn.physics.problem import Collocation, HelmholtzProblem
from meta_lrpinn.runtime import programs
from meta_lrpinn.runtime.precision import Array, double_precision, full_precision

# Products of features have half of their wavelength. Measured at 3 to 8 Hz: 8 points take
# twice the time for errors lower by up to a tenth, and 5 points raise some of them tenfold.
_POINTS_PER_WAVELENGTH = 6.0
# With fewer points than features the matrix is singular: off by 270 % in a model of two
# wavelengths. Four for each feature give 0.3 %, as eight do.
_POINTS_PER_FEATURE = 4
# Points at a time. Chunks without a point in the layer need no imaginary products, and the
# smaller they are, the more of them have none.
_CHUNK = 256
# Relative to the scaled diagonal, of systems whose features nearly depend on each other.
_DAMPING = 1e-11
# Points of a finer grid in a quadrature cell, see `weak_form.collocate_grid`; not tuned.
_REFINEMENT = 4
# Singular values of features, over the largest, below which single precision, in which
# layers of them are rounded to some 1e-7, knows too little of a direction; measured.
_CUT = 3e-5


def solve(
    model: nn.Module, params: Params, problem: HelmholtzProblem, double: bool = False
) -> np.ndarray:
    """Complex output weights (width,) of all features, see `solve_nested`."""
    return solve_nested(model, params, problem, (1.0,), double)[:, 0]


def solve_nested(
    model: nn.Module,
    params: Params,
    problem: HelmholtzProblem,
    fractions: tuple[float, ...],
    double: bool = False,
) -> np.ndarray:
    """Output weights of leading parts of the features, solved exactly in the weak form.

    Args:
        model: Network with features of some width.
        params: Its parameters.
        problem: The problem, concrete.
        fractions: The leading parts, in (0, 1], of the number of features.
        double: Work in double precision.

    Returns:
        Complex weights (width, parts), zero beyond each part.
    """
    with double_precision(double):
        shape = quadrature_shape(model, params, problem)
        rows = -(-_CHUNK // int(np.prod(shape[1:])))
        shape = (-(-shape[0] // rows) * rows, *shape[1:])
        refinement = weak_form.refinement_of(problem, shape)
        chunks = _in_chunks(problem, shape, refinement, rows)
        params = _cast(params, double)
        return np.asarray(_galerkin(model, params, chunks, problem, fractions, double))


def quadrature_shape(
    model: nn.Module, params: Params, problem: HelmholtzProblem
) -> tuple[int, ...]:
    """Points per axis, coordinate order, that the products of features need."""
    least = _POINTS_PER_FEATURE * number_of_features(model, params)
    return weak_form.quadrature_shape(problem, _POINTS_PER_WAVELENGTH, least)


def _of_parts(solver, width: int, fractions: tuple[float, ...]) -> jax.Array:
    """Weights (width, parts) of a function of each part's size."""
    sizes = [max(1, round(fraction * width)) for fraction in fractions]
    columns = [jnp.pad(solver(size), (0, width - size)) for size in sizes]
    return jnp.stack(columns, axis=1)


def _cast(params: Params, double: bool) -> Params:
    """On the host, so that any device can take them."""
    return jax.tree.map(lambda x: np.asarray(x, _dtype(double)), params)


def _dtype(double: bool) -> type[np.floating]:
    return np.float64 if double else np.float32


@partial(programs.jit_latest, static_argnames=("shape", "refinement", "rows"))
def _in_chunks(
    problem: HelmholtzProblem,
    shape: tuple[int, ...],
    refinement: tuple[int, ...],
    rows: int,
) -> Collocation:
    """The collocation of a quadrature grid in equal parts along a first axis.

    The points of the absorbing layer come first, so that most parts have none.
    """
    collocation = weak_form.collocate_grid(problem, shape, refinement)
    number = shape[0] // rows
    order = jnp.argsort(jnp.all(jnp.imag(collocation.stretch) == 0, axis=-1))

    def split(x):
        if not x.ndim:
            return jnp.broadcast_to(x, (number,))
        return x[order].reshape(number, -1, *x.shape[1:])

    return jax.tree.map(split, collocation)


@full_precision
def galerkin_error(
    model: nn.Module, params: Params, task: Task, quadrature: tuple[int, ...]
) -> jax.Array:
    """Relative L2 error of the Galerkin solution over the features, (); needs x64.

    The mean over the velocities of a task, against their known wavefields in the model,
    with so many quadrature points along each axis, coordinate order.
    """
    points, fields = objectives.known_wavefields(task)
    features = objectives.feature_function(model, params, task.problem)
    at_points = features(points)
    refinement = (_REFINEMENT,) * task.problem.ndim

    def error_of(known):
        velocity, background_velocity, truth = known
        problem = task.member(velocity, background_velocity)
        collocation = weak_form.collocate_grid(problem, quadrature, refinement)
        one_chunk = jax.tree.map(lambda x: jnp.asarray(x)[None], collocation)
        matrix, rhs, energy = _assemble(features, problem, one_chunk)
        weights = weak_form.solve_weights(matrix, rhs, _scale(energy), _DAMPING)
        return objectives.relative_error(problem, points, at_points @ weights, truth)

    # One after the other: see `linear.weak_form.solve_weights`.
    members = (task.velocities, task.background_velocities, fields)
    return jnp.mean(jax.lax.map(error_of, members))


def _scale(energy: jax.Array) -> jax.Array:
    """What makes features of these energies those of norm one."""
    return jax.lax.rsqrt(energy + jnp.finfo(energy.dtype).tiny)


@partial(programs.jit_latest, static_argnames=("model", "fractions", "double"))
@full_precision
def _galerkin(model, params, chunks, problem, fractions, double):
    features = objectives.feature_function(model, params, problem)
    if double:
        matrix, rhs, energy = _assemble(features, problem, chunks)
        scale = _scale(energy)

        def of_leading(size):
            return weak_form.solve_weights(
                matrix[:size, :size], rhs[:size], scale[:size], _DAMPING
            )

        return _of_parts(of_leading, len(rhs), fractions)

    def of_whitened(size):
        """Over an orthonormal basis of what single precision can tell apart."""

        def leading(points):
            return features(points)[:, :size]

        values = jax.lax.map(leading, chunks.points).reshape(-1, size)
        change = weak_form.whitening(values, _CUT)
        matrix, rhs, energy = _assemble(
            lambda points: leading(points) @ change, problem, chunks
        )
        # What is left out has rows of zeros.
        matrix = matrix + jnp.diag(jnp.where(energy > 0, 0.0, 1.0))
        return change @ weak_form.solve_weights(matrix, rhs, jnp.ones(size))

    width = jax.eval_shape(features, chunks.points[0]).shape[1]
    return _of_parts(of_whitened, width, fractions)


def _assemble(features, problem, chunks):
    """Galerkin matrix, right-hand side and energies of features, chunk by chunk."""
    volume = jnp.prod(jnp.asarray(problem.upper - problem.lower))
    cell = volume / math.prod(chunks.points.shape[:-1])

    def add(total, collocation):
        samples = weak_form.sample_features(features, collocation.points)
        part = (
            weak_form.stiffness_matrix(samples, collocation.stretch, cell)
            + weak_form.mass_matrix(samples.value, collocation, cell),
            weak_form.load_vector(samples.value, collocation, cell),
            jnp.sum(samples.value**2, axis=0) * cell,
        )
        return jax.tree.map(jnp.add, total, part), None

    first = jax.tree.map(lambda x: x[0], chunks)
    shapes = jax.eval_shape(lambda c: add((0.0, 0.0, 0.0), c)[0], first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, chunks)[0]


def replace(params: Params, weights: Array) -> Params:
    """Parameters whose own output is Σ_j a_j φ_j, for complex weights a, (width,)."""
    return models.with_output(params, residual.as_real(weights))


@dataclasses.dataclass(frozen=True)
class FeatureField:
    """The wavefield of output weights over a network's features; can be pickled."""

    model: nn.Module
    params: Params
    problem: HelmholtzProblem
    weights: np.ndarray  # (width, ...) complex
    double: bool = False

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n, ...), complex."""
        with double_precision(self.double):
            params, points = _cast((self.params, points), self.double)
            fields = _features_at(self.model, params, self.problem, self.weights, points)
            return np.asarray(fields)


@partial(programs.jit_latest, static_argnames=("model",))
@full_precision
def _features_at(model, params, problem, weights, points):
    features = objectives.feature_function(model, params, problem)

    def at(point):
        return features(point[None])[0] @ weights

    return jax.lax.map(at, points, batch_size=4096)


@dataclasses.dataclass(frozen=True)
class OwnField:
    """The wavefield of a network's own output layer; can be pickled."""

    model: nn.Module
    params: Params
    problem: HelmholtzProblem

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n,), complex."""
        outputs = _output_at(self.model, self.params, self.problem, jnp.asarray(points))
        return np.asarray(outputs)


@partial(programs.jit_latest, static_argnames=("model",))
@full_precision
def _output_at(model, params, problem, points):
    outputs = objectives.output_function(model, params, problem)(points)
    chex.assert_shape(outputs, (len(points), 2))
    return residual.as_complex(outputs)
