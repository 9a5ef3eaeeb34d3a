"""The rank of a network, chosen by the error that reducing it costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn import models, objectives
from meta_lrpinn.adapt.gauss_newton import check_pruned
from meta_lrpinn.objectives import Params
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.tasks import single_task

# Fractions are multiples of 1/16, so that bisection takes four residuals.
RESOLUTION = 16


def choose_rank(
    model: nn.Module,
    params: Params,
    problem: HelmholtzProblem,
    tolerance: float,
    *,
    points: int,
    key: jax.Array,
) -> tuple[models.MetaLRPINN, Params, dict[str, Any]]:
    """Keeps the smallest fraction of singular values that costs little.

    What it costs is measured by the relative strong residual, the output layer solved,
    at one set of points. Bisection takes for granted that it falls with the rank.

    Args:
        model: Pruned `MetaLRPINN`.
        params: Its parameters.
        problem: The problem.
        tolerance: Relative increase of the residual that is allowed.
        points: Collocation points, several times the number of features.
        key: Random key of the points.

    Returns:
        The reduced model and parameters, and a record: rank_fraction, its residual and
        full_rank_residual.

    Raises:
        ValueError: the network is not a pruned `MetaLRPINN`.
    """
    check_pruned(model)
    task = single_task(jax.tree.map(jnp.asarray, problem))
    objective = objectives.residual_objective(model, points)

    @functools.cache
    def residual(parts):
        kept = _without_smallest(model, params, parts / RESOLUTION)
        return float(jnp.exp(_loss(objective, kept, task, key)))

    allowed = (1 + tolerance) * residual(RESOLUTION)
    too_few, enough = 0, RESOLUTION
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if residual(middle) <= allowed:
            enough = middle
        else:
            too_few = middle
    fraction = enough / RESOLUTION
    reduced, kept = models.truncate(model, params, fraction=fraction)
    return reduced, kept, {
        "rank_fraction": fraction,
        "residual": residual(enough),
        "full_rank_residual": residual(RESOLUTION),
    }


def _without_smallest(
    model: models.MetaLRPINN, params: Params, fraction: float
) -> Params:
    """Parameters of the same shapes that give what `models.truncate` leaves.

    Singular values are zeroed, not removed, so that one program serves every rank.
    """
    _, truncated = models.truncate(model, params, fraction=fraction)

    def zeroed(sigma, kept):
        order = jnp.argsort(-jnp.abs(sigma))[: len(kept)]
        return jnp.zeros_like(sigma).at[order].set(sigma[order])

    embedding = jax.tree.map(zeroed, params["embedding"], truncated["embedding"])
    return {**params, "embedding": embedding}


@functools.partial(jax.jit, static_argnames="objective")
def _loss(objective, params, task, key):
    return objective(params, task, key)[0]
