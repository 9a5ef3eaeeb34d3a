"""The velocity container and its interpolation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.physics.velocity import VelocityModel, fill_nearest, transposition_hint

SHAPES = {2: (7, 9), 3: (5, 6, 7)}
SPACINGS = {2: (0.02, 0.03), 3: (0.02, 0.025, 0.03)}
ORIGINS = {2: (1.0, 0.5), 3: (1.0, -0.2, 0.5)}


def linear(points):
    slopes = np.array([0.7, 0.4, -0.3])[: points.shape[-1]]
    return 2.0 + points @ slopes


def make_model(ndim, values=None, dtype=np.float64):
    model = VelocityModel(np.ones(SHAPES[ndim]), SPACINGS[ndim], ORIGINS[ndim])
    if values is None:
        values = linear(model.grid_points()).reshape(model.shape)
    return model.replace_velocity(values.astype(dtype))


def random_values(ndim, seed=0):
    return np.random.default_rng(seed).uniform(1.5, 4.5, SHAPES[ndim])


def random_points(model, count=50, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(model.lower, model.upper, (count, model.ndim))


@pytest.fixture
def model():
    return make_model(2, random_values(2))


# Geometry


def test_geometry_follows_the_array_in_2d():
    model = VelocityModel(np.ones((91, 101)), (0.02, 0.025))
    assert model.ndim == 2
    assert model.shape == (91, 101)
    np.testing.assert_allclose(model.lower, [0.0, 0.0])
    np.testing.assert_allclose(model.upper, [2.5, 1.8])
    assert (model.minimum, model.maximum) == (1.0, 1.0)


def test_geometry_follows_the_array_in_3d():
    model = make_model(3)
    np.testing.assert_allclose(model.lower, [1.0, -0.2, 0.5])
    np.testing.assert_allclose(
        model.upper, [1.0 + 6 * 0.03, -0.2 + 5 * 0.025, 0.5 + 4 * 0.02]
    )


def test_one_spacing_serves_all_axes():
    assert VelocityModel(np.ones((3, 4, 5)), 0.1).spacing == (0.1, 0.1, 0.1)


def test_grid_points_are_in_c_order_with_x_fastest():
    points = VelocityModel(np.ones((2, 3)), (0.5, 0.1), origin=(1.0, 2.0)).grid_points()
    chex.assert_shape(points, (6, 2))
    np.testing.assert_allclose(points[:3], [[1.0, 2.0], [1.1, 2.0], [1.2, 2.0]])
    np.testing.assert_allclose(points[3], [1.0, 2.5])


def test_whole_numbers_become_floats():
    assert VelocityModel([[2, 2], [3, 3]], 0.1).velocity.dtype == np.float64


def test_repr_is_short(model):
    text = repr(VelocityModel(np.full((91, 91), 2.0), 0.025))
    assert text == "VelocityModel(91 x 91, spacing 0.025 km, 2 to 2 km/s)"
    assert len(repr(model)) < 88


# Interpolation


@pytest.mark.parametrize("ndim", [2, 3])
def test_interpolation_is_exact_where_squared_slowness_is_linear(ndim):
    with jax.enable_x64(True):
        model = make_model(ndim)
        model = model.replace_velocity(model.velocity**-0.5)
        points = random_points(model)
        squared = model.squared_slowness_at(points)
        chex.assert_shape(squared, (50,))
        assert squared.dtype == jnp.float64
        chex.assert_trees_all_close(squared, linear(points), rtol=1e-12)
        chex.assert_trees_all_close(model.at(points), linear(points) ** -0.5, rtol=1e-12)


def test_a_step_stands_in_the_middle_of_its_cell():
    """The travel of m across the cell is that of both halves."""
    model = VelocityModel(np.array([[1.5, 4.5], [1.5, 4.5]]), 0.1)
    places = np.stack([(np.arange(1000) + 0.5) / 1e4, np.full(1000, 0.05)], axis=-1)
    mean = float(jnp.mean(model.squared_slowness_at(places)))
    np.testing.assert_allclose(mean, (1.5**-2 + 4.5**-2) / 2, rtol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_interpolation_returns_the_grid_at_its_nodes(ndim, dtype):
    with jax.enable_x64(dtype == np.float64):
        model = make_model(ndim, random_values(ndim), dtype)
        values = model.at(model.grid_points()).reshape(model.shape)
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        chex.assert_trees_all_close(np.asarray(values), model.velocity, atol=tolerance)


@pytest.mark.parametrize("ndim", [2, 3])
def test_edge_values_continue_outside(ndim):
    with jax.enable_x64(True):
        model = make_model(ndim, random_values(ndim))
        rng = np.random.default_rng(2)
        points = rng.uniform(model.lower - 1.0, model.upper + 1.0, (60, ndim))
        nearest = np.clip(points, model.lower, model.upper)
        chex.assert_trees_all_close(model.at(points), model.at(nearest), rtol=1e-12)
        far = model.at(np.stack([model.lower - 9.0, model.upper + 9.0]))
        corners = [model.velocity.ravel()[0], model.velocity.ravel()[-1]]
        chex.assert_trees_all_close(far, np.array(corners), rtol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_gradient_in_the_velocity_is_the_interpolation_weights(ndim):
    with jax.enable_x64(True):
        model = make_model(ndim, random_values(ndim))
        point = random_points(model, 1)[0]
        slopes = jax.grad(lambda m: m.squared_slowness_at(point))(model)
        assert isinstance(slopes, VelocityModel)
        # d(1/v²) = −2 dv/v³
        weights = np.asarray(slopes.velocity) * model.velocity**3 / -2
        chex.assert_shape(weights, model.shape)
        assert np.count_nonzero(weights) == 2**ndim
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)
        np.testing.assert_allclose(
            np.sum(weights * model.velocity**-2), model.squared_slowness_at(point)
        )
        speed, change = model.at(point), np.zeros(model.shape)
        index = np.unravel_index(np.argmax(weights), model.shape)
        change[index] = 1e-6
        shifted = model.replace_velocity(model.velocity + change).at(point) - speed
        slope = jax.grad(lambda m: m.at(point))(model).velocity[index]
        np.testing.assert_allclose(shifted / 1e-6, slope, rtol=1e-5)


def test_gradient_in_the_points_is_the_slope():
    with jax.enable_x64(True):
        model = make_model(3)
        model = model.replace_velocity(model.velocity**-0.5)
        slopes = jax.grad(model.squared_slowness_at)(random_points(model, 1)[0])
        chex.assert_trees_all_close(slopes, np.array([0.7, 0.4, -0.3]), rtol=1e-9)


def test_points_may_have_leading_axes(model):
    points = random_points(model, 12)
    chex.assert_trees_all_close(
        model.at(points.reshape(3, 4, 2)), model.at(points).reshape(3, 4)
    )
    chex.assert_shape(model.at(points[0]), ())


def test_points_of_another_dimension_are_refused(model):
    with pytest.raises(ValueError, match=r"2 coordinates \(x, z\).*shape \(5, 3\)"):
        model.at(np.zeros((5, 3)))


def test_jit_and_vmap_over_stacked_models():
    models = [make_model(2, random_values(2, seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    points = random_points(models[0])
    evaluate = jax.jit(jax.vmap(lambda m, p: m.at(p), in_axes=(0, None)))
    values = evaluate(stacked, points)
    chex.assert_shape(values, (3, 50))
    for row, single in zip(values, models, strict=True):
        chex.assert_trees_all_close(row, single.at(points), rtol=1e-6)


def test_models_can_be_made_and_measured_inside_jit(model):
    @jax.jit
    def extremes(m):
        m = VelocityModel(2.0 * m.velocity, m.spacing, m.origin)
        return m.minimum, m.maximum

    chex.assert_trees_all_close(
        extremes(model), (2 * model.minimum, 2 * model.maximum), rtol=1e-6
    )


def test_pytree_keeps_geometry_and_has_one_leaf(model):
    leaves, structure = jax.tree.flatten(model)
    assert len(leaves) == 1
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert rebuilt.spacing == model.spacing
    assert rebuilt.origin == model.origin
    assert jax.tree.structure(make_model(2)) == structure


# Changing a model


def test_replace_velocity_keeps_the_grid(model):
    faster = model.replace_velocity(model.velocity + 1.0)
    assert (faster.spacing, faster.origin) == (model.spacing, model.origin)
    np.testing.assert_allclose(faster.velocity, model.velocity + 1.0)
    with pytest.raises(ValueError, match=r"shape of the model, \(7, 9\), got \(9, 7\)"):
        model.replace_velocity(model.velocity.T)


def test_check_contains_accepts_the_edges(model):
    model.check_contains(model.lower)
    model.check_contains(np.stack([model.upper, model.lower]).astype(np.float32))


def test_check_contains_names_the_extent():
    model = VelocityModel(np.ones((81, 91)), 0.025)
    with pytest.raises(ValueError) as error:
        model.check_contains((5.0, 0.0))
    assert str(error.value) == (
        "source (5.0, 0.0) lies outside the model, x 0.0 to 2.25 km, z 0.0 to 2.0 km"
    )
    with pytest.raises(ValueError, match=r"receiver \(0.0, -0.1\) lies outside"):
        model.check_contains([(1.0, 1.0), (0.0, -0.1)], what="receiver")
    with pytest.raises(ValueError, match="outside"):
        model.check_contains((np.nan, 0.0))
    with pytest.raises(ValueError, match=r"source must have 2 coordinates \(x, z\)"):
        model.check_contains((1.0, 1.0, 1.0))


def test_smoothing_keeps_vertical_travel_time_and_reduces_contrast():
    velocity = np.where(np.arange(101)[:, None] < 50, 2.0, 4.0) * np.ones((1, 11))
    model = VelocityModel(velocity, (0.01, 0.03))
    smooth = model.smoothed(0.05)
    np.testing.assert_allclose(np.sum(1 / smooth.velocity), np.sum(1 / velocity), rtol=1e-3)
    assert np.abs(np.diff(smooth.velocity, axis=0)).max() < 0.3
    # One standard deviation below the interface the Gaussian has done 84 %.
    fraction = (1 / 2 - 1 / smooth.velocity[55, 5]) / (1 / 2 - 1 / 4)
    np.testing.assert_allclose(fraction, 0.84, atol=0.03)


def test_smoothing_by_nothing_changes_nothing(model):
    assert model.smoothed(0.0) is model
    with pytest.raises(ValueError, match="smoothing length must be zero or more"):
        model.smoothed(-0.1)


def test_window_keeps_coordinates_and_values():
    model = make_model(2, random_values(2))
    part = model.window(x=(1.06, 1.18), z=(0.53, 9.0))
    chex.assert_shape(part.velocity, (5, 5))
    np.testing.assert_allclose(part.lower, [1.06, 0.54])
    np.testing.assert_allclose(part.velocity, model.velocity[2:, 2:7])
    points = random_points(part)
    chex.assert_trees_all_close(part.at(points), model.at(points), rtol=1e-4)


def test_window_in_3d():
    part = make_model(3).window(y=(-0.2, -0.15))
    chex.assert_shape(part.velocity, (5, 3, 7))
    with pytest.raises(ValueError, match="window x 1.0 to 1.01 km holds 1 grid points"):
        make_model(3).window(x=(1.0, 1.01))
    with pytest.raises(ValueError, match="2-D model has no y"):
        make_model(2).window(y=(0.0, 1.0))


@pytest.mark.parametrize("ndim", [2, 3])
def test_resampling_is_exact_where_squared_slowness_is_linear(ndim):
    model = make_model(ndim)
    model = model.replace_velocity(model.velocity**-0.5)
    fine = model.resampled(0.01)
    assert fine.spacing == (0.01,) * ndim
    np.testing.assert_allclose(fine.upper, model.upper, atol=0.01)
    expected = linear(fine.grid_points()).reshape(fine.shape)
    np.testing.assert_allclose(fine.velocity, expected**-0.5, rtol=1e-12)


def test_resampling_refuses_a_spacing_larger_than_the_model(model):
    with pytest.raises(ValueError, match="spacing 0.2 km is larger than the model"):
        model.resampled(0.2)


# Validation

GOOD = np.full((4, 5), 2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.where(np.eye(4, 5) > 0, np.nan, 2.0), 0.1), "finite, got 4 NaN"),
        ((np.where(np.eye(4, 5) > 0, np.inf, 2.0), 0.1), "finite, got 4 NaN"),
        ((-GOOD, 0.1), r"velocity must be positive, got -2 km/s"),
        ((0 * GOOD, 0.1), "velocity must be positive, got 0 km/s"),
        ((GOOD[0], 0.1), r"2-D \(nz, nx\) or 3-D .* got shape \(5,\)"),
        ((GOOD[None, None], 0.1), r"got shape \(1, 1, 4, 5\)"),
        ((GOOD[:1], 0.1), r"at least 2 points per axis, got shape \(1, 5\)"),
        ((1000 * GOOD, 0.1), "largest value is 2000: that looks like m/s or ft/s"),
        ((GOOD.astype(complex), 0.1), "velocity must be an array of real numbers"),
        (([[1.0, 2.0], [3.0]], 0.1), "velocity must be an array of real numbers"),
        (("fast", 0.1), "velocity must be an array of real numbers"),
        ((GOOD, 0.0), "spacing must be positive, got 0 km"),
        ((GOOD, (0.1, -0.1)), "spacing must be positive, got -0.1 km"),
        ((GOOD, np.nan), "spacing must be positive, got nan km"),
        ((GOOD, (0.1, 0.1, 0.1)), r"one number or 2, \(dz, dx\), got 3"),
        ((GOOD, None), "spacing must be an array of real numbers"),
        ((GOOD, 0.1, (0.0,)), r"origin must be 2 finite coordinates \(x, z\)"),
        ((GOOD, 0.1, (0.0, np.nan)), "origin must be 2 finite coordinates"),
    ],
)
def test_wrong_models_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        VelocityModel(*arguments)
    assert "\n" not in str(error.value)


def test_jax_arrays_are_checked_and_kept():
    with pytest.raises(ValueError, match="positive"):
        VelocityModel(-jnp.ones((3, 3)), 0.1)
    assert isinstance(VelocityModel(jnp.ones((3, 3)), 0.1).velocity, jax.Array)


@pytest.mark.parametrize(
    ("velocity", "spacing", "message"),
    [
        (np.ma.array(GOOD, mask=np.eye(4, 5)), 0.1, "velocity has 4 masked values"),
        (GOOD**-2.0 / 10, 0.1, r"at least 0.1 km/s, got .*slowness squared"),
        (np.array(2.0), 0.1, r"2-D .* array, got shape \(\)"),
        (np.full((4, 5), None), 0.1, "velocity must be an array of real numbers"),
        (GOOD.astype(str), 0.1, "velocity must be an array of real numbers"),
        (GOOD > 2, 0.1, "velocity must be an array of real numbers"),
        (GOOD, 1e300, "e.300 km long in z: is the spacing in metres"),
        (GOOD, 26e3, "km long in x: is the spacing in metres"),
        (GOOD, 1e-12, "the model is only"),
        (GOOD, np.ma.masked_equal([0.1, 0.2], 0.2), "spacing has 1 masked values"),
    ],
)
def test_other_quantities_and_units_are_refused(velocity, spacing, message):
    with pytest.raises(ValueError, match=message) as error:
        VelocityModel(velocity, spacing)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


def test_models_of_every_scale_are_accepted():
    for spacing in (2e-7, 0.025, 25.0):  # 20 mm, 2.5 km and 2,500 km wide
        VelocityModel(np.full((101, 101), 1.5), spacing)
    # A mask that hides nothing is no mask.
    unmasked = VelocityModel(np.ma.array(GOOD), 0.1).velocity
    assert type(unmasked) is np.ndarray


def test_gaps_are_filled_with_the_nearest_value():
    values = np.array([[1.0, np.nan, np.nan, 4.0], [2.0, 2.0, 5.0, np.inf]])
    filled = fill_nearest(values, (10.0, 1.0))
    np.testing.assert_array_equal(filled, [[1, 1, 4, 4], [2, 2, 5, 5]])
    # Rows that are nearer than columns win.
    filled = fill_nearest(values, (0.1, 1.0))
    np.testing.assert_array_equal(filled[:, 1], [2, 2])
    masked = np.ma.masked_greater(np.array([[1.0, 9.0], [3.0, 9.0]]), 8)
    np.testing.assert_array_equal(fill_nearest(masked), [[1, 1], [3, 3]])
    with pytest.raises(ValueError, match="no value to fill"):
        fill_nearest(np.full((2, 2), np.nan))


@pytest.mark.parametrize("ndim", [2, 3])
def test_transposed_models_are_noticed(ndim):
    shape = (41, 61) if ndim == 2 else (21, 15, 25)
    depth = np.linspace(0, 1, shape[0]).reshape(-1, *[1] * (ndim - 1))
    noise = np.random.default_rng(0).normal(size=shape)
    model = VelocityModel(2 + 2 * depth + 0.3 * np.tanh(noise), 0.025)
    assert transposition_hint(model) is None
    assert "(nx, " in transposition_hint(VelocityModel(model.velocity.T, 0.025))
    assert transposition_hint(VelocityModel(np.full(shape, 2.0), 0.025)) is None


# Attenuation --------------------------------------------------------------------------


def lossy_model():
    velocity = 2.0 + np.linspace(0, 1, 7)[:, None] * np.ones(9)
    return VelocityModel(velocity, 0.1, quality=np.linspace(20, 90, 63).reshape(7, 9))


def test_squared_slowness_is_that_of_the_quality():
    model = lossy_model()
    with jax.enable_x64(True):
        found = model.squared_slowness_at(model.grid_points()).reshape(model.shape)
    expected = (1 - 0.5j / model.quality) ** 2 / model.velocity**2
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    one = VelocityModel(model.velocity, 0.1, quality=40)
    np.testing.assert_array_equal(one.quality, np.full(model.shape, 40.0))
    assert "Q 20 to 90" in repr(model) and "Q 40)" in repr(one)


def test_parts_and_pytrees_keep_the_quality():
    model = lossy_model()
    part = model.window(x=(0.2, 0.5))
    np.testing.assert_array_equal(part.quality, model.quality[:, 2:6])
    leaves, tree = jax.tree.flatten(model)
    assert len(leaves) == 2
    np.testing.assert_array_equal(jax.tree.unflatten(tree, leaves).quality, model.quality)
    other = model.replace_velocity(model.velocity + 1)
    np.testing.assert_array_equal(other.quality, model.quality)
    assert model.replace_quality(None).quality is None
    assert len(jax.tree.leaves(model.replace_quality(None))) == 1


def test_smoothing_and_resampling_keep_a_uniform_quality():
    model = lossy_model().replace_quality(30.0)
    for other in (model.smoothed(0.2), model.resampled(0.05)):
        np.testing.assert_allclose(other.quality, 30.0, rtol=1e-9)
    lossless = model.replace_quality(None)
    np.testing.assert_allclose(
        model.smoothed(0.2).velocity, lossless.smoothed(0.2).velocity, rtol=1e-12
    )


@pytest.mark.parametrize("quality", [0, -3, np.inf, np.nan, 0.0125, np.ones(3), "high"])
def test_what_is_no_quality_is_refused(quality):
    with pytest.raises(ValueError, match="quality must"):
        VelocityModel(np.full((3, 4), 2.0), 0.1, quality=quality)
