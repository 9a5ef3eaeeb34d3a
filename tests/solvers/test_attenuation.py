"""Attenuation: complex slowness (1/v)(1 − i/2Q) against exact solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.reference import analytic, layered_media
from meta_lrpinn.solvers.acquisition import make_acquisition, receiver_data

FREQUENCY, SOURCE = 6.0, np.array([0.4, 0.2])
# What each solver may be off by.
SOLVERS = [
    pytest.param(ml.FiniteDifferences(), 3e-3, id="finite_differences"),
    pytest.param(ml.PlaneWaves(), 1.5e-2, id="plane_waves"),
]
SLOW_WAVES = pytest.param(*SOLVERS[1].values, id="plane_waves", marks=pytest.mark.slow)


def lossy(velocity, quality):
    """v/(1 − i/2Q)."""
    return velocity / (1 - 0.5j / quality)


def layers(quality_above=25.0, quality_below=200.0):
    """A step of the velocity, and another of the quality."""
    depth = 0.02 * np.arange(41)
    velocity = np.where(depth < 0.35, 1.8, 2.6)[:, None] * np.ones(41)
    quality = np.where(depth < 0.55, quality_above, quality_below)[:, None] * np.ones(41)
    return ml.VelocityModel(velocity, 0.02, quality=quality)


def test_waves_decay_as_the_complex_wavenumber_says():
    """Far from the source |u| falls as e^{−ωr/2Qv}/√r, and none of it grows."""
    velocity, quality = 2.0, 12.0
    model = ml.VelocityModel(np.full((5, 121), velocity), 0.025, quality=quality)
    field = ml.solve(model, FREQUENCY, (0.0, 0.05), ml.FiniteDifferences())
    x, line = model.axes()[1][40:], field.total[2, 40:]
    decay = -np.polyfit(x, np.log(np.abs(line) * np.sqrt(x)), 1)[0]
    expected = 2 * np.pi * FREQUENCY / (2 * quality * velocity)
    assert decay == pytest.approx(expected, rel=0.01)
    wavenumber = 2 * np.pi * FREQUENCY / lossy(velocity, quality)
    assert wavenumber.imag == pytest.approx(-expected, rel=1e-12)


@pytest.mark.parametrize(("settings", "tolerance"), [SOLVERS[0], SLOW_WAVES])
def test_homogeneous_medium_seen_from_a_lossless_background(settings, tolerance):
    velocity, quality = 2.0, 20.0
    model = ml.VelocityModel(np.full((31, 41), velocity), 0.02, quality=quality)
    field = ml.solve(model, FREQUENCY, SOURCE, settings, background_velocity=velocity)
    exact = analytic.shifted_background(
        model.grid_points(), FREQUENCY, SOURCE, lossy(velocity, quality), velocity
    )
    assert relative_l2(field.scattered.ravel(), exact) < tolerance
    own = ml.solve(model, FREQUENCY, SOURCE, settings)
    assert own.background_velocity == pytest.approx(lossy(velocity, quality), rel=1e-12)
    assert np.abs(own.scattered).max() < 1e-12


@pytest.mark.parametrize(("settings", "tolerance"), SOLVERS)
def test_layers_of_velocity_and_quality(settings, tolerance):
    model = layers()
    points, profile = model.grid_points(), layered_media.depth_profile(model)
    exact = layered_media.layered_medium(points, FREQUENCY, SOURCE, *profile)
    field = ml.solve(model, FREQUENCY, SOURCE, settings)
    assert relative_l2(field.scattered.ravel(), exact) < tolerance
    without = layered_media.layered_medium(
        points, FREQUENCY, SOURCE, profile[0], profile[1].real
    )
    assert relative_l2(without, exact) > 0.1  # what the attenuation changes


def test_the_exact_media_agree_with_each_other():
    above, below = lossy(1.8, 15), lossy(2.8, 40)
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), (1, 0.8), (40, 2))
    by_coefficients = layered_media.two_half_spaces(
        points, FREQUENCY, SOURCE, 0.45, above, below
    )
    by_elements = layered_media.layered_medium(
        points, FREQUENCY, SOURCE, [0.45, 0.45], [above, below]
    )
    assert relative_l2(by_elements, by_coefficients) < 1e-9
    homogeneous = layered_media.layered_medium(
        points, FREQUENCY, SOURCE, [0.3], [above], background_velocity=1.8
    )
    exact = analytic.shifted_background(points, FREQUENCY, SOURCE, above, 1.8)
    assert relative_l2(homogeneous, exact) < 1e-9


@pytest.mark.parametrize(("settings", "tolerance"), [SOLVERS[0], SLOW_WAVES])
def test_a_disc_of_another_quality(settings, tolerance):
    """The contrast is that of the quality alone, on a grid that blurs the disc's edge."""
    spacing, centre, radius = 0.01, np.array([0.4, 0.45]), 0.15
    x, z = np.meshgrid(spacing * np.arange(81), spacing * np.arange(71))
    inside = np.hypot(x - centre[0], z - centre[1]) < radius
    # The share of a node's cell that lies inside, from points within it.
    offsets = (np.arange(8) - 3.5) / 8 * spacing
    share = np.mean(
        [
            np.hypot(x + a - centre[0], z + b - centre[1]) < radius
            for a in offsets
            for b in offsets
        ],
        axis=0,
    )
    assert inside.any()
    velocity, quality = 2.0, 5.0
    loss = np.maximum(share / quality, 1e-9)
    model = ml.VelocityModel(np.full(x.shape, velocity), spacing, quality=1 / loss)
    field = ml.solve(model, FREQUENCY, (0.4, 0.1), settings)
    exact = analytic.circular_inclusion(
        model.grid_points(), FREQUENCY, np.array([0.4, 0.1]), centre, radius,
        lossy(velocity, quality), velocity,
    )  # fmt: skip
    # 0.3 % is for the edge of the disc, which the grid blurs.
    assert relative_l2(field.scattered.ravel(), exact) < tolerance + 3e-3


@pytest.mark.slow
def test_three_dimensions():
    source, depth = np.array([0.2, 0.2, 0.12]), 0.04 * np.arange(11)
    ones = np.ones((11, 11, 11))
    model = ml.VelocityModel(
        np.where(depth < 0.28, 2.0, 2.8)[:, None, None] * ones,
        0.04,
        quality=np.where(depth < 0.2, 15.0, 60.0)[:, None, None] * ones,
    )
    exact = layered_media.layered_medium(
        model.grid_points(), 4.0, source, *layered_media.depth_profile(model)
    )
    for settings, tolerance in (
        (ml.FiniteDifferences(tolerance=None), 3e-3),
        (ml.PlaneWaves(), 2e-2),  # fewer waves by default than in 2D
    ):
        field = ml.solve(model, 4.0, source, settings)
        assert relative_l2(field.scattered.ravel(), exact) < tolerance


@pytest.mark.parametrize(("settings", "tolerance"), [SOLVERS[0], SLOW_WAVES])
def test_a_large_quality_is_lossless(settings, tolerance):
    model = layers(1e7, 1e7)
    lossless = ml.solve(model.replace_quality(None), FREQUENCY, SOURCE, settings)
    field = ml.solve(model, FREQUENCY, SOURCE, settings)
    assert relative_l2(field.scattered, lossless.scattered) < 1e-5


def test_energy_falls_with_the_quality():
    energies = [
        np.linalg.norm(
            ml.solve(layers(q, q), FREQUENCY, SOURCE, ml.FiniteDifferences()).total
        )
        for q in (10.0, 40.0, 160.0)
    ]
    assert energies == sorted(energies) and energies[0] < 0.9 * energies[-1]


@pytest.mark.slow
def test_features_solve_lossy_media():
    model = layers()
    truth = ml.solve(model, 4.0, SOURCE, ml.FiniteDifferences())
    field = ml.solve(model, 4.0, SOURCE, ml.NetworkFeatures())
    assert relative_l2(field.scattered, truth.scattered) < 0.05
    lossless = ml.solve(model.replace_quality(None), 4.0, SOURCE, ml.NetworkFeatures())
    assert relative_l2(lossless.scattered, truth.scattered) > 0.1


@pytest.mark.slow
def test_gradient_to_the_velocity_of_a_lossy_model():
    model = layers()
    acquisition = make_acquisition(model, 4.0, SOURCE[None], np.array([[0.7, 0.1]]))
    with jax.enable_x64(True):
        velocity = jnp.asarray(model.velocity)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=model.shape))

        def misfit(velocity):
            return jnp.sum(jnp.abs(receiver_data(acquisition, velocity)) ** 2)

        slope = jnp.sum(jax.grad(misfit)(velocity) * direction)
        step = 1e-4
        change = misfit(velocity + step * direction) - misfit(velocity - step * direction)
    assert float(slope) == pytest.approx(float(change) / (2 * step), rel=0.02)


def test_survey_of_lossy_models_is_what_solve_gives(tmp_path):
    models = [layers(25.0, 200.0)] * 2
    sources = np.array([SOURCE, (0.6, 0.1)])
    settings = ml.FiniteDifferences(tolerance=None)
    one = ml.solve(models[0], FREQUENCY, sources, settings)
    survey = ml.solve_survey(models, [FREQUENCY], sources, settings)
    np.testing.assert_allclose(survey.scattered[1, 0], one.scattered, rtol=1e-5, atol=1e-7)
    shared = ml.solve_survey(models, [FREQUENCY], sources)
    assert relative_l2(shared.scattered[0, 0], one.scattered) < 0.015
    zarr = pytest.importorskip("zarr")
    ml.run_survey(models, [FREQUENCY], sources, tmp_path / "survey.zarr", settings)
    stored = zarr.open_group(tmp_path / "survey.zarr", mode="r")["scattered"][:]
    np.testing.assert_array_equal(stored, survey.scattered)
    lossless = [model.replace_quality(None) for model in models]
    with pytest.raises(ValueError, match="other velocities"):
        ml.run_survey(lossless, [FREQUENCY], sources, tmp_path / "survey.zarr", settings)
    with pytest.raises(ValueError, match="share one quality"):
        ml.run_survey([models[0], lossless[0]], [6.0], sources, tmp_path / "other.zarr")


@pytest.mark.parametrize("ending", ["npz", "nc", "h5"])
def test_files_keep_the_quality(tmp_path, ending):
    model = layers()
    field = ml.solve(model, FREQUENCY, SOURCE, ml.FiniteDifferences(tolerance=None))
    path = tmp_path / f"field.{ending}"
    if ending != "npz":
        pytest.importorskip("h5netcdf")
    field.save(path)
    case = ml.load_case(path)
    np.testing.assert_array_equal(case.model.quality, model.quality)
    assert case.background_velocity == pytest.approx(field.background_velocity, rel=1e-12)
    again = ml.solve(
        case.model, case.frequency, case.source, ml.FiniteDifferences(tolerance=None),
        background_velocity=case.background_velocity,
    )  # fmt: skip
    np.testing.assert_allclose(again.scattered, field.scattered, rtol=1e-10)
