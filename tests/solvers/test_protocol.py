"""A solver prepared once: for many velocities, and as a function to differentiate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.solvers.protocol import Bounds, Conditions, bounds_of

FREQUENCY = 3.0
SOURCES = np.array([[0.2, 0.1], [0.4, 0.2]])
RECEIVERS = np.array([[0.1, 0.0], [0.3, 0.3], [0.45, 0.1]])


@pytest.fixture(scope="module")
def models():
    return [generators.random_velocity(seed, (11, 11), 0.05) for seed in range(3)]


def test_one_preparation_serves_all_velocities_within_bounds(models):
    bounds = bounds_of(models[0], (model.velocity for model in models))
    waves = ml.PlaneWaves(unknowns=200)
    prepared = waves.prepare(bounds, FREQUENCY, SOURCES, RECEIVERS)
    survey = ml.solve_survey(models, [FREQUENCY], SOURCES, waves, receivers=RECEIVERS)
    for model, expected in zip(models, survey.scattered[:, 0], strict=True):
        solved = prepared.solve(model)
        np.testing.assert_allclose(solved.fields, expected, rtol=1e-5)
        assert solved.error_estimates.shape == (2,) and solved.converged is None


@pytest.mark.parametrize("free_surface", [False, True])
def test_data_are_what_solve_has_at_receivers_and_have_a_gradient(models, free_surface):
    conditions = Conditions(free_surface=free_surface)
    prepared = ml.PlaneWaves(unknowns=200).prepare(
        models[0], FREQUENCY, SOURCES, RECEIVERS, conditions
    )
    fields = prepared.solve(models[0]).fields
    assert fields.shape == (2, 3)
    with jax.enable_x64(True):
        velocity = jnp.asarray(models[0].velocity, float)
        data = jax.jit(prepared.data)
        assert relative_l2(data(velocity), fields) < 2e-3
        assert not free_surface or not np.any(data(velocity)[:, 0])

        def misfit(velocity):
            return jnp.sum(jnp.abs(data(velocity)) ** 2)

        change = jax.random.normal(jax.random.key(0), velocity.shape)
        slope = jnp.vdot(jax.grad(misfit)(velocity), change)
        plus, minus = (misfit(velocity + step * change) for step in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (plus - minus) / 2e-5, rtol=1e-5)


def test_without_receivers_there_are_no_data(models):
    prepared = ml.PlaneWaves(unknowns=200).prepare(models[0], FREQUENCY, SOURCES)
    with pytest.raises(ValueError, match="no data to differentiate"):
        prepared.data(models[0].velocity)


def test_a_single_source_and_receiver_may_be_points(models):
    settings = ml.FiniteDifferences(tolerance=None)
    prepared = settings.prepare(models[0], FREQUENCY, (0.2, 0.1), (0.3, 0.3))
    assert prepared.solve(models[0]).fields.shape == (1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"amplitude": 0.0}, "amplitude must be finite and not zero"),
        ({"background_velocity": 1500.0}, "is it in m/s"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"memory": 0.0}, "memory must be positive"),
    ],
)
def test_conditions_are_checked_when_made(values, message):
    with pytest.raises(ValueError, match=message):
        Conditions(**values)


def test_one_model_is_its_own_bounds(models):
    bounds = Bounds(models[0], models[0])
    assert bounds.are_of_one_model and bounds.steepest() == []
    np.testing.assert_array_equal(bounds.middle().velocity, models[0].velocity)
    assert bounds.mirrored().lowest.shape == (21, 11)
    several = bounds_of(models[0], [model.velocity for model in models])
    assert not several.are_of_one_model and len(several.steepest()) == 2
