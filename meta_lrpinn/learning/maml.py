"""MAML and Reptile as pure functions of an objective and its tasks.

An objective maps `(params, task, key)` to a loss and a dictionary of scalars to report.
A batch of tasks is a pytree of which every leaf has one more leading axis, (tasks, ...).
The key is the objective's only randomness, so that the same task with another key is the
same problem at other points. Gradients follow Finn et al. (2017); Cheng and Alkhalifah
(2025) take support and query from different tasks. The multi-step loss follows Antoniou
et al. (2019), Reptile Nichol et al. (2018).
"""

import chex
import jax
import jax.numpy as jnp
import optax

from meta_lrpinn.learning import soap
from meta_lrpinn.learning.configs import MAML, Algorithm, InnerSteps, MultiStepMAML, Reptile
from meta_lrpinn.learning.objectives import Objective, Params, Scalars
from meta_lrpinn.learning.task_sets import Task

# Under the root of Adam's second moment when it is differentiated: the root of a zero
# gradient has no derivative. Small against gradients above 1e-6.
_ROOT_EPSILON = 1e-12


def number_of_tasks(tasks: Task) -> int:
    """Length of the leading axis that all leaves of a task batch share."""
    leaves = jax.tree.leaves(tasks)
    chex.assert_equal_shape_prefix(leaves, 1)
    return len(leaves[0])


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
        objective, params, task: Loss to descend, parameters to start from, and one task.
        key: Random key; every step draws from its own.
        inner: The steps. "soap" is of first order only: eigenvectors have no stable
            derivatives.
        first_order: Whether the gradient counts as a constant when the result is
            differentiated with respect to `params`.
        metric: What SOAP begins with, see `soap.initial_state`; None for nothing.

    Returns:
        Adapted parameters, and the loss before each step, (steps,).
    """
    descent = _descent(inner, first_order)

    def descend(carry, key):
        params, state = carry
        (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, task, key)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        direction, state = descent.update(gradient, state)
        params = jax.tree.map(lambda p, d: p - inner.learning_rate * d, params, direction)
        return (params, state), loss

    start = params, soap.initial_state(descent, params, metric)
    keys = jax.random.split(key, inner.steps)
    (params, _), losses = jax.lax.scan(descend, start, keys)
    return params, losses


def query_steps(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    inner: InnerSteps,
    metric: soap.Metric | None = None,
) -> tuple[Params, jax.Array, tuple[jax.Array, Scalars]]:
    """What the query would do after every inner step, by the optimiser's state there.

    For the arguments see `adapt` and `gradient`; the key is of support and query.

    Returns:
        The sum of the steps, with the shape of `params` and the sign of a gradient; the
        loss of the support before each inner step, (steps,); and the objective of the
        query after the last one.
    """
    descent = _descent(inner, first_order=True)
    differentiate = jax.value_and_grad(objective, has_aux=True)

    def descend(carry, key):
        params, state, total = carry
        support_key, query_key = jax.random.split(key)
        (loss, _), gradient = differentiate(params, support, support_key)
        direction, state = descent.update(gradient, state)
        params = jax.tree.map(lambda p, d: p - inner.learning_rate * d, params, direction)
        judged, gradient = differentiate(params, query, query_key)
        direction, _ = descent.update(gradient, state)
        total = jax.tree.map(lambda t, d: t + inner.learning_rate * d, total, direction)
        return (params, state, total), (loss, judged)

    zeros = jax.tree.map(jnp.zeros_like, params)
    start = params, soap.initial_state(descent, params, metric), zeros
    keys = jax.random.split(key, inner.steps)
    (_, _, total), (losses, judged) = jax.lax.scan(descend, start, keys)
    return total, losses, jax.tree.map(lambda leaf: leaf[-1], judged)


def _descent(inner: InnerSteps, first_order: bool) -> optax.GradientTransformation:
    """The direction of the inner steps; to be differentiated unless of first order."""
    descent = optax.identity()
    if inner.clip_norm is not None:
        descent = optax.clip_by_global_norm(inner.clip_norm)
    if inner.optimiser == "adam":
        epsilon = 0.0 if first_order else _ROOT_EPSILON
        return optax.chain(descent, optax.scale_by_adam(eps_root=epsilon))
    if inner.optimiser == "soap":
        return optax.chain(descent, soap.scale_by_soap())
    return descent


def gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    keys: jax.Array,
    algorithm: Algorithm,
    task_axis: str = "vmap",
    metric: soap.Metric | None = None,
) -> tuple[tuple[jax.Array, Scalars], Params]:
    """Loss of an algorithm and its gradient, as means over the tasks of a batch.

    Args:
        objective: Loss, of both inner steps and query.
        params: Meta-parameters.
        support: Batch of tasks to adapt to, leaves (tasks, ...).
        query: Batch of tasks that judge the result, leaves (tasks, ...). Unless the
            algorithm draws them (`draws_query`), the support tasks serve, at other points.
        keys: A random key for each task, (tasks,).
        algorithm: With its inner steps; `JointTraining` has none.
        task_axis: "vmap" treats all tasks at once, "map" one after the other, in the
            memory of one.
        metric: What the inner steps of SOAP begin with; None for nothing.

    Returns:
        ((loss, scalars), gradient), the gradient with the shape of `params`. For MAML and
        joint training loss and scalars are the objective's on the query tasks. For
        Reptile the loss is that before the last inner step, and the gradient the way
        from the mean of the adapted parameters back to `params`: a step of one ends
        there, a shorter one on the way. For the multi-step loss they are those of
        `query_steps`. With inner steps the scalars hold
        `support_loss`, the loss before the first of them.
    """
    number = number_of_tasks(support)
    if not algorithm.draws_query:
        query = support
    chex.assert_equal(number_of_tasks(query), number)
    batch = support, query, keys

    def of_task(task):
        support, query, key = task
        if isinstance(algorithm, MultiStepMAML):
            total, losses, (loss, scalars) = query_steps(
                objective, params, support, query, key, algorithm.inner, metric
            )
            return (loss, {**scalars, "support_loss": losses[0]}), total
        if isinstance(algorithm, Reptile):
            # Nothing is differentiated through the steps.
            inner = algorithm.inner
            adapted, losses = adapt(objective, params, support, key, inner, metric=metric)
            way = jax.tree.map(jnp.subtract, params, adapted)
            return (losses[-1], {"support_loss": losses[0]}), way

        support_key, query_key = jax.random.split(key)

        def loss_of(params):
            if not isinstance(algorithm, MAML):
                return objective(params, query, query_key)
            adapted, losses = adapt(
                *(objective, params, support, support_key, algorithm.inner),
                first_order=algorithm.first_order,
                metric=metric,
            )
            loss, scalars = objective(adapted, query, query_key)
            return loss, {**scalars, "support_loss": losses[0]}

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    if task_axis == "vmap":
        each = jax.vmap(of_task)(batch)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)

    def accumulate(total, task):
        return jax.tree.map(jnp.add, total, of_task(task)), None

    shapes = jax.eval_shape(of_task, jax.tree.map(lambda leaf: leaf[0], batch))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = jax.lax.scan(accumulate, zeros, batch)
    return jax.tree.map(lambda leaf: leaf / number, total)
