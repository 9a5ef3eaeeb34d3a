"""The metric of gradients, learned over tasks: the state in which SOAP begins.

Which directions of a network's parameters are steep is much alike for all tasks of a
distribution, as is a good start. SOAP finds out in some ten steps of every task; here it
is learned once. Kin: Park and Oliva (2019, Meta-Curvature), Flennerhag et al. (2020,
WarpGrad), which learn a preconditioner by gradients of the loss after adaptation; this
one is the mean over trajectories of what SOAP measures anyway.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from meta_lrpinn.learning import adaptation, soap
from meta_lrpinn.learning.objectives import Objective, Params
from meta_lrpinn.learning.tasks import Task
from meta_lrpinn.runtime.precision import full_precision


def measure_metric(
    objective: Objective,
    params: Params,
    tasks: Task,
    key: jax.Array,
    *,
    steps: int = 50,
    learning_rate: float = 6e-3,
) -> soap.Metric:
    """What the gradients of tasks are like while SOAP adapts a network to them.

    Mean G Gᵀ and Gᵀ G of each matrix over all steps of all tasks, their eigenvectors, and
    then, along the same trajectories, the mean squares of the gradients in that basis.
    Gradients are those that SOAP is given in adaptation, clipped at norm one.

    Args:
        objective: Loss of one task.
        params: Parameters to start from, nested dictionaries.
        tasks: Tasks, leaves (tasks, ...).
        key: Random key.
        steps: Steps of each task; the rate falls to zero at the last (cosine).
        learning_rate: Of the first step.

    Returns:
        The metric, in single precision.
    """
    measure = functools.partial(
        _mean_products, objective, params, tasks, key, steps, learning_rate
    )
    names, leaves = soap.array_names(params), jax.tree.leaves(params)
    none = tuple(tuple(jnp.eye(size) for size in _sides(leaf)) for leaf in leaves)
    spectra = [tuple(map(_spectrum, sides)) for _, sides in measure(none)]
    bases = tuple(tuple(vectors for _, vectors in pairs) for pairs in spectra)
    metric: dict[str, dict[str, jax.Array]] = {}
    for name, (second, _), pairs in zip(names, measure(bases), spectra, strict=True):
        metric[name] = {"second": second}
        for side, (values, vectors) in zip(soap.SIDES, pairs, strict=False):
            metric[name] |= {side: vectors, f"{side}_values": values}
    return metric


def _sides(leaf: jax.Array) -> tuple[int, ...]:
    return leaf.shape if leaf.ndim == 2 else ()


def _spectrum(side: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors, the largest first."""
    values, vectors = np.linalg.eigh(np.asarray(side, float))
    return jnp.asarray(values[::-1], "f4"), jnp.asarray(vectors[:, ::-1], "f4")


@functools.partial(jax.jit, static_argnames=("objective", "steps", "learning_rate"))
@full_precision
def _mean_products(objective, params, tasks, key, steps, learning_rate, bases):
    """Of each array the mean square in its basis, and the mean G Gᵀ and Gᵀ G."""
    optimiser = adaptation.make_optimiser("soap", learning_rate, "cosine", steps)
    clip = optax.clip_by_global_norm(1.0)

    def products(gradient: jax.Array, basis: tuple[jax.Array, ...]) -> Any:
        sides = (gradient @ gradient.T, gradient.T @ gradient) if basis else ()
        return soap.rotated(gradient, basis) ** 2, sides

    def of_task(totals, indexed):
        index, task = indexed
        own_key = jax.random.fold_in(key, index)

        def step(carry, number):
            params, state, totals = carry
            gradient, _ = jax.grad(objective, has_aux=True)(
                params, task, jax.random.fold_in(own_key, number)
            )
            gradient, _ = clip.update(gradient, clip.init(params))
            new = [
                products(leaf, basis)
                for leaf, basis in zip(jax.tree.leaves(gradient), bases, strict=True)
            ]
            totals = jax.tree.map(jnp.add, totals, new)
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state, totals), None

        start = (params, optimiser.init(params), totals)
        return jax.lax.scan(step, start, jnp.arange(steps))[0][-1], None

    leaves = jax.tree.leaves(params)
    zeros = jax.tree.map(
        jnp.zeros_like,
        [products(leaf, basis) for leaf, basis in zip(leaves, bases, strict=True)],
    )
    number = len(jax.tree.leaves(tasks)[0])
    totals, _ = jax.lax.scan(of_task, zeros, (jnp.arange(number), tasks))
    return jax.tree.map(lambda total: total / (number * steps), totals)
