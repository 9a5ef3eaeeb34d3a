"""The output layer by least squares from the strong residual."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import eliminated_residual
from meta_lrpinn.linear import weak_form
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import derivatives
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

WIDTH = 12


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def setting():
    """Features with derivatives and the problem at 200 points of it."""
    depth = np.linspace(1.6, 2.6, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    problem = make_problem(model, 4.0, (0.3, 0.1), thickness=0.4)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        k, b = rng.normal(0, 6, (2, WIDTH)), rng.uniform(-np.pi, np.pi, WIDTH)
        function = weak_form.with_envelope(lambda x: jnp.sin(x @ k + b), problem)
        points = jnp.asarray(rng.uniform(-0.35, 1.15, (200, 2)))
        features = derivatives.derivatives(function, points)
        return problem, function, features, problems.collocate(problem, points)


def test_operator_is_the_helmholtz_operator(setting):
    """On one feature at a time, through `physics.residual`'s own definition."""
    _, _, features, collocation = setting
    operator = np.asarray(eliminated_residual.operator_on_features(features, collocation))
    chex.assert_shape(operator, (200, WIDTH))
    s, slope = np.asarray(collocation.stretch), np.asarray(collocation.stretch_slope)
    omega = float(collocation.omega)
    for j in (0, 5):
        gradient = np.asarray(features.gradient[..., j])
        second = np.asarray(features.second[..., j])
        expected = np.sum(second / s**2 - slope / s**3 * gradient, axis=1)
        expected = expected + omega**2 * np.asarray(
            collocation.squared_slowness * features.value[:, j]
        )
        np.testing.assert_allclose(operator[:, j], expected, rtol=1e-9)


def test_known_weights_in_the_span_are_recovered(setting):
    _, _, features, collocation = setting
    operator = eliminated_residual.operator_on_features(features, collocation)
    weights = np.random.default_rng(1).normal(size=(WIDTH, 2)) @ [1, 1j]
    got = eliminated_residual.output_weights(operator, operator @ weights, ridge=1e-14)
    np.testing.assert_allclose(got, weights, rtol=1e-6)


def test_weights_do_not_depend_on_the_scale_of_features(setting):
    _, _, features, collocation = setting
    operator = eliminated_residual.operator_on_features(features, collocation)
    rhs, factor = collocation.scattering_source, np.geomspace(1e-3, 1e3, WIDTH)
    plain = eliminated_residual.output_weights(operator, rhs)
    scaled = eliminated_residual.output_weights(operator * factor, rhs)
    np.testing.assert_allclose(scaled * factor, plain, rtol=1e-6)


def test_relative_residual_is_that_of_numpy(setting):
    _, _, features, collocation = setting
    squared, weights = eliminated_residual.eliminated_residual(
        features, collocation, ridge=1e-13
    )
    operator = np.asarray(eliminated_residual.operator_on_features(features, collocation))
    rhs = np.asarray(collocation.scattering_source)
    best = np.linalg.lstsq(operator, rhs, rcond=None)[0]
    np.testing.assert_allclose(weights, best, rtol=1e-5)
    expected = relative_l2(operator @ best, rhs)
    np.testing.assert_allclose(np.sqrt(float(squared)), expected, rtol=1e-8)
    assert expected < 1


def test_residual_of_the_exact_right_hand_side_is_zero(setting):
    _, _, features, collocation = setting
    operator = eliminated_residual.operator_on_features(features, collocation)
    exact = collocation.replace(scattering_source=operator @ np.ones(WIDTH))
    squared, weights = eliminated_residual.eliminated_residual(features, exact, ridge=1e-14)
    assert squared < 1e-18
    np.testing.assert_allclose(weights, 1.0, rtol=1e-6)


def test_gradient_to_the_features_is_exact_at_the_minimum(setting):
    """Though the weights are held fixed in it."""
    _, _, features, collocation = setting

    def loss(factor):
        bent = features.replace(
            value=features.value * factor[0],
            gradient=features.gradient * factor[1],
            second=features.second * factor[2],
        )
        return eliminated_residual.eliminated_residual(bent, collocation, ridge=1e-14)[0]

    one = jnp.ones(3)
    gradient = jax.jit(jax.grad(loss))(one)
    for axis in np.eye(3):
        difference = (loss(one + 1e-5 * axis) - loss(one - 1e-5 * axis)) / 2e-5
        np.testing.assert_allclose(gradient @ axis, difference, rtol=1e-4, atol=1e-8)
