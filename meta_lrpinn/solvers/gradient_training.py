"""The paper's meta-testing: AdamW on all parameters of a network, its own output."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.learning import adaptation, objectives, output_layer, soap
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers import network_features
from meta_lrpinn.solvers.protocol import Conditions, Prepared, Setup, keys_of
from meta_lrpinn.solvers.settings import GradientTraining

# What the settings leave to the loss. The published values are the paper's, but for the
# rate of SOAP; the other ones were measured, see `adaptation.default_rate`.
_DEFAULTS = {
    "relative": {"schedule": "cosine", "weight_decay": 0.0, "fixed_points": False},
    "published": {"schedule": "halved", "weight_decay": 4e-5, "fixed_points": True},
}
_PUBLISHED_RATES = {"adamw": 1e-3, "soap": 3e-3}
_PUBLISHED_PENALTY, _PUBLISHED_THICKNESS = 1.0, 0.0
_CLIP_NORM = 1.0  # of gradients of the relative loss
# Collocation points of a step: per shortest wavelength along each axis, and at most in
# all, which bounds the time of a step. Not tuned.
_POINTS_PER_WAVELENGTH, _MAXIMUM_POINTS = 6.0, 20_000


def prepare(settings: GradientTraining, setup: Setup) -> Prepared:
    """Trains for each velocity and source, every time from the network as it is given.

    Raises:
        ValueError: if there is no such network, or it is of another space dimension.
    """
    network = network_features.find_network(settings.network, setup)
    if setup.conditions.thickness is None and settings.loss == "published":
        conditions = dataclasses.replace(setup.conditions, thickness=_PUBLISHED_THICKNESS)
        setup = dataclasses.replace(setup, conditions=conditions)
    train = functools.partial(_train, network, settings, setup.conditions)
    return network_features.of_each_source(setup, network, train)


def _train(
    network: Network,
    settings: GradientTraining,
    conditions: Conditions,
    index: int,
    problem: HelmholtzProblem,
    error: network_features.Error | None,
) -> tuple[network_features.Values, network_features.History]:
    module, is_published = network.module, settings.loss == "published"
    if settings.output_start == "solved":
        weights = output_layer.solve(module, network.params, problem, double=True)
        network = network.with_parameters(output_layer.replace(network.params, weights))
    # Metrics are learned from gradients of the relative loss.
    optimiser = settings.optimiser
    has_metric = optimiser.name == "soap" and not is_published
    metric = network.metric if has_metric else None
    chosen = _chosen(settings, network, problem, metric)

    def evaluate(params):
        assert error is not None
        field = output_layer.OwnField(module, params, problem)
        return {"relative_l2": error(field(problem.model.grid_points()))}

    if is_published:
        penalty = settings.source_penalty
        penalty = _PUBLISHED_PENALTY if penalty is None else penalty
        objective = objectives.paper_objective(module, chosen["points"], penalty)
    else:
        objective = objectives.own_output_objective(module, chosen["points"])
    params, history = adaptation.finetune(
        objective,
        network.params,
        single_task(jax.tree.map(jnp.asarray, problem)),
        steps=optimiser.steps,
        optimiser=adaptation.make_optimiser(
            optimiser.name,
            chosen["learning_rate"],
            chosen["schedule"],
            optimiser.steps,
            weight_decay=chosen["weight_decay"],
            clip_norm=None if is_published else _CLIP_NORM,
            free_bases=network.has_free_bases,
        ),
        key=jax.random.fold_in(keys_of(conditions.seed)[1], index),
        fixed_points=chosen["fixed_points"],
        metric=metric,
        report_every=chosen["report_every"],
        patience=optimiser.patience,
        evaluate=None if error is None else evaluate,
        progress=conditions.progress,
    )
    if not settings.polish:
        return output_layer.OwnField(module, params, problem), history
    adapted = network.with_parameters(params)
    return network_features.solve_output(adapted, problem, is_double=True), history


def _chosen(
    settings: GradientTraining,
    network: Network,
    problem: HelmholtzProblem,
    metric: soap.Metric | None,
) -> dict[str, Any]:
    """The optimiser's fields that may be None, with what then follows in its place.

    Raises:
        ValueError: if the memory does not hold the features at the points of a step.
    """
    optimiser = settings.optimiser
    name, steps = optimiser.name, optimiser.steps
    if settings.loss == "published":
        rate = _PUBLISHED_RATES[name]
    else:
        rate = adaptation.default_rate(name, steps, metric)
    shape = weak_form.quadrature_shape(problem, _POINTS_PER_WAVELENGTH)
    chosen: dict[str, Any] = {
        "points": min(int(np.prod(shape)), _MAXIMUM_POINTS),
        "report_every": max(1, min(10, steps // 20)),
        "learning_rate": rate,
        **_DEFAULTS[settings.loss],
    }
    for key in chosen:
        if (value := getattr(optimiser, key)) is not None:
            chosen[key] = value
    check_memory(
        4.0 * chosen["points"] * network.number_of_features,
        f"features at {chosen['points']:,} points a step",
        "choose fewer points",
    )
    return chosen
