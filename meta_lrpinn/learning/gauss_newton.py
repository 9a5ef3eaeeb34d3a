"""Levenberg–Marquardt adaptation of what the low-rank form leaves few of.

With U and V fixed, W_l = U_l diag(σ_l) V_lᵀ leaves a pruned network its singular
values, a few hundred numbers, few enough for second-order steps on the strong residual.
For the features φ(θ) of these parameters θ, and the best output weights a(θ), it is (see
`linear.least_squares`)

    r(θ) = A(θ) a(θ) − b.

Kaufman (1975) leaves out the change of the weights in the Jacobian but for what the
weights would make good at once, J = P ∂(A a)/∂θ with a held and P the projection off
the range of A, and a damped step is

    (JᵀJ + λ diag(JᵀJ)) δθ = −Jᵀ r,

λ larger after a failure and smaller after a success (Marquardt 1963). Without P the
steps are those of alternating least squares, which need far more of them.

One residual is a number per point, and points do not see each other: the rows of J are
gradients, two backward passes through the network for all parameters together, where
forward mode would take one pass for each parameter.

Not for full weights: JᵀJ would have 10⁵ rows; `adapt.finetune` is for these.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tqdm
from flax import linen as nn
from flax import struct
from jax.flatten_util import ravel_pytree

from meta_lrpinn import models
from meta_lrpinn.learning import objectives
from meta_lrpinn.learning.adaptation import HELD_OUT, HELD_OUT_FOLD, Evaluate
from meta_lrpinn.learning.objectives import Params
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.linear import least_squares
from meta_lrpinn.physics import derivatives
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import full_precision

PATIENCE = 5
_CHUNK = 512  # points whose Jacobian is taken at once
_FIRST_DAMPING = 1e-2
_GROWTH, _SHRINKAGE = 4.0, 0.25
_SMALLEST_DAMPING = least_squares.RIDGE  # covers the same rounding, of JᵀJ


class Linearisation(struct.PyTreeNode):
    """Normal equations of the p selected parameters, and the residual at the start."""

    gram: jax.Array  # (p, p), JᵀJ / ‖b‖²
    gradient: jax.Array  # (p,), Jᵀr / ‖b‖²
    squared: jax.Array  # (), ‖r‖² / ‖b‖²


def select(params: Params, first_layer: bool = False) -> Params:
    """The parameters that are adapted: singular values, if asked the first layer."""
    selected = {"embedding": params["embedding"]}
    if first_layer:
        selected["first"] = params["network"]["first"]
    return selected


def merge(params: Params, selected: Params) -> Params:
    """All parameters, those that `select` gave replaced."""
    network = params["network"]
    if "first" in selected:
        network = {**network, "first": selected["first"]}
    return {**params, "network": network, "embedding": selected["embedding"]}


@full_precision
def linearise(
    model: models.MetaLRPINN,
    params: Params,
    problem: HelmholtzProblem,
    points: jax.Array,
    first_layer: bool = False,
    projected: bool = True,
    ridge: float = least_squares.RIDGE,
) -> Linearisation:
    """Normal equations of the relative residual with its output layer eliminated.

    Args:
        model: Pruned network.
        params: Its parameters.
        problem: The problem.
        points: Collocation points (n, ndim) [km].
        first_layer: Adapt the first layer too.
        projected: Kaufman's Jacobian; False holds the output weights fixed.
        ridge: See `least_squares.output_weights`.

    Returns:
        The normal equations, parameters in the order of `ravel_pytree` of `select`.
    """
    start, unravel = ravel_pytree(select(params, first_layer))

    def row(theta, point):
        """The operator on every feature at one point, (w,), and the right-hand side."""
        current = merge(params, unravel(theta))
        features = objectives.feature_function(model, current, problem)
        samples = derivatives.derivatives(features, point[None])
        collocation = problems.collocate(problem, point[None])
        operator = least_squares.operator_on_features(samples, collocation)
        return operator[0], collocation.scattering_source[0]

    def rows_of_jacobian(point):
        def left(theta):
            value = row(theta, point)[0] @ weights
            return jnp.stack([jnp.real(value), jnp.imag(value)])

        return jax.lax.complex(*jax.jacrev(left)(start))

    operator, rhs = _map_points(lambda point: row(start, point), points)
    weights = least_squares.output_weights(operator, rhs, ridge)
    remainder = operator @ weights - rhs
    jacobian = _map_points(rows_of_jacobian, points)
    if projected:
        jacobian = _off_range(operator, jacobian, ridge)
    real, imaginary = jnp.real(jacobian), jnp.imag(jacobian)
    norm = jnp.sum(jnp.abs(rhs) ** 2)
    return Linearisation(
        gram=(real.T @ real + imaginary.T @ imaginary) / norm,
        gradient=(real.T @ jnp.real(remainder) + imaginary.T @ jnp.imag(remainder)) / norm,
        squared=jnp.sum(jnp.abs(remainder) ** 2) / norm,
    )


def _map_points(function: Callable[[jax.Array], Any], points: jax.Array) -> Any:
    """A function of one point at points (n, ndim), so many at a time.

    Points are repeated to fill the last chunk: `jax.lax.map` would compile a second
    program for what is left, and compilation is most of the time of a few steps.
    """
    number = len(points)
    size = min(_CHUNK, number)
    chunks = -(-number // size)
    filled = points[jnp.arange(chunks * size) % number].reshape(chunks, size, -1)
    results = jax.lax.map(jax.vmap(function), filled)
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:number], results)


def _off_range(operator: jax.Array, columns: jax.Array, ridge: float) -> jax.Array:
    """What is left of complex columns (n, p) after their best fit by A (n, w)."""
    fit = jax.vmap(least_squares.output_weights, (None, 1, None), 1)
    return columns - operator @ fit(operator, columns, ridge)


def damped_step(system: Linearisation, damping: jax.Array | float) -> jax.Array:
    """Change of the selected parameters, (p,): −(JᵀJ + λ diag JᵀJ)⁻¹ Jᵀr.

    A parameter without any effect on the residual stays as it is.
    """
    diagonal = jnp.diagonal(system.gram)
    smallest = jnp.finfo(diagonal.dtype).eps * jnp.max(diagonal)
    scale = jnp.where(diagonal > smallest, jax.lax.rsqrt(diagonal + smallest), 0.0)
    scaled = system.gram * scale[:, None] * scale + damping * jnp.eye(len(scale))
    # Where the scale is zero, so is the row, and damping may be too.
    scaled = scaled + jnp.diag(jnp.where(scale > 0, 0.0, 1.0))
    return -scale * jnp.linalg.solve(scaled, scale * system.gradient)


def gauss_newton(
    model: nn.Module,
    params: Params,
    problem: HelmholtzProblem,
    *,
    steps: int,
    points: int,
    key: jax.Array,
    first_layer: bool = False,
    projected: bool = True,
    patience: int | None = PATIENCE,
    evaluate: Evaluate | None = None,
    choose: str = HELD_OUT,
    progress: bool = False,
) -> tuple[Params, tuple[dict[str, Any], ...]]:
    """Damped Gauss–Newton steps of the singular values, on the eliminated residual.

    A step is taken only if it lowers the loss at points that no step draws, the same
    ones always and those of `finetune`, so that adaptation never makes it worse. The
    points of the steps are drawn anew after each one taken; after one refused, the same
    normal equations are solved with more damping.

    Args:
        model: Pruned `MetaLRPINN`.
        params: Parameters to start from.
        problem: The problem.
        steps: Steps to try; 0 returns the parameters as they are.
        points: Collocation points per step; two real equations each, of which there
            should be several times as many as singular values and output weights.
        key: Random key.
        first_layer: Adapt the first layer too.
        projected: See `linearise`.
        patience: Stop after so many steps refused in a row; None tries all steps.
        evaluate: Optional figures of merit of the parameters, added to each record;
            its time does not count.
        choose: Figure of the record whose parameters are returned, that where it is
            smallest: "held_out", which the steps taken lower, or one of `evaluate`.
        progress: Show a progress bar.

    Returns:
        Adapted parameters, and the history with one record for every step tried: step,
        loss (logarithm of the relative residual that the step started from, at its own
        points), held_out loss of the parameters kept so far, damping of the step,
        seconds without those of compilation, and what `evaluate` gives.

    Raises:
        ValueError: if the network is not a pruned `MetaLRPINN`.
        FloatingPointError: if the loss is not finite to begin with.
    """
    check_pruned(model)
    figures = {} if evaluate is None else evaluate(params)
    if not steps:
        return params, ({"step": 0, "seconds": 0.0, **figures},) if figures else ()
    task = single_task(jax.tree.map(jnp.asarray, problem))
    options = {"points": points, "first_layer": first_layer, "projected": projected}
    linearised = functools.partial(_linearised, model, problem=task.problem, **options)
    attempted = functools.partial(
        _attempted,
        objectives.residual_objective(model, points),
        task=task,
        key=jax.random.fold_in(key, HELD_OUT_FOLD),
        first_layer=first_layer,
    )
    # Compile, and measure the start: no step is the step of infinite damping.
    best_loss = float(attempted(params, linearised(params, key=key), jnp.inf)[1])
    if not jnp.isfinite(best_loss):
        raise FloatingPointError(f"the loss is {best_loss} before the first step")
    history = [{"step": 0, HELD_OUT: best_loss, "seconds": 0.0, **figures}]
    best, smallest = params, history[0][choose]
    damping, system, seconds, refused = _FIRST_DAMPING, None, 0.0, 0
    with tqdm.tqdm(total=steps, disable=not progress, unit="step") as bar:
        while len(history) <= steps and (patience is None or refused < patience):
            step, began = len(history), time.perf_counter()
            if system is None:
                system = linearised(params, key=jax.random.fold_in(key, step))
            trial, held_out = jax.block_until_ready(attempted(params, system, damping))
            seconds += time.perf_counter() - began
            record = {
                "step": step,
                "loss": 0.5 * float(jnp.log(system.squared)),
                "damping": damping,
                "seconds": seconds,
            }
            if held_out < best_loss:
                params, best_loss, system, refused = trial, float(held_out), None, 0
                damping = max(damping * _SHRINKAGE, _SMALLEST_DAMPING)
                figures = {} if evaluate is None else evaluate(params)
            else:
                refused += 1
                damping *= _GROWTH
            history.append({**record, HELD_OUT: best_loss, **figures})
            if history[-1][choose] < smallest:
                best, smallest = params, history[-1][choose]
            bar.update()
            bar.set_postfix(held_out=f"{best_loss:.3g}")
    return best, tuple(history)


def check_pruned(model: nn.Module) -> models.MetaLRPINN:
    """The network, whose singular values are to be parameters.

    Raises:
        ValueError: if they are not.
    """
    if not isinstance(model, models.MetaLRPINN) or not models.is_pruned(model):
        raise ValueError(
            "singular values can only be adapted or dropped by themselves in an lrpinn "
            "whose hypernetwork is pruned"
        )
    return model


@functools.partial(jax.jit, static_argnames=("model", "points", "first_layer", "projected"))
def _linearised(model, params, problem, key, points, first_layer, projected):
    drawn = problems.sample_points(key, problem, points)
    return linearise(model, params, problem, drawn, first_layer, projected)


@functools.partial(jax.jit, static_argnames=("objective", "first_layer"))
def _attempted(objective, params, system, damping, task, key, first_layer):
    """Parameters after a step, and their held-out loss."""
    start, unravel = ravel_pytree(select(params, first_layer))
    change = jnp.where(jnp.isinf(damping), 0.0, damped_step(system, damping))
    trial = merge(params, unravel(start + change))
    return trial, objective(trial, task, key)[0]
