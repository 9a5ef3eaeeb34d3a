"""The output layer solved for leading parts of the features, against each part alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models, objectives
from meta_lrpinn import problem as problems
from meta_lrpinn.adapt import galerkin, output_layer
from meta_lrpinn.physics import derivatives
from meta_lrpinn.problem import make_problem
from meta_lrpinn.velocity import VelocityModel

WIDTH = 24
METHODS = pytest.mark.parametrize("method", ["galerkin", "least_squares"])


@pytest.fixture(scope="module")
def problem():
    depth = np.linspace(1.6, 2.6, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    return make_problem(model, 4.0, (0.3, 0.1), thickness=0.4)


@pytest.fixture(scope="module")
def network():
    model = models.make_meta_lrpinn(
        width=16, depth=1, rank=4, last_width=WIDTH, embedding_width=6, embedding_hidden=1
    )
    return model, models.initial_parameters(model, jax.random.key(1))


@METHODS
def test_leading_parts_are_what_the_smaller_networks_give(method, network, problem):
    shares = (0.5, 1.0, 0.25)  # in any order
    nested = output_layer.solve_nested(method, *network, problem, shares, double=True)
    assert nested.shape == (WIDTH, 3) and nested.dtype == np.complex128
    for weights, size in zip(np.asarray(nested).T, (12, 24, 6), strict=True):
        smaller = models.leading_features(*network, size)
        alone = output_layer.solve(method, *smaller, problem, double=True)
        np.testing.assert_allclose(weights[:size], alone, rtol=1e-5)
        assert np.all(weights[:size] != 0) and np.all(weights[size:] == 0)
    # Not a part of the weights of all: features do depend on each other.
    assert not np.allclose(nested[:12, 0], nested[:12, 1], rtol=0.1)


def operator_and_source(network, problem):
    """NumPy's strong operator on the features (n, width), and the source (n,)."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, float), network[1])
        shape = galerkin.quadrature_shape(problem, 6.0)
        points = galerkin.quadrature_points(problem, shape)
        function = objectives.feature_function(network[0], params, problem)
        sampled = jax.jit(lambda x: derivatives.derivatives(function, x))(points)
        sampled, own = jax.device_get((sampled, problems.collocate(problem, points)))
    first = (own.stretch_slope / own.stretch**3)[..., None] * sampled.gradient
    second = sampled.second / (own.stretch**2)[..., None]
    mass = own.omega**2 * own.squared_slowness
    operator = np.sum(second - first, axis=1) + mass[:, None] * sampled.value
    return operator, own.scattering_source


def test_parts_are_the_least_squares_of_their_columns(network, problem):
    operator, source = operator_and_source(network, problem)
    nested = output_layer.solve_nested(
        "least_squares", *network, problem, (0.25, 0.5, 1.0), double=True
    )
    left = np.linalg.norm(operator @ np.asarray(nested) - source[:, None], axis=0)
    expected = []
    for size in (6, 12, 24):
        part = operator[:, :size]
        best = np.linalg.lstsq(part, source, rcond=None)[0]
        expected.append(np.linalg.norm(part @ best - source))
    # The points that fill its last chunk make its grid a little finer.
    np.testing.assert_allclose(left, expected, rtol=0.01)
    assert np.all(np.diff(expected) < -0.01 * expected[0])


@METHODS
def test_a_share_is_of_one_feature_at_least(method, network, problem):
    """And rounded to the nearest number of features."""
    nested = output_layer.solve_nested(method, *network, problem, (1e-3, 0.1, 0.11))
    assert nested.dtype == np.complex64
    assert np.count_nonzero(nested, axis=0).tolist() == [1, 2, 3]
