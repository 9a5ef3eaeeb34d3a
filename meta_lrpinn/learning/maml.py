"""MAML, Meta-SGD and Reptile as pure functions of an objective and its tasks.

An objective maps `(params, task, key)` to a loss and a dictionary of scalars to report.
A task is any pytree; a batch of tasks is the same pytree with one more leading axis on
every leaf, (tasks, ...). The key is the objective's only randomness, so that the same
task with another key is the same problem at other points. Gradients follow Finn et al.
(2017); Cheng and Alkhalifah (2025) take support and query from different tasks. Inner
rates learned per layer follow Li et al. (2017, Meta-SGD) and Antoniou et al. (2019);
`reptile_gradient` follows Nichol et al. (2018).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from meta_lrpinn.learning.configs import check_inner_optimiser, check_task_axis
from meta_lrpinn.learning.soap import scale_by_soap

Params = Any
Task = Any
Scalars = dict[str, jax.Array]
Objective = Callable[[Params, Task, jax.Array], tuple[jax.Array, Scalars]]

# Under the root of Adam's second moment when it is differentiated: the root of a zero
# gradient has no derivative. Small against gradients above 1e-6.
_ROOT_EPSILON = 1e-12
# Logarithms of rates move so much faster than parameters.
_RATE_SPEED = 10.0


def number_of_tasks(tasks: Task) -> int:
    """Length of the leading axis that all leaves of a task batch share.

    Raises:
        ValueError: if there is no leaf, or the lengths differ.
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tasks)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            "every array of a task batch must have one leading task axis of the same "
            f"length, got leading axes {sorted(lengths)}"
        )
    return lengths.pop()[0]


def per_task_keys(key: jax.Array, number: int) -> jax.Array:
    """One key for each of `number` tasks; keys (number,) are returned as they are."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim == (1 if typed else 2):
        return key
    return jax.random.split(key, number)


def initial_log_rates(params: Params) -> Params:
    """Learned inner rates at their start: zero for each array, see `adapt`."""
    return jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), params)


def adapt(
    objective: Objective,
    params: Params,
    task: Task,
    key: jax.Array,
    *,
    steps: int,
    learning_rate: float,
    first_order: bool,
    optimiser: str = "sgd",
    clip_norm: float | None = None,
    log_rates: Params | None = None,
    rate_factors: Any = None,
) -> tuple[Params, jax.Array]:
    """Adapts parameters to one task by a few steps of SGD, Adam or SOAP.

    Args:
        objective: Loss to descend.
        params: Parameters to start from.
        task: One task.
        key: Random key; every step draws from its own.
        steps: Number of steps; with 0 the parameters come back as they are, for
            objectives that eliminate what is specific to a task exactly.
        learning_rate: Step length.
        first_order: Whether the gradient counts as a constant when the result is
            differentiated with respect to `params`.
        optimiser: "sgd", "adam" or "soap"; its moments start anew with every task.
            "soap" is of first order only: eigenvectors have no stable derivatives.
        clip_norm: Largest norm of a step's gradient; None does not clip.
        log_rates: A number r () for each array of `params`, whose step length is
            exp(10 r) times `learning_rate`: positive, and doubled by 70 updates of
            AdamW at 1e-3.
        rate_factors: Factors of the learning rate in a prefix of the tree of `params`;
            what has zero is not adapted. By default one everywhere.

    Returns:
        Adapted parameters, and the loss before each step, (steps,).

    Raises:
        ValueError: if the optimiser is unknown, or "soap" of second order.
    """
    check_inner_optimiser(optimiser, first_order)
    if steps == 0:
        return params, jnp.zeros((0,))
    factors = jax.tree.broadcast(1.0 if rate_factors is None else rate_factors, params)
    rates = jax.tree.map(lambda factor: learning_rate * factor, factors)
    if log_rates is not None:
        rates = jax.tree.map(
            lambda rate, log: rate * jnp.exp(_RATE_SPEED * log), rates, log_rates
        )
    descent = optax.identity()
    if clip_norm is not None:
        descent = optax.clip_by_global_norm(clip_norm)
    if optimiser == "adam":
        epsilon = 0.0 if first_order else _ROOT_EPSILON
        descent = optax.chain(descent, optax.scale_by_adam(eps_root=epsilon))
    elif optimiser == "soap":
        descent = optax.chain(descent, scale_by_soap())

    def descend(carry, key):
        params, state = carry
        (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, task, key)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        direction, state = descent.update(gradient, state)
        params = jax.tree.map(lambda p, d, rate: p - rate * d, params, direction, rates)
        return (params, state), loss

    start = (params, descent.init(params))
    (params, _), losses = jax.lax.scan(descend, start, jax.random.split(key, steps))
    return params, losses


def meta_loss(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    *,
    steps: int = 1,
    learning_rate: float = 2e-3,
    first_order: bool = True,
    same_task: bool = False,
    task_axis: str = "vmap",
    **inner,
) -> tuple[jax.Array, Scalars]:
    """Mean loss on the query tasks of parameters adapted to the support tasks.

    Args:
        objective: Loss, of both inner steps and query.
        params: Meta-parameters; with `learn_rates` a pair of them and of log rates.
        support: Batch of tasks to adapt to, leaves (tasks, ...).
        query: Batch of tasks that judge the result, leaves (tasks, ...).
        key: Random key, or one for each task, (tasks,).
        steps: Inner steps.
        learning_rate: Inner learning rate.
        first_order: See `adapt`.
        same_task: Whether the support tasks serve as query tasks too, at other points
            (standard MAML); `query` is then ignored.
        task_axis: "vmap" treats all tasks at once, "map" one after the other, in a
            fraction of the memory.
        **inner: `learn_rates`, whether `params` holds log rates; `optimiser`,
            `clip_norm` and `rate_factors` of `adapt`.

    Returns:
        The loss, and the objective's scalars averaged over the query tasks; with inner
        steps also `support_loss`, the mean loss before the first of them.

    Raises:
        ValueError: if task batches differ in length, or `task_axis` is unknown.
    """
    one = _one_task(
        objective,
        steps=steps,
        learning_rate=learning_rate,
        first_order=first_order,
        **inner,
    )
    batch = _batch(support, query, key, same_task)
    if check_task_axis(task_axis) == "vmap":
        losses, scalars = jax.vmap(one, (None, 0, 0, 0))(params, *batch)
    else:
        losses, scalars = jax.lax.map(lambda b: one(params, *b), batch)
    return _mean((losses, scalars))


def meta_gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    *,
    task_axis: str = "vmap",
    same_task: bool = False,
    **inner,
) -> tuple[tuple[jax.Array, Scalars], Params]:
    """Value and gradient of `meta_loss` with respect to the meta-parameters.

    Args:
        objective: As for `meta_loss`, and so are all other arguments.
        params: Meta-parameters.
        support: Batch of tasks, leaves (tasks, ...).
        query: Batch of tasks, leaves (tasks, ...).
        key: Random key, or one for each task, (tasks,).
        task_axis: With "map" the gradients are accumulated task by task, so that the
            memory is that of one task.
        same_task: See `meta_loss`.
        **inner: `steps`, `learning_rate`, `first_order` and the further options of
            `meta_loss`.

    Returns:
        ((loss, scalars), gradient), the gradient with the shape of `params`.

    Raises:
        ValueError: if task batches differ in length, or `task_axis` is unknown.
    """
    if check_task_axis(task_axis) == "vmap":
        return jax.value_and_grad(meta_loss, argnums=1, has_aux=True)(
            objective, params, support, query, key, same_task=same_task, **inner
        )

    def one(params, support, query, key):
        return meta_loss(objective, params, support, query, key[None], **inner)

    gradient = jax.value_and_grad(one, has_aux=True)
    batch = _batch(support, query, key, same_task)
    # One task, still as a batch of one.
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], batch[:2]) + batch[2:]
    shapes = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def accumulate(total, task):
        return jax.tree.map(jnp.add, total, gradient(params, *task)), None

    total, _ = jax.lax.scan(accumulate, zeros, batch)
    number = number_of_tasks(support)
    return jax.tree.map(lambda leaf: leaf / number, total)


def reptile_gradient(
    objective: Objective,
    params: Params,
    support: Task,
    query: Task,
    key: jax.Array,
    *,
    task_axis: str = "vmap",
    **inner,
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
        task_axis: See `meta_gradient`.
        **inner: `steps`, `learning_rate`, `optimiser`, `clip_norm`, `rate_factors`
            of `adapt`.

    Returns:
        ((loss, scalars), params − mean adapted); the loss before the last inner step,
        and as `support_loss` that before the first.

    Raises:
        ValueError: if `task_axis` is unknown.
    """
    del query

    def one(task, key):
        # Nothing is differentiated through the steps.
        adapted, losses = adapt(objective, params, task, key, first_order=True, **inner)
        change = jax.tree.map(jnp.subtract, params, adapted)
        return (losses[-1], {"support_loss": losses[0]}), change

    keys = per_task_keys(key, number_of_tasks(support))
    if check_task_axis(task_axis) == "vmap":
        return _mean(jax.vmap(one)(support, keys))
    return _mean(jax.lax.map(lambda batch: one(*batch), (support, keys)))


def _one_task(objective: Objective, learn_rates: bool = False, **inner) -> Callable:
    def loss(params, support, query, key):
        support_key, query_key = jax.random.split(key)
        log_rates = None
        if learn_rates:
            params, log_rates = params
        adapted, history = adapt(
            objective, params, support, support_key, log_rates=log_rates, **inner
        )
        value, scalars = objective(adapted, query, query_key)
        if inner["steps"]:
            scalars = {**scalars, "support_loss": history[0]}
        return value, scalars

    return loss


def _batch(
    support: Task, query: Task, key: jax.Array, same_task: bool
) -> tuple[Task, Task, jax.Array]:
    if same_task:
        query = support
    number = number_of_tasks(support)
    if number_of_tasks(query) != number:
        raise ValueError(
            "support and query must hold as many tasks as each other, got "
            f"{number} and {number_of_tasks(query)}"
        )
    return support, query, per_task_keys(key, number)


def _mean(batch: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), batch)
