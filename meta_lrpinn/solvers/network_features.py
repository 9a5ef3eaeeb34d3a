"""Exact solves over the last hidden layer of a network, adapted first if asked for."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.learning import adaptation as descent
from meta_lrpinn.learning import gauss_newton, objectives, rank_choice
from meta_lrpinn.learning.networks import Network, load_network
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import exact
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import AdamW, GaussNewton, NetworkFeatures, NetworkLike
from meta_lrpinn.wavefield import Statistics

# By whether features are trained: those are nearly right, and larger steps first lose
# what they know.
_LEARNING_RATE = {
    "adamw": {True: 1e-3, False: 2e-3},
    "soap": {True: 1e-3, False: 2e-3},
}
_POINTS_PER_WAVELENGTH = 6.0
_MAXIMUM_POINTS = 20_000


def solve(request: Request, settings: NetworkFeatures) -> Solution:
    """Solves for each source in turn, every one from the network as it is given.

    Raises:
        ValueError: if there is no such network, or it is not what the settings need.
    """
    network = as_network(settings.network, request)
    posed = request.problems(network.layer_fraction)
    if settings.rank_tolerance is not None:
        network = _with_chosen_rank(network, posed, settings.rank_tolerance, request)
    outcomes = []
    for index, problem in enumerate(posed):
        distance = exact.distance_of(request, index)
        key = exact.key_of_source(request.keys.points, index)
        adapted, history = _adapt(
            network, problem, settings, distance, key, request.progress
        )
        field = _field(adapted, problem, settings)
        stats = Statistics(
            unknowns=adapted.number_of_features,
            rank=adapted.ranks,
            steps=history[-1]["step"] if history else 0,
        )
        outcomes.append(exact.outcome(field, problem, distance, history, stats))
    return exact.join(outcomes)


def as_network(given: NetworkLike, request: Request) -> Network:
    """The network that settings name.

    Raises:
        ValueError: if there is none, or it is of another space dimension.
    """
    return find_network(given, request.model.ndim, request.keys.network)


def find_network(given: NetworkLike, ndim: int, seed: Any) -> Network:
    """The network that settings name, or are; the seed is of random parameters.

    Raises:
        ValueError: if there is none, or it is of another space dimension.
    """
    if not isinstance(given, Network):
        return load_network(given, ndim=ndim, seed=seed)
    if given.ndim != ndim:
        raise ValueError(f"the network is {given.ndim}D, the model {ndim}D")
    return given


def collocation_number(problem: HelmholtzProblem) -> int:
    """Collocation points a step: six per shortest wavelength along each axis."""
    shape = weak_form.quadrature_shape(problem, _POINTS_PER_WAVELENGTH)
    return min(int(np.prod(shape)), _MAXIMUM_POINTS)


def points_per_step(
    network: Network, problem: HelmholtzProblem, adaptation: AdamW | GaussNewton
) -> int:
    """Collocation points that an adaptation asks for, or those of `collocation_number`.

    Raises:
        ValueError: if the memory does not hold the features there.
    """
    points = adaptation.points or collocation_number(problem)
    check_memory(
        4.0 * points * network.number_of_features,
        f"features at {points:,} points a step",
        "choose fewer points",
    )
    return points


def _field(
    network: Network, problem: HelmholtzProblem, settings: NetworkFeatures
) -> exact.Values:
    is_double = settings.precision == "double"
    return exact.solve_output(settings.output_layer, network, problem, is_double)


def _adapt(
    network: Network,
    problem: HelmholtzProblem,
    settings: NetworkFeatures,
    distance: exact.Distance | None,
    key: jax.Array,
    progress: bool,
) -> tuple[Network, tuple[dict[str, Any], ...]]:
    """The network adapted to one problem, and the history."""
    adaptation = settings.adaptation
    if adaptation is None:
        return network, ()
    unit, _ = exact.split_amplitude(problem)
    points = points_per_step(network, problem, adaptation)

    def evaluate(params):
        field = _field(network.with_parameters(params), problem, settings)
        return exact.figures(field(problem.model.grid_points()), distance)

    # The residual can fall while the error grows: the estimate of the error decides.
    common = {"evaluate": evaluate, "choose": exact.ESTIMATE, "progress": progress}
    if isinstance(adaptation, GaussNewton):
        params, history = gauss_newton.gauss_newton(
            network.module,
            network.params,
            unit,
            steps=adaptation.steps,
            points=points,
            key=key,
            patience=adaptation.patience,
            **common,
        )
    else:
        params, history = descent.finetune(
            objectives.residual_objective(network.module, points),
            network.params,
            single_task(jax.tree.map(jnp.asarray, unit)),
            steps=adaptation.steps,
            optimiser=_optimiser(network, adaptation),
            key=key,
            report_every=adaptation.report_every or max(1, adaptation.steps // 5),
            patience=adaptation.patience,
            **common,
        )
    return network.with_parameters(params), history


def _optimiser(network: Network, adaptation: AdamW):
    name, steps = adaptation.optimiser, adaptation.steps
    rate = adaptation.learning_rate or _LEARNING_RATE[name][network.is_trained]
    free = network.has_free_bases
    return descent.make_optimiser(name, rate, "cosine", steps, free_bases=free)


def _with_chosen_rank(
    network: Network,
    posed: list[HelmholtzProblem],
    tolerance: float,
    request: Request,
) -> Network:
    """The network at the lowest rank that costs no more than the tolerance."""
    module, params, _ = rank_choice.choose_rank(
        network.module,
        network.params,
        posed,
        tolerance,
        points=collocation_number(posed[0]),
        key=request.keys.rank,
    )
    return dataclasses.replace(network, module=module, params=params)
