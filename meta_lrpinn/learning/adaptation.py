"""Gradient adaptation of a network to one problem: AdamW or SOAP on any objective."""

import functools
import math
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tqdm

from meta_lrpinn import models
from meta_lrpinn.learning import soap
from meta_lrpinn.learning.objectives import Objective, Params, Scalars
from meta_lrpinn.learning.task_sets import Task

# Of a record: the loss at points that no step draws.
HELD_OUT = "held_out"
# Folded into the key for these points; no step has this number.
HELD_OUT_FOLD = 2**31 - 1

Evaluate = Callable[[Params], dict[str, float]]


def paper_schedule(learning_rate: float = 1e-3) -> optax.Schedule:
    """The paper's schedule of meta-testing: halved at steps 2,000, 4,000 and 8,000."""
    halvings = {2000: 0.5, 4000: 0.5, 8000: 0.5}
    return optax.piecewise_constant_schedule(learning_rate, halvings)


# Of the scaled residual, measured from `meta_lrpinn_reptile`. SOAP that begins with a
# metric bears longer steps, which pays in few of them: on five held tasks 50 steps of
# 1.2e-2 end at 34 %, those of 6e-3 at 38 %. After 300 of 6e-3 it is 12 % with a metric or
# without; of 1.2e-2 (and a first decay of 0.8) 14 %.
_RATE = {"adamw": 2e-3, "soap": 6e-3}
_RATE_WITH_METRIC, _FEW_STEPS = 1.2e-2, 100


def default_rate(name: str, steps: int, metric: soap.Metric | None = None) -> float:
    """Learning rate of the first of so many steps on the own output's scaled residual."""
    is_bold = metric is not None and steps <= _FEW_STEPS
    return _RATE_WITH_METRIC if is_bold else _RATE[name]


@functools.cache
def make_optimiser(
    name: str,
    learning_rate: float,
    schedule: str,
    steps: int,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    free_bases: bool = True,
) -> optax.GradientTransformation:
    """The optimiser of meta-testing.

    It is the same for the same arguments, so that what was compiled for it is used again.

    Args:
        name: "adamw" or "soap".
        learning_rate: Of the first step.
        schedule: "cosine", to zero at the last step, or "halved", see `paper_schedule`.
        steps: Number of steps.
        weight_decay: Fraction of the learning rate by which a step shrinks parameters.
        clip_norm: Largest norm of a gradient; None does not clip.
        free_bases: False leaves the bases U and V of low-rank layers as they are.
    """
    rate = {
        "cosine": optax.cosine_decay_schedule(learning_rate, max(steps, 1)),
        "halved": paper_schedule(learning_rate),
    }[schedule]
    descent = {"adamw": optax.scale_by_adam, "soap": soap.scale_by_soap}[name]
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    optimiser = optax.chain(
        clip,
        descent(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    if free_bases:
        return optimiser
    groups: dict[Hashable, Any] = {False: optimiser, True: optax.set_to_zero()}
    return optax.partition(groups, models.are_bases)


@functools.partial(jax.jit, static_argnames=("objective", "optimiser", "fixed_points"))
def advance(
    objective: Objective,
    optimiser: optax.GradientTransformation,
    fixed_points: bool,
    state: Any,
    task: Task,
    key: jax.Array,
    start: int | jax.Array,
    length: int | jax.Array,
) -> tuple[Any, tuple[jax.Array, Scalars]]:
    """Steps `start` to `start + length`; step i draws its points from `fold_in(key, i)`.

    The number of steps is no constant of the program, so that one compilation serves
    all, and a call for none of them serves to compile.

    Returns:
        The state, (params, state of the optimiser), and the mean loss and scalars.
    """

    def step(index, carry):
        (params, optimiser_state), totals = carry
        (loss, scalars), gradient = jax.value_and_grad(objective, has_aux=True)(
            params, task, jax.random.fold_in(key, 0 if fixed_points else index)
        )
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        totals = jax.tree.map(jnp.add, totals, (loss, scalars))
        return (optax.apply_updates(params, updates), optimiser_state), totals

    shapes = jax.eval_shape(objective, state[0], task, key)
    totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, totals = jax.lax.fori_loop(start, start + length, step, (state, totals))
    return state, jax.tree.map(lambda total: total / jnp.maximum(length, 1), totals)


def finetune(
    objective: Objective,
    params: Params,
    task: Task,
    *,
    steps: int,
    optimiser: optax.GradientTransformation,
    key: jax.Array,
    fixed_points: bool = False,
    metric: soap.Metric | None = None,
    report_every: int = 10,
    patience: int | None = None,
    evaluate: Evaluate | None = None,
    progress: bool = False,
) -> tuple[Params, tuple[dict[str, Any], ...]]:
    """Minimise an objective over all parameters, by default with new points at every step.

    The loss at points that no step draws decides which parameters are returned: those of
    the record where it was smallest, the initial ones included, so that adaptation never
    makes it worse.

    Args:
        objective, params, task: Loss to descend, parameters to start from, and one task.
        steps: Number of steps; 0 returns the parameters as they are.
        optimiser: Any optax optimiser.
        key: Random key, see `advance`.
        fixed_points: Take the points of the first step at every step.
        metric: What SOAP begins with, see `soap.initial_state`; None for nothing.
        report_every: Steps between records of the history.
        patience: Stop after so many records without a smaller held-out loss; None takes
            all steps.
        evaluate: Optional figures of merit of the parameters, added to each record;
            its time does not count.
        progress: Show a progress bar.

    Returns:
        Adapted parameters and the history: step, loss (mean since the last record),
        held_out loss, seconds without those of compilation, the objective's scalars,
        and what `evaluate` gives. A loss that is not finite is a FloatingPointError.
    """
    figures = {} if evaluate is None else evaluate(params)
    if not steps:
        return params, ({"step": 0, "seconds": 0.0, **figures},) if figures else ()
    held_out_key = jax.random.fold_in(key, HELD_OUT_FOLD)

    def held_out(params):
        return {HELD_OUT: float(_value(objective, params, task, held_out_key))}

    history = [{"step": 0, **held_out(params), "seconds": 0.0, **figures}]
    best, smallest = params, history[0][HELD_OUT]
    run = functools.partial(advance, objective, optimiser, fixed_points)
    state = (params, soap.initial_state(optimiser, params, metric))
    seconds, waited = 0.0, 0
    for _ in range(2):  # compile; the second time for a state that a program returned
        state, _ = run(state, task, key, 0, 0)
    with tqdm.tqdm(total=steps, disable=not progress, unit="step") as bar:
        for start in range(0, steps, report_every):
            length = min(report_every, steps - start)
            began = time.perf_counter()
            state, means = jax.block_until_ready(run(state, task, key, start, length))
            seconds += time.perf_counter() - began
            loss, scalars = jax.tree.map(float, means)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} after {start + length} steps; try a smaller "
                    "learning rate"
                )
            record = {"step": start + length, "loss": loss, **held_out(state[0])}
            record |= {"seconds": seconds, **scalars}
            record |= {} if evaluate is None else evaluate(state[0])
            history.append(record)
            waited += 1
            if record[HELD_OUT] < smallest:
                best, smallest, waited = state[0], record[HELD_OUT], 0
            bar.update(length)
            bar.set_postfix(loss=f"{loss:.3g}")
            if patience is not None and waited >= patience:
                break
    return best, tuple(history)


@functools.partial(jax.jit, static_argnames="objective")
def _value(objective: Objective, params: Params, task: Task, key: jax.Array) -> jax.Array:
    """Value () of an objective, without its scalars."""
    return objective(params, task, key)[0]
