"""The derivative of finite-difference data by the velocity, against differences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import factorised, gradient


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def model_of(ndim, quality=None):
    depth = np.linspace(1.8, 2.6, 8).reshape(8, *(1,) * (ndim - 1))
    velocity = np.array(np.broadcast_to(depth, (8, 7, 9)[:ndim]))
    velocity[..., 4:] += 0.3
    return VelocityModel(velocity, (0.11, 0.1, 0.12)[:ndim], quality=quality)


def data_of(model, sources, receivers, velocities, order=4, thickness=None):
    layer = factorised.make_layer(model, 4.0, 1, thickness)
    return gradient.data_function(
        model,
        4.0,
        sources,
        receivers,
        0.3 - 0.2j,
        velocities,
        refinement=1,
        layer=layer,
        order=order,
    )


@pytest.mark.parametrize(
    ("ndim", "quality", "order", "thickness"),
    [(2, None, 4, None), (2, 30.0, 4, None), (2, None, 2, 0.4), (3, None, 4, 0.25)],
)
def test_gradient_is_that_of_the_data(ndim, quality, order, thickness):
    """Also where v₀ is not the velocity at the source, which stands off the nodes."""
    model = model_of(ndim, quality)
    sources = np.array([[0.23, 0.31, 0.17], [0.5, 0.1, 0.42]])[:, :ndim]
    receivers = np.array([[0.1, 0.3, 0.5], [0.61, 0.52, 0.33]])[:, :ndim]
    data = data_of(model, sources, receivers, np.array([2.1, 1.9]), order, thickness)
    observed = jnp.array([[0.1 - 0.05j, 0.02j], [0.0, -0.03]])

    @jax.jit
    def misfit(velocity):
        slowness = model.replace_velocity(velocity).squared_slowness
        return jnp.sum(jnp.abs(data(slowness) - observed) ** 2)

    velocity = jnp.asarray(model.velocity)
    found = jax.jit(jax.grad(misfit))(velocity)
    chex.assert_equal_shape([found, velocity])
    for direction in np.random.default_rng(0).normal(size=(2, *model.shape)):
        one, two = (
            (misfit(velocity + h * direction) - misfit(velocity - h * direction)) / (2 * h)
            for h in (1e-4, 2e-4)
        )
        # Extrapolated to steps of zero length.
        np.testing.assert_allclose(
            np.sum(found * direction), (4 * one - two) / 3, rtol=1e-6
        )


def test_data_are_those_of_a_solve():
    model = model_of(2)
    sources, receivers = np.array([[0.23, 0.31]]), np.array([[0.1, 0.3], [0.52, 0.61]])
    field = ml.solve(
        model,
        4.0,
        sources,
        ml.FiniteDifferences(tolerance=None, refinement=1),
        amplitude=0.3 - 0.2j,
        background_velocity=2.1,
    )
    data = data_of(model, sources, receivers, np.array([2.1]))
    np.testing.assert_allclose(data(model.squared_slowness), field.at(receivers), rtol=1e-9)
