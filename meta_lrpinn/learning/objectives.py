"""Objectives: what a network is trained on, in meta-training and in adaptation alike.

Each maker returns a function (params, task, key) → (loss, scalars) of a network's
parameters, a `Task` and the key that draws its points:

- `paper_objective`: the network's own output and the paper's three losses;
- `own_output_objective`: the network's own output and the residual relative to the
  right-hand side;
- `projection_objective`: the distance of known wavefields from what the features span.

A maker is given the network and the number of points of a call. The own output is the δu
of the problem of unit amplitude, whatever the task's amplitude (`unit_problem`), and its
tasks hold one velocity each. A maker called twice with the same arguments returns the
same function, so that what was compiled for it is used again.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn import models
from meta_lrpinn.learning import configs
from meta_lrpinn.learning.task_sets import Task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics import derivatives, residual
from meta_lrpinn.physics.problem import (
    Collocation,
    HelmholtzProblem,
    collocate,
    envelope_at,
    sample_points,
)
from meta_lrpinn.runtime.precision import full_precision

Params = Any
Scalars = dict[str, jax.Array]
Objective = Callable[[Params, Task, jax.Array], tuple[jax.Array, Scalars]]

# Under the root of a mean square: keeps rounding from mattering in single precision.
_PROJECTION_RIDGE = 1e-9
# Added to errors before the logarithm: what is better than this is good enough. In single
# precision smaller errors are in good part rounding, and their gradients, large in the
# logarithm, drown those of the others.
_PROJECTION_FLOOR = 1e-2
# Points of one evaluation on CPU: 1 + 2 ndim arrays of so many × 192 numbers are in cache.
_CACHED_POINTS = 600
# Least size of a right-hand side, relative to ω² m₀ at unit amplitude; less is rounding.
_SMALLEST_SOURCE = 1e-6


def frequency_of(problem: HelmholtzProblem) -> jax.Array:
    """Frequency in Hz, ()."""
    return jnp.asarray(problem.omega) / (2 * jnp.pi)


def output_function(
    model: nn.Module, params: Params, problem: HelmholtzProblem
) -> Callable[[jax.Array], jax.Array]:
    """The network's own δu as (real, imaginary), decaying in the layer: (n, 2)."""
    return weak_form.with_envelope(_network(model, params, problem, "__call__"), problem)


def feature_function(
    model: nn.Module, params: Params, problem: HelmholtzProblem
) -> weak_form.Features:
    """The network's last hidden layer, decaying in the layer: (n, width)."""
    return weak_form.with_envelope(_network(model, params, problem, "features"), problem)


def _network(
    model: nn.Module, params: Params, problem: HelmholtzProblem, method: str
) -> Callable[[jax.Array], Any]:
    """A method of a network as a function of points (n, ndim) [km] alone."""
    source, frequency = problem.source[:-1], frequency_of(problem)
    return lambda points: model.apply(
        {"params": params}, points, source, frequency, method=method
    )


def unit_problem(problem: HelmholtzProblem) -> HelmholtzProblem:
    """The problem of amplitude one, whose δu, times A, is the given problem's."""
    amplitude = jnp.asarray(problem.amplitude)
    return problem.replace(amplitude=jnp.ones_like(amplitude))


def _only_problem(task: Task) -> HelmholtzProblem:
    """The unit problem of a task's only velocity."""
    chex.assert_axis_dimension(task.velocities, 0, 1)
    return unit_problem(task.member(task.velocities[0], task.background_velocities[0]))


def make_objective(config: configs.ObjectiveConfig, model: nn.Module) -> Objective:
    """The objective of a configuration, for a network."""
    match config.name:
        case "paper":
            return paper_objective(model, config.points, config.source_penalty)
        case "own_output":
            return own_output_objective(model, config.points)
        case _:  # "projection": a configuration has checked the name.
            return projection_objective(model, config.points, tuple(config.leading))


@functools.cache
def paper_objective(
    model: nn.Module, number_of_points: int, source_penalty: float = 1.0
) -> Objective:
    """The paper's loss, 0.1 (L_pde + L_reg + L_ort), on the network's own output.

    With an absorbing layer (thickness above zero) the points fill the layer too and the
    residual is the stretched one; without, it is the paper's setting. `source_penalty` is
    the strength of L_reg; 1 is the paper's, 0 switches it off.
    """

    @full_precision
    def objective(params, task, key):
        problem = _only_problem(task)
        points = sample_points(key, problem, number_of_points)
        collocation = collocate(problem, points)
        scattered, remainder = _own_residual(model, params, problem, collocation)
        parts = {"pde": residual.pde_loss(remainder)}
        if source_penalty:
            distance = jnp.linalg.norm(points - problem.source, axis=-1)
            weight = residual.source_penalty_weight(
                distance, collocation.omega, jnp.asarray(problem.background_speed)
            )
            parts["source"] = source_penalty * residual.source_loss(scattered, weight)
        if isinstance(model, models.MetaLRPINN):
            factors = models.orthogonal_factors(params)
            parts["orthogonality"] = residual.orthogonality_loss(factors)
        return 0.1 * functools.reduce(jnp.add, parts.values()), parts

    return objective


def _own_residual(
    model: nn.Module,
    params: Params,
    problem: HelmholtzProblem,
    collocation: Collocation,
) -> tuple[jax.Array, jax.Array]:
    """The network's own δu, decaying in the layer, and its strong residual, complex (n,).

    Derivatives are carried through the network layer by layer, see `models.layers.Jets`.
    """
    points = collocation.points
    number, ndim = points.shape
    value, slope, curvature = _network(model, params, problem, "jets")(points).stacked()
    chex.assert_shape(value, (number, 2))
    chex.assert_shape([slope, curvature], (number, ndim, 2))
    decay = derivatives.derivatives(lambda x: envelope_at(problem, x)[:, None], points)
    whole, flat = decay.value[:, None], value[:, None]
    gradient = whole * slope + decay.gradient * flat
    second = whole * curvature + 2 * decay.gradient * slope + decay.second * flat
    scattered = residual.as_complex(decay.value * value)
    # Of one shape, so that none is repeated along the other's points.
    chex.assert_equal_shape([scattered, collocation.scattering_source])
    laplacian = residual.stretched_laplacian(
        residual.as_complex(gradient),
        residual.as_complex(second),
        collocation.stretch,
        collocation.stretch_slope,
    )
    remainder = residual.helmholtz_residual(
        scattered,
        laplacian,
        collocation.squared_slowness,
        collocation.scattering_source,
        collocation.omega,
    )
    return scattered, remainder


def points_at_a_time(number: int) -> int:
    """The largest divisor of a number of points of which one evaluation is fast.

    On CPU the jets of so many points stay in a core's cache, which halves the time of a
    gradient (2,304 points, 3 × 192 units); an accelerator takes all at once.
    """
    if jax.default_backend() != "cpu":
        return number
    return max(m for m in range(1, _CACHED_POINTS + 1) if number % m == 0)


@functools.cache
def own_output_objective(model: nn.Module, number_of_points: int) -> Objective:
    """The residual of the network's own output relative to the right-hand side.

    √(mean |L δu − f|² / mean |f|²) of the unit problem, f = −ω² (m − m₀) u₀: the
    paper's L_pde (Cheng and Alkhalifah 2025, eq. 9) over a constant of the task. A
    zero output has the loss one at every frequency and amplitude, where L_pde grows
    like ω², so that of several tasks none drowns the others; and δu is of order one, as
    the output of a network is. The points are a regular grid over the model and its
    layer, as many along each axis, shifted at random: no part is left out at any step. No
    source penalty: the layer makes the problem well-posed.
    """
    shape = (round(number_of_points ** (1 / model.ndim)),) * model.ndim

    @full_precision
    def objective(params, task, key):
        problem = _only_problem(task)
        shift = jax.random.uniform(key, (problem.ndim,))
        points = weak_form.quadrature_points(problem, shape, shift)

        # Evaluated again in reverse rather than kept: faster, and in less memory.
        @jax.checkpoint
        def energies(points):
            collocation = collocate(problem, points)
            _, remainder = _own_residual(model, params, problem, collocation)
            return _energy(remainder), _energy(collocation.scattering_source)

        parts = points.reshape(-1, points_at_a_time(len(points)), problem.ndim)
        remainder, source = map(jnp.sum, jax.lax.map(energies, parts))
        # A model without contrast has no right-hand side; its δu is zero.
        smallest = _SMALLEST_SOURCE * problem.omega**2 / problem.background_speed**2
        size = jnp.maximum(residual.safe_sqrt(source / len(points)), smallest)
        loss = residual.safe_sqrt(remainder / len(points)) / size
        return loss, {"residual": loss}

    return objective


def own_output_error(model: nn.Module, params: Params, task: Task) -> jax.Array:
    """Relative L2 error of the own output against the known wavefield in the model, ().

    Of a task of one velocity. Raises ValueError if it has no known wavefield.
    """
    problem = task.problem
    points, known = known_wavefields(task)
    outputs = output_function(model, params, problem)(points)
    scattered = problem.amplitude * residual.as_complex(outputs)
    return relative_error(problem, points, scattered, known[0])


def known_wavefields(task: Task) -> tuple[jax.Array, jax.Array]:
    """Points (p, ndim) and wavefields (g, p) that a task knows; ValueError if none."""
    if task.points is None or task.scattered is None:
        raise ValueError("the task holds no known wavefield")
    return task.points, task.scattered


def relative_error(
    problem: HelmholtzProblem, points: jax.Array, field: Any, truth: jax.Array
) -> jax.Array:
    """Relative L2 error of a field (n,) at the points that lie in no layer, ()."""
    layer = problem.layer
    inside = jnp.all((points >= layer.lower) & (points <= layer.upper), axis=-1)
    return jnp.sqrt(_energy(inside * (field - truth)) / _energy(inside * truth))


@functools.cache
def projection_objective(
    model: nn.Module, number_of_points: int, leading: tuple[int, ...] = ()
) -> Objective:
    """Logarithm of the relative L2 distance of known wavefields from the features' span.

    It needs values only, no derivatives, and has none of the poles of an indefinite
    system. With `leading`, the first so many features are trained to be a good basis by
    themselves, as principal components are: one triangular factor of all features
    answers for each of the leading parts (nested bases, Rippel et al. 2014).

    Tasks must hold `points` and `scattered`, at more points than are drawn, of which there
    should be several times the number of features. The scalars are the mean relative
    distance from all features, and from each leading part.
    """

    @full_precision
    def objective(params, task, key):
        available = task.points.shape[0]
        chex.assert_shape(task.scattered, (len(task.velocities), available))
        if number_of_points > available:
            raise ValueError(
                f"the tasks know their wavefields at {available} points, fewer than the "
                f"{number_of_points} that the objective draws"
            )
        chosen = jax.random.choice(key, available, (number_of_points,), replace=False)
        known = task.scattered[:, chosen].T  # (points, g)
        targets = jnp.concatenate([jnp.real(known), jnp.imag(known)], axis=1)
        features = feature_function(model, params, task.problem)(task.points[chosen])
        width = features.shape[1]
        parts = sorted({size for size in leading if size < width} | {width})
        # The best weights count as constants, which is exact at the minimum.
        weights = _nested_weights(jax.lax.stop_gradient(features), targets, parts)
        remainders = (features @ weights).reshape(-1, len(parts), targets.shape[1])
        squared = jnp.sum((remainders - targets[:, None]) ** 2, axis=0)
        energy = jnp.sum(targets**2, axis=0)
        both = (len(parts), 2, known.shape[1])  # real and imaginary parts together
        squared = jnp.sum(squared.reshape(both), axis=1)
        error = jnp.sqrt(squared / jnp.sum(energy.reshape(both[1:]), axis=0))
        means = jnp.mean(error, axis=1)
        scalars = {f"error_{size}": means[i] for i, size in enumerate(parts[:-1])}
        loss = jnp.mean(jnp.log(error + _PROJECTION_FLOOR))
        return loss, {"error": means[-1], **scalars}

    return objective


def _nested_weights(
    features: jax.Array, targets: jax.Array, parts: Sequence[int]
) -> jax.Array:
    """Least-squares weights of the leading parts, of these sizes, of features (n, width).

    For targets (n, t) they are (width, parts × t), zero beyond each part.
    """
    width = features.shape[1]
    scale = jax.lax.rsqrt(jnp.sum(features**2, axis=0) + jnp.finfo(features.dtype).tiny)
    ridge = jnp.sqrt(jnp.asarray(_PROJECTION_RIDGE, features.dtype))
    scaled = jnp.concatenate([features * scale, ridge * jnp.eye(width)])
    # Not the Gram matrix, which would square the condition number.
    orthonormal, triangle = jnp.linalg.qr(scaled)
    projected = orthonormal[: len(features)].T @ targets

    def of_part(size):
        weights = jax.scipy.linalg.solve_triangular(
            triangle[:size, :size], projected[:size]
        )
        return jnp.pad(weights, ((0, width - size), (0, 0)))

    return scale[:, None] * jnp.concatenate([of_part(size) for size in parts], axis=1)


def _energy(field: jax.Array) -> jax.Array:
    return jnp.sum(jnp.real(field) ** 2 + jnp.imag(field) ** 2)
