"""The rank of a network, chosen by the error that reducing it costs."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from meta_lrpinn import models
from meta_lrpinn.learning import objectives
from meta_lrpinn.learning.adaptation import objective_value
from meta_lrpinn.learning.gauss_newton import check_pruned
from meta_lrpinn.learning.objectives import Params
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.physics.problem import HelmholtzProblem

# Fractions are multiples of 1/16, so that bisection takes four residuals.
RESOLUTION = 16


def choose_rank(
    model: nn.Module,
    params: Params,
    all_problems: Sequence[HelmholtzProblem],
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
        all_problems: Problems of one frequency, of which each counts.
        tolerance: Relative increase of the residual that is allowed, above zero.
        points: Collocation points, several times the number of features.
        key: Random key of the points.

    Returns:
        The reduced model and parameters, and a record: rank_fraction, and the largest
        increase of any problem's residual, 0 at full rank.

    Raises:
        ValueError: if the network is not a pruned `MetaLRPINN`.
    """
    low_rank = check_pruned(model)
    tasks = [single_task(jax.tree.map(jnp.asarray, one)) for one in all_problems]
    objective = objectives.residual_objective(model, points)

    @functools.cache
    def log_residuals(parts):
        kept = _without_smallest(low_rank, params, parts / RESOLUTION)
        return np.array([objective_value(objective, kept, task, key) for task in tasks])

    def increase(parts):
        return float(np.expm1(np.max(log_residuals(parts) - log_residuals(RESOLUTION))))

    too_few, enough = 0, RESOLUTION
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if increase(middle) <= tolerance:
            enough = middle
        else:
            too_few = middle
    fraction = enough / RESOLUTION
    reduced, kept = models.truncate(low_rank, params, fraction=fraction)
    return reduced, kept, {"rank_fraction": fraction, "increase": increase(enough)}


def _without_smallest(model: models.MetaLRPINN, params: Params, fraction: float) -> Params:
    """Parameters of the same shapes that give what `models.truncate` leaves.

    Singular values are zeroed, not removed, so that one program serves every rank.
    """
    _, truncated = models.truncate(model, params, fraction=fraction)

    def zeroed(sigma, kept):
        order = jnp.argsort(-jnp.abs(sigma))[: len(kept)]
        return jnp.zeros_like(sigma).at[order].set(sigma[order])

    embedding = jax.tree.map(zeroed, params["embedding"], truncated["embedding"])
    return {**params, "embedding": embedding}
