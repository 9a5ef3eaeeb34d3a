"""The rank that a tolerance of the residual picks, against trying every fraction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models
from meta_lrpinn.learning import objectives, rank_choice
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.velocity import VelocityModel

FREQUENCY, POINTS, KEY = 3.0, 200, jax.random.key(1)


@pytest.fixture(scope="module")
def all_problems():
    depth = np.linspace(1.6, 2.4, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    return [
        problems.make_problem(model, FREQUENCY, (x, 0.1), thickness=0.3) for x in (0.3, 0.6)
    ]


@pytest.fixture(scope="module")
def network():
    """Singular values that fall from 1 by factors of two, in no order, signs mixed."""
    model = models.make_meta_lrpinn(width=20, depth=2, rank=16, first_scale=5.0)
    params = models.initial_parameters(model, jax.random.key(0))
    model, params = models.prune_hypernetwork(model, params, FREQUENCY)
    rng = np.random.default_rng(0)

    def falling(sigma):
        values = 0.5 ** np.arange(len(sigma)) * rng.choice([-1, 1], len(sigma))
        return jnp.asarray(rng.permutation(values), sigma.dtype)

    return model, {**params, "embedding": jax.tree.map(falling, params["embedding"])}


def choose(network, all_problems, tolerance):
    return rank_choice.choose_rank(
        *network, all_problems, tolerance, points=POINTS, key=KEY
    )


def log_residual(model, params, problem):
    objective = objectives.residual_objective(model, POINTS)
    task = single_task(jax.tree.map(jnp.asarray, problem))
    return float(jax.jit(objective)(params, task, KEY)[0])


def test_smallest_rank_within_the_tolerance(network, all_problems):
    tolerance = 0.03
    model, params, record = choose(network, all_problems, tolerance)
    rank = model.network.rank[0]
    assert model.network.rank == (rank, rank) and 1 < rank < 16
    assert record["rank_fraction"] == rank / 16
    assert params["embedding"]["hidden_0"].shape == (rank,)

    def increase(number):
        reduced = models.truncate(*network, count=number)
        return np.expm1(
            max(
                log_residual(*reduced, one) - log_residual(*network, one)
                for one in all_problems
            )
        )

    assert increase(rank) <= tolerance < increase(rank - 1)
    np.testing.assert_allclose(record["increase"], increase(rank), atol=1e-3)


def test_more_tolerance_never_takes_more(network, all_problems):
    tolerances = (1e-9, 0.01, 0.1, 1.0, 1e9)
    fractions = [
        choose(network, all_problems[:1], tolerance)[2]["rank_fraction"]
        for tolerance in tolerances
    ]
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[-1] == 1 / rank_choice.RESOLUTION


def test_every_source_counts(network, all_problems):
    alone = [choose(network, [one], 0.1)[2]["rank_fraction"] for one in all_problems]
    together = choose(network, all_problems, 0.1)[2]["rank_fraction"]
    assert together == max(alone)


def test_what_is_tried_is_what_truncation_leaves(network, all_problems):
    """Zeros in place of what `models.truncate` removes give the same features."""
    zeroed = rank_choice._without_smallest(*network, 0.25)
    reduced = models.truncate(*network, fraction=0.25)
    points = jnp.asarray(all_problems[0].model.grid_points()[::9])
    values = [
        objectives.feature_function(model, params, all_problems[0])(points)
        for model, params in ((network[0], zeroed), reduced)
    ]
    np.testing.assert_allclose(*values, atol=1e-5)


def test_a_hypernetwork_is_refused(all_problems):
    model = models.make_meta_lrpinn(width=20, depth=2, rank=16)
    params = models.initial_parameters(model, jax.random.key(0))
    with pytest.raises(ValueError, match="whose hypernetwork is pruned"):
        choose((model, params), all_problems, 0.1)
