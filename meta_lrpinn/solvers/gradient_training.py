"""The paper's meta-testing: AdamW on all parameters of a network, its own output."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.learning import adaptation, objectives, output_layer
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import network_fields
from meta_lrpinn.solvers.protocol import Distance, Prepared, Setup, Solved, keys_of
from meta_lrpinn.solvers.settings import AdamW, GradientTraining


@dataclasses.dataclass(frozen=True)
class _Form:
    """What goes with a loss where nothing else is asked for."""

    learning_rates: Mapping[str, float] | None  # by optimiser; None for the network's
    schedule: str
    weight_decay: float
    clip_norm: float | None
    fixed_points: bool
    source_penalty: float
    thickness: float | None  # of the absorbing layer [km]; None: the network's


# The published one is the paper's, but for the rate of SOAP; the other was measured.
_FORMS = {
    "relative": _Form(None, "cosine", 0.0, 1.0, False, 0.0, None),
    "published": _Form({"adamw": 1e-3, "soap": 3e-3}, "halved", 4e-5, None, True, 1.0, 0.0),
}
_POINTS_PER_WAVELENGTH = 6.0
_MAXIMUM_POINTS = 20_000


def prepare(settings: GradientTraining, setup: Setup) -> Prepared:
    """Trains for each velocity and source, every time from the network as it is given.

    Raises:
        ValueError: if there is no such network, or it is of another space dimension.
    """
    network = network_fields.find_network(settings.network, setup)
    conditions = setup.conditions
    if conditions.thickness is None:
        thickness = _FORMS[settings.loss].thickness
        conditions = dataclasses.replace(conditions, thickness=thickness)
        setup = dataclasses.replace(setup, conditions=conditions)

    def solve(model: VelocityModel, distance: Distance | None = None) -> Solved:
        solutions, (_, key) = [], keys_of(conditions.seed)
        problems = network_fields.unit_problems(setup, model, network)
        for index, problem in enumerate(problems):
            own_key = jax.random.fold_in(key, index)
            error = network_fields.distance_of_source(distance, setup, model, index)
            solutions.append(
                _train(network, problem, settings, error, own_key, conditions.progress)
            )
        return network_fields.join(setup, model, network, solutions, distance)

    return Prepared(setup, solve)


def collocation_number(problem: HelmholtzProblem) -> int:
    """Collocation points a step: six per shortest wavelength along each axis."""
    shape = weak_form.quadrature_shape(problem, _POINTS_PER_WAVELENGTH)
    return min(int(np.prod(shape)), _MAXIMUM_POINTS)


def _points_per_step(network: Network, problem: HelmholtzProblem, optimiser: AdamW) -> int:
    """Collocation points that are asked for, or those of `collocation_number`.

    Raises:
        ValueError: if the memory does not hold the features there.
    """
    points = optimiser.points or collocation_number(problem)
    check_memory(
        4.0 * points * network.number_of_features,
        f"features at {points:,} points a step",
        "choose fewer points",
    )
    return points


# Long: one value after the other, of a single call.
def _train(
    network: Network,
    problem: HelmholtzProblem,
    settings: GradientTraining,
    error: network_fields.SourceDistance | None,
    key: jax.Array,
    progress: bool,
) -> tuple[network_fields.Values, network_fields.History]:
    optimiser = settings.optimiser
    if settings.output_start == "solved":
        weights = output_layer.solve(network.module, network.params, problem, double=True)
        network = network.with_parameters(output_layer.replace(network.params, weights))
    points = _points_per_step(network, problem, optimiser)

    def evaluate(params):
        assert error is not None
        field = output_layer.OwnField(network.module, params, problem)
        return {"relative_l2": error(field(problem.model.grid_points()))}

    form, metric = _FORMS[settings.loss], None
    if settings.loss == "relative":  # whose gradients metrics are learned from
        metric = network.metric if optimiser.name == "soap" else None
    rates = form.learning_rates
    rate = (
        adaptation.default_rate(optimiser.name, optimiser.steps, metric)
        if rates is None
        else rates[optimiser.name]
    )
    params, history = adaptation.finetune(
        _objective(network, settings, points),
        network.params,
        single_task(jax.tree.map(jnp.asarray, problem)),
        steps=optimiser.steps,
        optimiser=adaptation.make_optimiser(
            optimiser.name,
            _chosen(optimiser.learning_rate, rate),
            _chosen(optimiser.schedule, form.schedule),
            optimiser.steps,
            weight_decay=_chosen(optimiser.weight_decay, form.weight_decay),
            clip_norm=form.clip_norm,
            free_bases=network.has_free_bases,
        ),
        key=key,
        fixed_points=_chosen(optimiser.fixed_points, form.fixed_points),
        metric=metric,
        report_every=optimiser.report_every or max(1, min(10, optimiser.steps // 20)),
        patience=optimiser.patience,
        evaluate=None if error is None else evaluate,
        progress=progress,
    )
    if settings.polish:
        adapted = network.with_parameters(params)
        field = network_fields.solve_output(adapted, problem, is_double=True)
    else:
        field = output_layer.OwnField(network.module, params, problem)
    return field, history


def _chosen(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def _objective(
    network: Network, settings: GradientTraining, points: int
) -> objectives.Objective:
    if settings.loss == "published":
        penalty = _chosen(settings.source_penalty, _FORMS["published"].source_penalty)
        return objectives.paper_objective(network.module, points, penalty)
    return objectives.own_output_objective(network.module, points)
