"""The paper's meta-testing: AdamW on all parameters of a network, its own output."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.learning import adaptation, objectives, output_layer
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import network_fields
from meta_lrpinn.solvers.protocol import Prepared, Setup, Solved, Truth
from meta_lrpinn.solvers.settings import AdamW, GradientTraining
from meta_lrpinn.wavefield import Statistics


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

    def solve(model: VelocityModel, truth: Truth | None = None) -> Solved:
        sources = []
        for index, problem in enumerate(setup.problems(model, network.layer_fraction)):
            key = jax.random.fold_in(setup.keys.points, index)
            distance = network_fields.distance_of(truth, model, index)
            progress = setup.conditions.progress
            sources.append(_train(network, problem, settings, distance, key, progress))
        return network_fields.join(setup, model, network, sources, truth)

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


def _own_field(network: Network, problem: HelmholtzProblem) -> network_fields.Values:
    """The field of the network's own output layer, for the problem's amplitude."""
    unit, factor = network_fields.split_amplitude(problem)
    field = output_layer.OwnField(network.module, network.params, unit)
    return network_fields.ScaledField(field, factor)


# Long: one value after the other, of a single call.
def _train(
    network: Network,
    problem: HelmholtzProblem,
    settings: GradientTraining,
    distance: network_fields.Distance | None,
    key: jax.Array,
    progress: bool,
) -> network_fields.SourceField:
    optimiser = settings.optimiser
    unit, _ = network_fields.split_amplitude(problem)
    if settings.output_start == "solved":
        weights = output_layer.solve(network.module, network.params, unit, double=True)
        network = network.with_parameters(output_layer.replace(network.params, weights))
    points = _points_per_step(network, problem, optimiser)

    def evaluate(params):
        assert distance is not None
        field = _own_field(network.with_parameters(params), problem)
        values = field(problem.model.grid_points())
        return network_fields.figures(values, distance)

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
        single_task(jax.tree.map(jnp.asarray, unit)),
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
        evaluate=None if distance is None else evaluate,
        progress=progress,
    )
    adapted = network.with_parameters(params)
    stats = Statistics(
        unknowns=adapted.number_of_features,
        rank=adapted.ranks,
        steps=history[-1]["step"] if history else 0,
    )
    if settings.polish:
        field = network_fields.solve_output(adapted, problem, is_double=True)
    else:
        field = _own_field(adapted, problem)
    return network_fields.SourceField(field, stats, history)


def _chosen(asked: Any, default: Any) -> Any:
    return default if asked is None else asked


def _objective(
    network: Network, settings: GradientTraining, points: int
) -> objectives.Objective:
    if settings.loss == "published":
        penalty = _chosen(settings.source_penalty, _FORMS["published"].source_penalty)
        return objectives.paper_objective(network.module, points, penalty)
    return objectives.own_output_objective(network.module, points)
