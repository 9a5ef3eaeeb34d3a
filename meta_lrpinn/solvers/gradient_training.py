"""The paper's meta-testing: AdamW on all parameters of a network, its own output."""

import jax
import jax.numpy as jnp

from meta_lrpinn.learning import adaptation, objectives, output_layer
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.solvers import exact
from meta_lrpinn.solvers.network_features import as_network, points_per_step
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import GradientTraining
from meta_lrpinn.wavefield import Statistics

# By loss: the rate, and how it decays (AdamW's of the published loss are the paper's, the
# others were measured).
_LEARNING_RATE = {
    "adamw": {"relative": 2e-3, "published": 1e-3},
    "soap": {"relative": 6e-3, "published": 3e-3},
}
_SCHEDULE = {"relative": "cosine", "published": "paper"}


def solve(request: Request, settings: GradientTraining) -> Solution:
    """Trains for each source in turn, every time from the network as it is given.

    Raises:
        ValueError: if there is no such network, or it is not what the settings need.
    """
    network = as_network(settings.network, request)
    outcomes = []
    for index, problem in enumerate(request.problems(network.layer_fraction)):
        key = exact.key_of_source(request.keys.points, index)
        distance = exact.distance_of(request, index)
        outcomes.append(_train(network, problem, settings, distance, key, request.progress))
    return exact.join(outcomes)


def own_field(network: Network, problem: HelmholtzProblem) -> exact.Values:
    """The field of the network's own output layer, for the problem's amplitude."""
    unit, factor = exact.split_amplitude(problem)
    field = output_layer.OwnField(network.module, network.params, unit)
    return exact.ScaledField(field, factor)


def _train(network, problem, settings, distance, key, progress) -> exact.Outcome:
    adamw = settings.adamw
    unit, _ = exact.split_amplitude(problem)
    if settings.output_start == "solved":
        weights = output_layer.solve(
            "galerkin", network.module, network.params, unit, double=True
        )
        network = network.with_parameters(output_layer.replace(network.params, weights))
    points = points_per_step(network, problem, adamw)

    def evaluate(params):
        field = own_field(network.with_parameters(params), problem)
        return exact.figures(field(problem.model.grid_points()), distance)

    rate = adamw.learning_rate or _LEARNING_RATE[adamw.optimiser][settings.loss]
    params, history = adaptation.finetune(
        _objective(network, settings, points),
        network.params,
        single_task(jax.tree.map(jnp.asarray, unit)),
        steps=adamw.steps,
        optimiser=adaptation.make_optimiser(
            adamw.optimiser,
            rate,
            _SCHEDULE[settings.loss],
            adamw.steps,
            free_bases=network.has_free_bases,
        ),
        key=key,
        report_every=adamw.report_every or max(1, min(10, adamw.steps // 20)),
        patience=adamw.patience,
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
        field = exact.solve_output("galerkin", adapted, problem, is_double=True)
    else:
        field = own_field(adapted, problem)
    return exact.outcome(field, problem, distance, history, stats)


def _objective(
    network: Network, settings: GradientTraining, points: int
) -> objectives.Objective:
    if settings.loss == "published":
        return objectives.paper_objective(network.module, points, settings.source_penalty)
    return objectives.own_output_objective(network.module, points)
