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

    The means over all steps of all tasks, of gradients as SOAP is given them in
    adaptation, clipped at norm one.

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
    means = _mean_products(objective, params, tasks, key, steps, learning_rate)
    return {
        name: _spectra(mean) if isinstance(mean, tuple) else {"second": mean}
        for name, mean in zip(soap.array_names(params), means, strict=True)
    }


def _spectra(products: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """Eigenvalues and eigenvectors of both, the largest first."""
    spectra = {}
    for side, product in zip(soap.SIDES, products, strict=True):
        values, vectors = np.linalg.eigh(np.asarray(product, float))
        spectra[f"{side}_values"] = jnp.asarray(np.maximum(values[::-1], 0), "f4")
        spectra[side] = jnp.asarray(vectors[:, ::-1], "f4")
    return spectra


def _products(gradient: jax.Array) -> Any:
    """(G Gᵀ, Gᵀ G) of a matrix, the squares of any other array."""
    if gradient.ndim != 2:
        return gradient**2
    return gradient @ gradient.T, gradient.T @ gradient


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
@full_precision
def _mean_products(objective, params, tasks, key, steps, learning_rate):
    """Mean `_products` of each array's gradient, in the order of the tree's leaves."""
    optimiser = adaptation.make_optimiser("soap", learning_rate, "cosine", steps)
    clip = optax.clip_by_global_norm(1.0)

    def of_task(totals, indexed):
        index, task = indexed
        own_key = jax.random.fold_in(key, index)

        def step(carry, number):
            params, state, totals = carry
            gradient, _ = jax.grad(objective, has_aux=True)(
                params, task, jax.random.fold_in(own_key, number)
            )
            gradient, _ = clip.update(gradient, clip.init(params))
            new = list(map(_products, jax.tree.leaves(gradient)))
            totals = jax.tree.map(jnp.add, totals, new)
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state, totals), None

        start = (params, optimiser.init(params), totals)
        return jax.lax.scan(step, start, jnp.arange(steps))[0][-1], None

    leaves = jax.tree.leaves(params)
    zeros = jax.tree.map(jnp.zeros_like, list(map(_products, leaves)))
    number = len(jax.tree.leaves(tasks)[0])
    totals, _ = jax.lax.scan(of_task, zeros, (jnp.arange(number), tasks))
    return jax.tree.map(lambda total: total / (number * steps), totals)
