"""Gradient adaptation of a network to one problem: AdamW on any objective."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tqdm

from meta_lrpinn.objectives import Objective, Params
from meta_lrpinn.tasks import Task

# The paper halves its rate of 1e-3 at these steps of meta-testing.
PAPER_BOUNDARIES = (2000, 4000, 8000)

Evaluate = Callable[[Params], dict[str, float]]


def paper_schedule(learning_rate: float = 1e-3) -> optax.Schedule:
    """The paper's schedule of meta-testing: halved at steps 2,000, 4,000 and 8,000."""
    return optax.piecewise_constant_schedule(
        learning_rate, {boundary: 0.5 for boundary in PAPER_BOUNDARIES}
    )


@functools.partial(jax.jit, static_argnames=("objective", "optimiser", "length"))
def _advance(objective, optimiser, state, task, key, start, length):
    """`length` steps in one scan; returns the state and the mean loss and scalars."""

    def step(state, index):
        params, optimiser_state = state
        (loss, scalars), gradient = jax.value_and_grad(objective, has_aux=True)(
            params, task, jax.random.fold_in(key, index)
        )
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        return (optax.apply_updates(params, updates), optimiser_state), (loss, scalars)

    state, reports = jax.lax.scan(step, state, start + jnp.arange(length))
    return state, jax.tree.map(jnp.mean, reports)


def finetune(
    objective: Objective,
    params: Params,
    task: Task,
    *,
    steps: int,
    optimiser: optax.GradientTransformation,
    key: jax.Array,
    report_every: int = 10,
    evaluate: Evaluate | None = None,
    progress: bool = False,
) -> tuple[Params, tuple[dict[str, Any], ...]]:
    """Minimise an objective over all parameters, with new points at every step.

    Args:
        objective: From `meta_lrpinn.objectives`.
        params: Parameters to start from.
        task: The task, usually of one velocity.
        steps: Number of steps; 0 returns the parameters as they are.
        optimiser: Any optax optimiser.
        key: Random key; step i draws its points from `fold_in(key, i)`.
        report_every: Steps between records of the history.
        evaluate: Optional figures of merit of the parameters, added to each record;
            its time does not count.
        progress: Show a progress bar.

    Returns:
        Adapted parameters and the history: step, loss (mean since the last record),
        seconds, the objective's scalars, and what `evaluate` gives.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    history = []
    if evaluate is not None:
        history.append({"step": 0, "seconds": 0.0, **evaluate(params)})
    state, seconds = (params, optimiser.init(params)), 0.0
    with tqdm.tqdm(total=steps, disable=not progress, unit="step") as bar:
        for start in range(0, steps, report_every):
            length = min(report_every, steps - start)
            began = time.perf_counter()
            state, (loss, scalars) = jax.block_until_ready(
                _advance(objective, optimiser, state, task, key, start, length)
            )
            seconds += time.perf_counter() - began
            if not jnp.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {float(loss)} after {start + length} steps; try a "
                    "smaller learning rate"
                )
            record = {"step": start + length, "loss": float(loss), "seconds": seconds}
            record |= {name: float(value) for name, value in scalars.items()}
            if evaluate is not None:
                record |= evaluate(state[0])
            history.append(record)
            bar.update(length)
            bar.set_postfix(loss=f"{float(loss):.3g}")
    return state[0], tuple(history)
