import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.random_waves import PlaneWaves, plane_wave_parameters
from meta_lrpinn.models import initial_parameters

KEY = jax.random.key(0)
both_dimensions = pytest.mark.parametrize("ndim", [2, 3])


@both_dimensions
@pytest.mark.parametrize("minimum", [0.0, 20.0])
def test_waves_fill_the_ball(ndim, minimum):
    params = plane_wave_parameters(KEY, 1000, 30.0, ndim, minimum=minimum)
    chex.assert_shape(params["wave_vectors"], (1000, ndim))
    chex.assert_shape(params["phases"], (1000,))
    vectors = np.asarray(params["wave_vectors"], np.float64)
    radius = np.linalg.norm(vectors, axis=1)
    assert radius.max() <= 30.0 + 1e-4 and radius.min() >= minimum - 1e-4

    # For uniform points in a shell the volume within their radius is uniform, ...
    volume = (radius**ndim - minimum**ndim) / (30.0**ndim - minimum**ndim)
    assert stats.kstest(volume, "uniform").pvalue > 0.01
    azimuth = np.arctan2(vectors[:, 1], vectors[:, 0]) / (2 * np.pi) + 0.5
    assert stats.kstest(azimuth, "uniform").pvalue > 0.01
    # ... and so is each coordinate of the direction in 3D (Archimedes).
    if ndim == 3:
        assert stats.kstest((vectors[:, 2] / radius + 1) / 2, "uniform").pvalue > 0.01

    phases = np.asarray(params["phases"]) / (2 * np.pi) + 0.5
    assert stats.kstest(phases, "uniform").pvalue > 0.01


@both_dimensions
def test_low_discrepancy_is_more_even_than_random(ndim):
    params = plane_wave_parameters(KEY, 500, 1.0, ndim)
    volume = np.linalg.norm(params["wave_vectors"], axis=1) ** ndim
    random = np.random.default_rng(0).random(500)
    distances = [stats.kstest(x, "uniform").statistic for x in (volume, random)]
    assert distances[0] < 0.3 * distances[1]


def test_the_key_decides():
    def draw(seed):
        return plane_wave_parameters(jax.random.key(seed), 20, 30.0)

    chex.assert_trees_all_equal(draw(3), draw(3))
    assert not np.allclose(draw(3)["wave_vectors"], draw(4)["wave_vectors"])


def test_legacy_keys_and_odd_numbers_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = plane_wave_parameters(jax.random.PRNGKey(0), 7, 30.0)
    chex.assert_trees_all_equal(params, plane_wave_parameters(KEY, 7, 30.0))


@both_dimensions
def test_features_need_only_the_waves(ndim):
    params = plane_wave_parameters(KEY, 50, 30.0, ndim)
    points = jax.random.uniform(KEY, (6, ndim))
    features = PlaneWaves(ndim).apply({"params": params}, points, method="features")
    chex.assert_shape(features, (6, 50))
    phase = np.asarray(points, np.float64) @ np.asarray(params["wave_vectors"]).T
    expected = np.sin(phase + np.asarray(params["phases"]))
    np.testing.assert_allclose(features, expected, atol=1e-4)


@both_dimensions
def test_initial_waves_fill_the_ball(ndim):
    model = PlaneWaves(ndim, 1000, maximum_wavenumber=25.0, minimum_wavenumber=5.0)
    vectors = initial_parameters(model, KEY)["wave_vectors"]
    chex.assert_shape(vectors, (1000, ndim))
    radius = np.linalg.norm(vectors, axis=1)
    volume = (radius**ndim - 5.0**ndim) / (25.0**ndim - 5.0**ndim)
    assert stats.kstest(volume, "uniform").pvalue > 0.01


def test_float64():
    with jax.enable_x64(True):
        params = plane_wave_parameters(KEY, 10, 30.0, dtype=jnp.float64)
        chex.assert_type(jax.tree.leaves(params), jnp.float64)
        points = jnp.ones((3, 2), jnp.float64)
        features = PlaneWaves().apply({"params": params}, points, method="features")
        assert features.dtype == jnp.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0}, "number of plane waves must be at least 1, got 0"),
        ({"ndim": 1}, "plane waves need 2 or 3 dimensions, got 1"),
        ({"minimum": 40.0}, "got 40.0 and 30.0 rad/km"),
        ({"minimum": -1.0}, "got -1.0 and 30.0 rad/km"),
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        plane_wave_parameters(
            **{"key": KEY, "number": 10, "maximum_wavenumber": 30.0} | arguments
        )


def test_number_is_needed_without_parameters():
    with pytest.raises(ValueError, match="without parameters need their number"):
        initial_parameters(PlaneWaves(), KEY)
