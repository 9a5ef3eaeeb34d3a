"""MAML and Reptile as pure functions of an objective and its tasks.

An objective maps `(params, task, key)` to a loss and a dictionary of scalars to report.
A task is any pytree; a batch of tasks is the same pytree with one more leading axis on
every leaf, (tasks, ...). The key is the objective's only randomness, so that the same
task with another key is the same problem at other points. Gradients follow Finn et al.
(2017); Cheng and Alkhalifah (2025) take support and query from different tasks.
`reptile_gradient` follows Nichol et al. (2018).
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from meta_lrpinn.learning import soap
from meta_lrpinn.learning.configs import (
    MAML,
    Algorithm,
    InnerSteps,
    JointTraining,
    Reptile,
)

Params = Any
Task = Any
Scalars = dict[str, jax.Array]
Objective = Callable[[Params, Task, jax.Array], tuple[jax.Array, Scalars]]

# Under the root of Adam's second moment when it is differentiated: the root of a zero
# gradient has no derivative. Small against gradients above 1e-6.
_ROOT_EPSILON = 1e-12


def number_of_tasks(tasks: Task) -> int:
    """Length of the leading axis that all leaves of a task batch share."""
    leaves = jax.tree.leaves(tasks)
    chex.assert_equal_shape_prefix(leaves, 1)
    return len(leaves[0])


def per_task_keys(key: jax.Array, number: int) -> jax.Array:
    """One key for each of `number` tasks; keys (number,) are returned as they are."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim == (1 if typed else 2):
        return key
    return jax.random.split(key, number)


def adapt(
    objective: Objective,
    params: Params,
    task: Task,
    key: jax.Array,
    inner: InnerSteps,
    *,
    first_order: bool = True,
    metric: soap.Metric | None = None,
) -> tuple[Params, jax.Array]:
    """Adapts parameters to one task by a few steps of SGD, Adam or SOAP.

    Args:
        objective: Loss to descend.
        params: Parameters to start from.
        task: One task.
        key: Random key; every step draws from its own.
        inner: The steps. "soap" is of first order only: eigenvectors have no stable
            derivatives.
        first_order: Whether the gradient counts as a constant when the result is
            differentiated with respect to `params`.
        metric: What SOAP begins with, see `soap.begin_with`; None for nothing.

    Returns:
        Adapted parameters, and the loss before each step, (steps,).
    """
    descent = optax.identity()
    if inner.clip_norm is not None:
        descent = optax.clip_by_global_norm(inner.clip_norm)
    if inner.optimiser == "adam":
        epsilon = 0.0 if first_order else _ROOT_EPSILON
        descent = optax.chain(descent, optax.scale_by_adam(eps_root=epsilon))
    elif inner.optimiser == "soap":
        descent = optax.chain(descent, soap.scale_by_soap())

    def descend(carry, key):
        params, state = carry
        (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, task, key)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        direction, state = descent.update(gradient, state)
        params = jax.tree.map(lambda p, d: p - inner.learning_rate * d, params, direction)
        return (params, state), loss

    state = descent.init(params)
    if metric is not None:
        state = soap.begin_with(state, params, metric)
    start = (params, state)
    keys = jax.random.split(key, inner.steps)
    (params, _), losses = jax.lax.scan(descend, start, keys)
    return params, losses


def meta_loss(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    algorithm: MAML | JointTraining,
    task_axis: str = "vmap",
    metric: soap.Metric | None = None,
) -> tuple[jax.Array, Scalars]:
    """Mean loss on the query tasks of parameters adapted to the support tasks.

    Args:
        objective: Loss, of both inner steps and query.
        params: Meta-parameters.
        support: Batch of tasks to adapt to, leaves (tasks, ...).
        query: Batch of tasks that judge the result, leaves (tasks, ...). Unless the
            algorithm draws them (`draws_query`), the support tasks serve, at other points.
        key: Random key, or one for each task, (tasks,).
        algorithm: With its inner steps; `JointTraining` has none.
        task_axis: "vmap" treats all tasks at once, "map" one after the other, in a
            fraction of the memory.
        metric: What the inner steps of SOAP begin with.

    Returns:
        The loss, and the objective's scalars averaged over the query tasks; with inner
        steps also `support_loss`, the mean loss before the first of them.
    """

    def of_task(support, query, key):
        support_key, query_key = jax.random.split(key)
        if not isinstance(algorithm, MAML):
            return objective(params, query, query_key)
        adapted, history = adapt(
            *(objective, params, support, support_key, algorithm.inner),
            first_order=algorithm.first_order,
            metric=metric,
        )
        value, scalars = objective(adapted, query, query_key)
        return value, {**scalars, "support_loss": history[0]}

    batch = _batch(support, query, key, algorithm)
    if task_axis == "vmap":
        return _mean(jax.vmap(of_task)(*batch))
    return _mean(jax.lax.map(lambda of_one: of_task(*of_one), batch))


def meta_gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    algorithm: MAML | JointTraining,
    task_axis: str = "vmap",
    metric: soap.Metric | None = None,
) -> tuple[tuple[jax.Array, Scalars], Params]:
    """Value and gradient of `meta_loss` with respect to the meta-parameters.

    Args:
        objective: Loss, of both inner steps and query.
        params: Meta-parameters.
        support: Batch of tasks, leaves (tasks, ...).
        query: Batch of tasks, leaves (tasks, ...).
        key: Random key, or one for each task, (tasks,).
        algorithm: See `meta_loss`.
        task_axis: With "map" the gradients are accumulated task by task, so that the
            memory is that of one task.
        metric: What the inner steps of SOAP begin with.

    Returns:
        ((loss, scalars), gradient), the gradient with the shape of `params`.
    """
    of_loss = jax.value_and_grad(meta_loss, argnums=1, has_aux=True)
    if task_axis == "vmap":
        batch = support, query, key
        return of_loss(objective, params, *batch, algorithm, metric=metric)

    batch = _batch(support, query, key, algorithm)
    # One task, still as a batch of one.
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], batch)

    def of_task(task):
        return of_loss(objective, params, *task, algorithm, metric=metric)

    shapes = jax.eval_shape(of_task, jax.tree.map(lambda leaf: leaf[0], batch))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def accumulate(total, task):
        return jax.tree.map(jnp.add, total, of_task(task)), None

    total, _ = jax.lax.scan(accumulate, zeros, batch)
    number = number_of_tasks(support)
    return jax.tree.map(lambda leaf: leaf / number, total)


def reptile_gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    algorithm: Reptile,
    task_axis: str = "vmap",
    metric: soap.Metric | None = None,
) -> tuple[tuple[jax.Array, Scalars], Params]:
    """From parameters adapted to the tasks back to the meta-parameters, as a gradient.

    A step of one along it ends at the mean of the adapted parameters, a shorter one on
    the way there (Nichol et al. 2018).

    Args:
        objective: Loss that the inner steps descend.
        params: Meta-parameters.
        support: Batch of tasks to adapt to, leaves (tasks, ...).
        query: Not used; here so that the call is `meta_gradient`'s.
        key: Random key, or one for each task, (tasks,).
        algorithm: Whose inner steps adapt the parameters.
        task_axis: See `meta_gradient`.
        metric: What the inner steps of SOAP begin with.

    Returns:
        ((loss, scalars), params − mean adapted); the loss before the last inner step,
        and as `support_loss` that before the first.
    """
    del query

    def of_task(task, key):
        # Nothing is differentiated through the steps.
        adapted, losses = adapt(
            objective, params, task, key, algorithm.inner, metric=metric
        )
        change = jax.tree.map(jnp.subtract, params, adapted)
        return (losses[-1], {"support_loss": losses[0]}), change

    keys = per_task_keys(key, number_of_tasks(support))
    if task_axis == "vmap":
        return _mean(jax.vmap(of_task)(support, keys))
    return _mean(jax.lax.map(lambda batch: of_task(*batch), (support, keys)))


def gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    algorithm: Algorithm,
    task_axis: str = "vmap",
    metric: soap.Metric | None = None,
) -> tuple[tuple[jax.Array, Scalars], Params]:
    """`reptile_gradient` for Reptile, `meta_gradient` for all others."""
    batch = support, query, key
    if isinstance(algorithm, Reptile):
        return reptile_gradient(objective, params, *batch, algorithm, task_axis, metric)
    return meta_gradient(objective, params, *batch, algorithm, task_axis, metric)


def _batch(
    support: Task, query: Task, key: jax.Array, algorithm: MAML | JointTraining
) -> tuple[Task, Task, jax.Array]:
    if not algorithm.draws_query:
        query = support
    number = number_of_tasks(support)
    chex.assert_equal(number_of_tasks(query), number)
    return support, query, per_task_keys(key, number)


def _mean(batch: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), batch)
