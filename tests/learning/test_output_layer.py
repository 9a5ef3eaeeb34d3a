"""The output layer solved for leading parts of features, against each part alone."""

import chex
import jax
import numpy as np
import pytest

from experiments import random_waves
from meta_lrpinn import models
from meta_lrpinn.learning import output_layer
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

WIDTH = 24


@pytest.fixture(scope="module")
def problem():
    depth = np.linspace(1.6, 2.6, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    return make_problem(model, 4.0, (0.3, 0.1), thickness=0.4, layer_fraction=1.0)


@pytest.fixture(scope="module")
def network():
    model = models.make_meta_lrpinn(
        width=16,
        depth=1,
        rank=4,
        last_width=WIDTH,
    )
    return model, models.initial_parameters(model, jax.random.key(1))


def test_leading_parts_are_what_the_smaller_networks_give(network, problem):
    shares = (1.0, 0.5)  # in any order
    nested = output_layer.solve_nested(*network, problem, shares, double=True)
    chex.assert_shape(nested, (WIDTH, 2))
    assert nested.dtype == np.complex128
    for weights, size in zip(np.asarray(nested).T, (24, 12), strict=True):
        smaller = models.leading_features(*network, size)
        alone = output_layer.solve(*smaller, problem, double=True)
        np.testing.assert_allclose(weights[:size], alone, rtol=1e-5)
        assert np.all(weights[:size] != 0) and np.all(weights[size:] == 0)
    # Not a part of the weights of all: features do depend on each other.
    assert not np.allclose(nested[:12, 0], nested[:12, 1], rtol=0.1)


def test_single_precision_where_features_nearly_depend_on_each_other(problem):
    """Twice as many waves as the problem has modes."""
    waves = random_waves.PlaneWaves(ndim=2, number=300)
    params = random_waves.plane_wave_parameters(jax.random.key(0), 300, 20.0, 2)
    points = problem.model.grid_points()
    fields = []
    for double in (True, False):
        weights = output_layer.solve_nested(waves, params, problem, (1.0, 2 / 3), double)
        field = output_layer.FeatureField(waves, params, problem, weights, double)
        fields.append(field(points))
    chex.assert_shape(fields, (len(points), 2))
    for exact, single in zip(*(field.T for field in fields), strict=True):
        assert relative_l2(single, exact) < 0.01


def test_a_fraction_is_of_one_feature_at_least(network, problem):
    """And rounded to the nearest number of features."""
    nested = output_layer.solve_nested(*network, problem, (1e-3, 0.1, 0.11))
    assert nested.dtype == np.complex64
    assert np.count_nonzero(nested, axis=0).tolist() == [1, 2, 3]
