"""Surveys: all combinations in one call, and gradients through them."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import generators
from meta_lrpinn.learning import output_layer
from meta_lrpinn.learning.configs import NetworkConfig
from meta_lrpinn.learning.networks import make_network, random_network
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import finite_difference
from meta_lrpinn.solvers import network_features
from meta_lrpinn.solvers.acquisition import make_acquisition, receiver_data
from meta_lrpinn.solvers.protocol import Conditions
from meta_lrpinn.solvers.settings import (
    FiniteDifferences,
    NetworkFeatures,
    PlaneWaves,
)
from meta_lrpinn.solvers.solve import solve
from meta_lrpinn.solvers.survey import solve_survey

FREQUENCY = 3.0
WAVES = PlaneWaves(unknowns=800)
SOURCES = np.array([[0.2, 0.025], [0.5, 0.025], [0.7, 0.05]])


@pytest.fixture(scope="module")
def models():
    return [generators.random_velocity(seed, (31, 41), 0.025) for seed in (1, 2)]


@pytest.fixture(scope="module")
def survey(models):
    return solve_survey(models, [FREQUENCY], SOURCES, WAVES)


def test_every_wavefield_is_that_of_a_single_solve(models, survey):
    chex.assert_shape(survey.scattered, (2, 1, 3, 31, 41))
    for model, fields in zip(models, survey.scattered[:, 0], strict=True):
        alone = solve(model, FREQUENCY, SOURCES[1], PlaneWaves(unknowns=1600))
        assert relative_l2(fields[1], alone.scattered) < 0.02


def test_small_memory_splits_the_sources_and_changes_nothing(models, survey):
    one = 16 * (3 * survey.unknowns[0, 0] + 2 * 31 * 41) / 2**30
    split = solve_survey(models, [FREQUENCY], SOURCES, WAVES, memory=1.5 * one)
    # Each batch iterates until all of its sources are there.
    assert relative_l2(split.scattered, survey.scattered) < 2e-3


def test_receivers_see_the_field(models, survey):
    receivers = models[0].grid_points()[[100, 700]]
    data = solve_survey(models[:1], [FREQUENCY], SOURCES[:1], WAVES, receivers=receivers)
    chex.assert_shape(data.scattered, (1, 1, 1, 2))
    own = solve_survey(models[:1], [FREQUENCY], SOURCES[:1], WAVES)
    expected = own.scattered[0, 0, 0].ravel()[[100, 700]]
    np.testing.assert_allclose(data.scattered[0, 0, 0], expected, rtol=1e-4)
    assert own.throughput > 0


def test_gradient_to_velocity_agrees_with_finite_differences(models):
    receivers = np.stack([np.linspace(0.1, 0.9, 6), np.full(6, 0.025)], axis=-1)
    model = models[0].replace_velocity(np.asarray(models[0].velocity, float))
    with jax.enable_x64(True):
        acquisition = make_acquisition(
            model, FREQUENCY, SOURCES, receivers, wavenumber_ratio=1.1
        )

        @jax.jit
        def misfit(velocity):
            data = receiver_data(acquisition, velocity)
            chex.assert_shape(data, (3, 6))
            return jnp.sum(jnp.abs(data) ** 2)

        velocity = jnp.asarray(model.velocity)
        direction = jax.random.normal(jax.random.key(0), velocity.shape)
        slope = jnp.sum(jax.grad(misfit)(velocity) * direction)
        step = 1e-5
        plus, minus = (misfit(velocity + s * direction) for s in (step, -step))
        np.testing.assert_allclose(slope, (plus - minus) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("free_surface", [False, True])
def test_gradient_of_finite_differences(models, free_surface):
    """Prepared once; the derivative of its own data, under `jit` and `grad`."""
    receivers = np.stack([np.linspace(0.1, 0.9, 3), np.full(3, 0.05)], axis=-1)
    model = models[0].replace_velocity(np.asarray(models[0].velocity, float))
    conditions = Conditions(free_surface=free_surface)
    with jax.enable_x64(True):
        settings = FiniteDifferences(tolerance=None, refinement=1)
        prepared = settings.prepare(model, 3.0, SOURCES, receivers, conditions)

        @jax.jit
        def misfit(velocity):
            return jnp.sum(jnp.abs(prepared.data(velocity)) ** 2)

        velocity = jnp.asarray(model.velocity)
        direction = jax.random.normal(jax.random.key(0), velocity.shape)
        slope = jnp.sum(jax.grad(misfit)(velocity) * direction)
        one, two = (
            (misfit(velocity + h * direction) - misfit(velocity - h * direction)) / (2 * h)
            for h in (1e-4, 2e-4)
        )
        np.testing.assert_allclose(slope, (4 * one - two) / 3, rtol=1e-6)


def test_bad_input_is_refused(models):
    other = generators.random_velocity(3, (31, 31), 0.025)
    with pytest.raises(ValueError, match="share one grid"):
        solve_survey([models[0], other], [FREQUENCY], SOURCES)
    with pytest.raises(ValueError, match="at least one model"):
        solve_survey([], [FREQUENCY], SOURCES)
    with pytest.raises(ValueError, match="outside"):
        solve_survey(models, [FREQUENCY], [[9.0, 0.0]])
    with pytest.raises(ValueError, match="receiver .* outside"):
        make_acquisition(models[0], FREQUENCY, SOURCES, [[9.0, 0.0]])


def test_a_source_that_reached_the_tolerance_beside_one_that_missed_it(monkeypatch):
    refined = finite_difference.refined_field

    def missing(*arguments, **options):
        errors = np.array([1e-3, 1e-2, 3e-3])
        field = refined(*arguments, **options)
        return dataclasses.replace(field, converged=False, error_estimates=errors)

    monkeypatch.setattr(finite_difference, "refined_field", missing)
    small = generators.random_velocity(0, (11, 11), 0.05)
    sources = [[0.2, 0.05], [0.3, 0.05], [0.4, 0.05]]
    settings = FiniteDifferences(tolerance=5e-3)
    survey = solve_survey([small], [3.0], sources, settings)
    assert survey.converged.ravel().tolist() == [True, False, True]
    assert solve(small, 3.0, sources, settings).converged is False


def test_any_solver_makes_a_survey(models, survey):
    settings = FiniteDifferences(tolerance=None)
    reference = solve_survey(models[:1], [FREQUENCY], SOURCES, settings)
    assert reference.unknowns[0, 0] > 1000
    chex.assert_shape(reference.error_estimates, (1, 1, 3))
    assert relative_l2(survey.scattered[:1], reference.scattered) < 0.02


@pytest.mark.parametrize("free_surface", [False, True])
def test_which_wavefields_reached_the_tolerance(free_surface):
    """As `solve` has it, of each model and frequency."""
    small = [generators.random_velocity(seed, (11, 11), 0.05) for seed in range(3)]
    settings = FiniteDifferences(tolerance=3e-4, refinement=1, maximum_refinement=2)
    options = {"settings": settings, "free_surface": free_surface}
    survey = solve_survey(small, [3.0, 4.0], [[0.2, 0.05]], **options)
    chex.assert_shape(survey.converged, (3, 2, 1))
    for row, column in np.ndindex(3, 2):
        field = solve(small[row], [3.0, 4.0][column], [[0.2, 0.05]], **options)
        assert survey.converged[row, column, 0] == field.converged
    direct = FiniteDifferences(tolerance=None)
    assert set(survey.converged.ravel()) == {True, False}
    assert solve_survey(small, [3.0], [[0.2, 0.05]], direct).converged is None


@pytest.fixture(scope="module")
def features():
    """Untrained, so that nothing here depends on how well features are trained."""
    config = NetworkConfig(width=48, depth=2, rank=24, layer_fraction=0.5, features=96)
    return random_network(make_network(config), 0)


def test_features_of_one_velocity_are_those_of_a_single_solve(
    models, features, monkeypatch
):
    # Row by row, so that a single solve does not round its quadrature up.
    monkeypatch.setattr(output_layer, "_CHUNK", 1)
    settings = NetworkFeatures(features)
    shared = solve_survey(models[:1], [FREQUENCY], SOURCES, settings)
    assert np.all(shared.unknowns == 96)
    alone = solve(models[0], FREQUENCY, SOURCES, settings)
    assert relative_l2(shared.scattered[0, 0], alone.scattered) < 1e-4
    np.testing.assert_allclose(
        shared.error_estimates[0, 0], alone.error_estimates, rtol=0.01
    )


def test_single_precision_of_shared_features_changes_nothing(models, features):
    fields = [
        solve_survey(
            models, [FREQUENCY], SOURCES[:1], NetworkFeatures(features, precision=precision)
        ).scattered
        for precision in ("double", "single")
    ]
    assert relative_l2(*fields) < 1e-4


def test_features_are_evaluated_once_for_all_velocities(models, features, monkeypatch):
    made = []
    share_features = network_features.share_features

    def counted(*arguments):
        made.append(arguments)
        return share_features(*arguments)

    monkeypatch.setattr(network_features, "share_features", counted)
    settings = NetworkFeatures(features)
    whole = solve_survey(models, [FREQUENCY], SOURCES, settings)
    assert len(made) == len(SOURCES)
    # Where memory has no room for them, they are made again.
    again = solve_survey(models, [FREQUENCY], SOURCES, settings, memory=1e-9)
    assert len(made) == len(SOURCES) + 1 + 2 * (len(SOURCES) - 1)
    np.testing.assert_allclose(again.scattered, whole.scattered, rtol=1e-5)


@pytest.mark.parametrize(
    "free_surface, quality", [(True, None), (False, 40.0), (True, 40.0)]
)
def test_features_below_a_surface_and_with_attenuation(
    features, monkeypatch, free_surface, quality
):
    """Of every model what `solve` finds for it alone."""
    monkeypatch.setattr(output_layer, "_CHUNK", 1)
    first = generators.random_velocity(1, (15, 19), 0.05).replace_quality(quality)
    # One velocity, so that the layer for all is that of each, and two qualities.
    models = [first, first.replace_quality(quality and 2 * quality)]
    settings = NetworkFeatures(features)
    sources, receivers = SOURCES[:2], [[0.3, 0.0], [0.6, 0.4]]
    options = {"free_surface": free_surface}
    whole = solve_survey(models, [FREQUENCY], sources, settings, **options)
    seen = solve_survey(
        models, [FREQUENCY], sources, settings, receivers=receivers, **options
    )
    for index, model in enumerate(models):
        alone = solve(model, FREQUENCY, sources, settings, **options)
        found = whole.scattered[index, 0]
        assert relative_l2(found, alone.scattered) < 1e-3
        assert relative_l2(seen.scattered[index, 0], alone.at(receivers)) < 1e-3
        np.testing.assert_allclose(
            whole.error_estimates[index, 0], alone.error_estimates, rtol=0.02
        )
        assert not free_surface or not np.any(found[:, 0])


def test_cubes_have_the_default_of_three_dimensions():
    cube = generators.smooth_inclusion(shape=(6, 6, 6), spacing=0.1)
    source = np.array([[0.2, 0.2, 0.1]])
    (survey,) = solve_survey([cube], [2.0], source).scattered[0, 0]
    alone = solve(cube, 2.0, source[0]).scattered
    assert relative_l2(survey, alone) < 1e-5


def test_steps_of_every_model_are_integrated():
    """Those that the slowest velocities of all do not have, too."""
    smooth = np.full((21, 31), 1.5)
    sharp = np.where(np.arange(21)[:, None] < 10, 1.5, 3.0) * np.ones((21, 31))
    models = [VelocityModel(velocity, 0.05) for velocity in (smooth, sharp)]
    source = np.array([[0.7, 0.1]])
    survey = solve_survey(models, [3.0], source, PlaneWaves(unknowns=1500))
    alone = solve(models[1], 3.0, source[0], PlaneWaves(unknowns=1500)).scattered
    assert relative_l2(survey.scattered[1, 0, 0], alone) < 1e-4
