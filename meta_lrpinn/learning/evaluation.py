"""What is watched during meta-training: figures of merit on held tasks."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import linen as nn

from meta_lrpinn import generators
from meta_lrpinn.learning import (
    adaptation,
    configs,
    objectives,
    output_layer,
    soap,
    task_sets,
    training,
)
from meta_lrpinn.learning.task_sets import Task
from meta_lrpinn.runtime.precision import double_precision

# Held tasks: their seeds, frequencies (Hz) and source positions never change, so that
# runs can be compared.
_HELD_SEED = 20_251_124
_HELD = (
    (3.0, 0.4), (4.0, 1.9), (5.0, 0.7), (5.0, 1.5), (6.0, 1.2), (8.0, 0.9), (10.0, 1.7)
)  # fmt: skip
_HELD_SIZE = 91
_HELD_POINTS = 2048
_QUADRATURE = (72, 72)
# Of the own output: one velocity at each of these settings, which networks of two cores
# can learn; errors after so many steps, of which the last decides.
_OWN_HELD = ((3.0, 0.4), (4.0, 1.9), (5.0, 0.7), (6.0, 1.2), (8.0, 0.9))
_OWN_STEPS = (0, 20, 50)


def held_tasks(
    distribution: configs.TaskDistribution,
    settings: Sequence[tuple[float, float]] = _HELD,
    velocities: int = 2,
) -> list[Task]:
    """Tasks that training never draws, by default two velocities at seven settings.

    Settings are frequencies (Hz) and source positions (km). Shapes and layer are those of
    the training tasks; with a layer the tasks hold the known wavefield. Leaves are NumPy's.
    """
    rng = np.random.default_rng(_HELD_SEED)
    size = min(max(_HELD_SIZE, distribution.smallest_size), distribution.largest_size)
    tasks = []
    for frequency, source_x in settings:
        seeds = (int(rng.integers(2**31)) for _ in range(velocities))
        shape, spacing = (size, size), distribution.spacing
        members = [generators.random_velocity(seed, shape, spacing) for seed in seeds]
        alike = task_sets.make_tasks(members, frequency, [source_x], distribution)
        if distribution.absorbing:
            alike = task_sets.with_scattered(alike, _HELD_POINTS, _HELD_SEED)
        tasks += alike
    return tasks


def make_evaluation(
    config: configs.MetaConfig,
    model: nn.Module,
    objective: objectives.Objective,
    metric: soap.Metric | None = None,
    progress: bool = False,
) -> training.Evaluation:
    """What is watched during training, first the figure that chooses the best.

    Of objectives of the own output it is what an initialisation is for, the network after
    adaptation to held tasks (`own_output_evaluation`), by the published optimiser where
    the losses are the published ones; of known wavefields it is the error of the Galerkin
    solution over the features (`galerkin_evaluation`).
    """
    if config.objective.learns_from_wavefields:
        return galerkin_evaluation(config.tasks, model, progress)
    steps = _OWN_STEPS[-1]
    if config.objective.name == "paper":
        optimiser = adaptation.make_optimiser(
            "adamw", 1e-3, "halved", steps, weight_decay=4e-5, clip_norm=None
        )
    else:
        name = "soap" if config.training.uses_soap else "adamw"
        rate = adaptation.default_rate(name, steps, metric)
        optimiser = adaptation.make_optimiser(name, rate, "cosine", steps)
    return own_output_evaluation(
        *(config.tasks, model, objective, _OWN_HELD, _OWN_STEPS, optimiser),
        metric=metric,
        progress=progress,
    )


def galerkin_evaluation(
    distribution: configs.TaskDistribution, model: nn.Module, progress: bool = False
) -> training.Evaluation:
    """Relative L2 error of the Galerkin solution over the features as they are.

    Without a step of adaptation, in double precision: features of many a network nearly
    depend on each other. The first figure is the mean over the held tasks (`error`).
    """
    tasks = held_tasks(distribution, _HELD)

    @jax.jit
    def error_of(params, task):
        return output_layer.galerkin_error(model, params, task, _QUADRATURE)

    def evaluate(params, step):
        del step
        with double_precision():
            params = _double(params)
            errors = [
                float(error_of(params, _double(task))) for task in _shown(tasks, progress)
            ]
        return {"error": float(np.mean(errors)), **_named(_HELD, errors)}

    return evaluate


def own_output_evaluation(
    distribution: configs.TaskDistribution,
    model: nn.Module,
    objective: objectives.Objective,
    settings: Sequence[tuple[float, float]] = _OWN_HELD,
    steps: Sequence[int] = _OWN_STEPS,
    optimiser: optax.GradientTransformation | None = None,
    metric: soap.Metric | None = None,
    progress: bool = False,
) -> training.Evaluation:
    """The network's own output after adaptation to held tasks.

    All parameters are adapted, the hypernetwork too. With an absorbing layer the figure
    is the relative L2 error; without one the problem has no unique solution to compare
    with, and it is the objective, at points that no step draws.

    Args:
        distribution, model, objective: Of the training tasks, and what the steps descend.
        settings: Frequencies (Hz) and source positions (km) of the held tasks.
        steps: Numbers of steps after which the figure is taken, in order.
        optimiser: Of the steps; by default AdamW, along a half cosine.
        metric: What SOAP begins with; None for nothing.
        progress: Show a progress bar over the tasks.

    Returns:
        `(params, step)` to the mean figure after the last number of steps (`error`, or
        `loss`), after the others (`error_0`, ...), and of each task after the last.
    """
    tasks = held_tasks(distribution, settings, velocities=1)
    if optimiser is None:
        rate = adaptation.default_rate("adamw", steps[-1])
        optimiser = adaptation.make_optimiser("adamw", rate, "cosine", steps[-1])
    figure = "error" if distribution.absorbing else "loss"
    key = jax.random.key(_HELD_SEED)
    held_out = jax.random.fold_in(key, adaptation.HELD_OUT_FOLD)

    def measure(params, task):
        if distribution.absorbing:
            return objectives.own_output_error(model, params, task)
        return objective(params, task, held_out)[0]

    @jax.jit
    def figures_of(params, task):
        state = params, soap.initial_state(optimiser, params, metric)
        figures = []
        for first, last in itertools.pairwise((0, *steps)):
            state, _ = adaptation.advance(
                *(objective, optimiser, False, state, task, key, first, last - first)
            )
            figures.append(measure(state[0], task))
        return jnp.stack(figures)

    def evaluate(params, step):
        del step
        rows = [np.asarray(figures_of(params, task)) for task in _shown(tasks, progress)]
        figures = np.asarray(rows, float)
        *others, last = map(float, figures.mean(axis=0))
        names = [f"{figure}_{number}" for number in steps[:-1]]
        named = dict(zip(names, others, strict=True))
        return {figure: last, **named, **_named(settings, figures[:, -1])}

    return evaluate


def _shown(tasks: Sequence[Task], progress: bool) -> Iterable[Task]:
    """The tasks, with a progress bar while they are gone through."""
    return tqdm.tqdm(
        tasks, disable=not progress, unit="task", desc="evaluation", leave=False
    )


def _named(
    settings: Sequence[tuple[float, float]], figures: Iterable[float]
) -> dict[str, float]:
    """Figures by the frequency and source position of their tasks."""
    return {
        f"{frequency:g}Hz_{source_x:g}km": float(value)
        for (frequency, source_x), value in zip(settings, figures, strict=True)
    }


def _double(tree: Any) -> Any:
    """Floating-point leaves in double precision; needs x64."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, complex if np.iscomplexobj(leaf) else float), tree
    )
