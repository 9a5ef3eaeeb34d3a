"""SOAP, Adam in the eigenbasis of Shampoo's preconditioner, and what it begins with.

Vyas et al. (2024), arXiv 2409.11321, algorithm 3; what it brings to physics-informed
networks is in Wang et al. (2025), arXiv 2502.00604.

Which directions of a network's parameters are steep is much alike for all tasks of a
distribution, as is a good start. SOAP finds out in some ten steps of every task; a
`Metric`, the mean over trajectories of what SOAP measures anyway, is learned once. Kin:
Park and Oliva (2019, Meta-Curvature), Flennerhag et al. (2020, WarpGrad), which learn a
preconditioner by gradients of the loss after adaptation.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from meta_lrpinn.learning.objectives import Objective, Params
from meta_lrpinn.learning.task_sets import Task
from meta_lrpinn.runtime.precision import full_precision

# Of all means, over some ten steps: adaptation takes hundreds at most, at ever new points.
# Measured from `meta_lrpinn_reptile`, as all that follows, on the layered model at 5 Hz,
# with new bases every fifth step: error after 300 steps 7.7 % with 0.9, 8.6 % with 0.8,
# 8.3 % with 0.95; after 50 steps 36, 31 and 43 %.
_DECAY = 0.9
_EPSILON = 1e-8
# Steps between new bases. Every step costs a quarter more than every fifth at 576 points;
# the error after 50 steps is 33 % with two and 36 % with five.
_RENEW_EVERY = 2
# Largest norm of the gradients that a metric is measured of, as in adaptation.
_CLIP_NORM = 1.0

# What the gradients of other tasks were like, by the arrays' names in the tree of
# parameters ("network.last.kernel"): of a matrix the eigenvalues (m,), (n,) and
# eigenvectors (m, m), (n, n), in columns, of its mean G Gᵀ (`left_values`, `left`) and
# Gᵀ G (`right_values`, `right`); of any other array the mean square `second`.
Metric = Mapping[str, Mapping[str, jax.Array]]
# Steps that a learned state counts as: so many that its means need no correction.
_LEARNED_COUNT = 1000
# Of a matrix: of G Gᵀ and of Gᵀ G.
SIDES = ("left", "right")


class Moments(NamedTuple):
    """What is remembered of one array; `sides` and `bases` are empty but for matrices."""

    first: jax.Array  # mean gradient, of the array's shape
    second: jax.Array  # mean squared gradient in the eigenbasis
    sides: tuple[jax.Array, ...]  # mean G Gᵀ (m, m) and Gᵀ G (n, n) of a matrix (m, n)
    bases: tuple[jax.Array, ...]  # their eigenvectors, in columns


class SoapState(NamedTuple):
    """State of `scale_by_soap`."""

    count: jax.Array  # () int32, steps done
    moments: tuple[Moments, ...]  # of each array, in the order of the tree's leaves


def scale_by_soap() -> optax.GradientTransformation:
    """Gradients over the root of their mean square, in the basis where they are simplest.

    Matrices are rotated by the eigenvectors of their mean G Gᵀ and Gᵀ G, and rotated
    back; arrays of other dimensions are treated as by Adam. The first gradient gives the
    first bases and no step. From then on bases follow by orthogonal iteration, always
    after the step: in a basis made from the very gradient, the error after 50 steps is
    80 % instead of 33 %. There is no learning rate, sign or weight decay.
    """

    def init(params: Any) -> SoapState:
        moments = tuple(map(_no_moments, jax.tree.leaves(params)))
        return SoapState(jnp.zeros((), jnp.int32), moments)

    def update(updates: Any, state: Any, params: Any = None):
        del params
        gradients, structure = jax.tree.flatten(updates)
        pairs = zip(state.moments, gradients, strict=True)
        steps = [_step(old, gradient, state.count) for old, gradient in pairs]
        directions, moments = zip(*steps, strict=True)
        state = SoapState(state.count + 1, moments)
        return jax.tree.unflatten(structure, directions), state

    return optax.GradientTransformation(init, update)


def initial_state(
    optimiser: optax.GradientTransformation, params: Params, metric: Metric | None = None
) -> Any:
    """An optimiser's state before the first step, in which SOAP begins with the metric.

    The mean gradient is zero, so that the first steps are short. Without `scale_by_soap`
    in the optimiser the metric has no effect; learned on another network than that of the
    parameters, nested dictionaries, it is a ValueError.
    """
    state = optimiser.init(params)
    if metric is None:
        return state
    names = array_names(params)
    moments = {name: _learned_moments(array) for name, array in metric.items()}
    shapes = dict(zip(names, map(jnp.shape, jax.tree.leaves(params)), strict=True))
    if shapes != {name: moment.second.shape for name, moment in moments.items()}:
        raise ValueError("the metric was learned on another network")
    count = jnp.asarray(_LEARNED_COUNT, jnp.int32)
    learned = SoapState(count, tuple(moments[name] for name in names))

    return jax.tree.map(
        lambda part: learned if isinstance(part, SoapState) else part,
        state,
        is_leaf=lambda part: isinstance(part, SoapState),
    )


def measure_metric(
    objective: Objective,
    params: Params,
    tasks: Task,
    key: jax.Array,
    *,
    steps: int = 50,
    learning_rate: float = 6e-3,
) -> Metric:
    """What the gradients of tasks are like while SOAP adapts a network to them.

    The means, in single precision, over all steps of all tasks, of gradients as SOAP is
    given them in adaptation, clipped at norm one.

    Args:
        objective, params: Loss of one task; parameters to start from, nested dictionaries.
        tasks: Tasks, leaves (tasks, ...).
        key: Random key.
        steps: Steps of each task; the rate falls to zero at the last (cosine).
        learning_rate: Of the first step.
    """
    means = _mean_products(objective, params, tasks, key, steps, learning_rate)
    return {
        name: _spectra(mean) if isinstance(mean, tuple) else {"second": mean}
        for name, mean in zip(array_names(params), means, strict=True)
    }


def array_names(params: Any) -> list[str]:
    """Dotted names of a tree's arrays, in the order of its leaves."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]


@full_precision
def _learned_moments(learned: Mapping[str, jax.Array]) -> Moments:
    if "second" in learned:
        second = jnp.asarray(learned["second"])
        return Moments(jnp.zeros_like(second), second, (), ())
    bases = tuple(jnp.asarray(learned[side]) for side in SIDES)
    values = tuple(jnp.asarray(learned[f"{side}_values"]) for side in SIDES)
    # The matrix of rank one with these sums over rows and columns. Mean squares measured
    # in the basis end no lower (39.0 % after 50 steps), and take a second pass.
    second = values[0][:, None] * values[1] / jnp.maximum(jnp.sum(values[0]), _EPSILON**2)
    sides = tuple((b * v) @ b.T for b, v in zip(bases, values, strict=True))
    return Moments(jnp.zeros_like(second), second, sides, bases)


def _no_moments(leaf: jax.Array) -> Moments:
    zeros = jnp.zeros_like(leaf)
    bases = [jnp.eye(n, dtype=leaf.dtype) for n in leaf.shape if leaf.ndim == 2]
    return Moments(zeros, zeros, tuple(map(jnp.zeros_like, bases)), tuple(bases))


@full_precision
def _step(old: Moments, gradient: jax.Array, count: jax.Array) -> tuple[jax.Array, Moments]:
    """The direction for a gradient after `count` others, and what is remembered then."""
    is_later = count > 0
    first = jnp.where(is_later, _mean(old.first, gradient), 0)
    turned = _rotated(gradient, old.bases)
    second = jnp.where(is_later, _mean(old.second, turned**2), 0)
    # Of means that began at zero.
    unbiased = jnp.where(is_later, 1 - _DECAY**count, 1)
    scale = jnp.sqrt(second / unbiased) + _EPSILON
    direction = _rotated(first, old.bases) / unbiased / scale
    direction = _rotated(direction, tuple(basis.T for basis in old.bases))
    sides, bases = old.sides, old.bases
    if sides:
        sides = jax.tree.map(_mean, sides, _products(gradient))
        due = jnp.where(is_later, 2 * (count % _RENEW_EVERY == 0), 1)
        kept_or_new = (lambda s, b: b, _eigenvectors, _orthogonal_iteration)
        bases = jax.lax.switch(due, kept_or_new, sides, bases)
    return direction, Moments(first, second, sides, bases)


def _mean(old: jax.Array, new: jax.Array) -> jax.Array:
    return _DECAY * old + (1 - _DECAY) * new


def _rotated(array: jax.Array, bases: tuple[jax.Array, ...]) -> jax.Array:
    """Into the bases of both sides; arrays without bases stay as they are."""
    if not bases:
        return array
    left, right = bases
    return left.T @ array @ right


def _eigenvectors(sides, bases):
    del bases
    # The largest first, as orthogonal iteration has them.
    return tuple(jnp.linalg.eigh(side)[1][:, ::-1] for side in sides)


def _orthogonal_iteration(sides, bases):
    return tuple(
        jnp.linalg.qr(side @ basis)[0] for side, basis in zip(sides, bases, strict=True)
    )


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
@full_precision
def _mean_products(objective, params, tasks, key, steps, learning_rate):
    """Mean `_products` of each array's gradient, in the order of the tree's leaves."""
    rate = optax.cosine_decay_schedule(learning_rate, steps)
    clip = optax.clip_by_global_norm(_CLIP_NORM)
    descent = optax.chain(scale_by_soap(), optax.scale_by_learning_rate(rate))

    def of_task(totals, indexed):
        index, task = indexed
        task_key = jax.random.fold_in(key, index)

        def step(carry, number):
            params, state, totals = carry
            gradient, _ = jax.grad(objective, has_aux=True)(
                params, task, jax.random.fold_in(task_key, number)
            )
            gradient, _ = clip.update(gradient, clip.init(params))
            new = list(map(_products, jax.tree.leaves(gradient)))
            totals = jax.tree.map(jnp.add, totals, new)
            updates, state = descent.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state, totals), None

        start = (params, descent.init(params), totals)
        return jax.lax.scan(step, start, jnp.arange(steps))[0][-1], None

    leaves = jax.tree.leaves(params)
    zeros = jax.tree.map(jnp.zeros_like, list(map(_products, leaves)))
    number = len(jax.tree.leaves(tasks)[0])
    totals, _ = jax.lax.scan(of_task, zeros, (jnp.arange(number), tasks))
    return jax.tree.map(lambda total: total / (number * steps), totals)


def _products(gradient: jax.Array) -> Any:
    """(G Gᵀ, Gᵀ G) of a matrix, the squares of any other array."""
    if gradient.ndim != 2:
        return gradient**2
    return gradient @ gradient.T, gradient.T @ gradient


def _spectra(products: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """Eigenvalues and eigenvectors of both, the largest first."""
    spectra = {}
    for side, product in zip(SIDES, products, strict=True):
        values, vectors = np.linalg.eigh(np.asarray(product, float))
        spectra[f"{side}_values"] = jnp.asarray(np.maximum(values[::-1], 0), "f4")
        spectra[side] = jnp.asarray(vectors[:, ::-1], "f4")
    return spectra
