"""Exact solutions in v(z): against one another, the equation itself, and symmetries."""

import chex
import numpy as np
import pytest

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic, layered_media
from meta_lrpinn.reference.layered_media import (
    depth_profile,
    layered_medium,
    linear_velocity,
    two_half_spaces,
)

FREQUENCY = 6.0
OMEGA = 2 * np.pi * FREQUENCY
SOURCE = np.array([0.7, 0.05])
GRID = VelocityModel(np.full((11, 21), 2.0), 0.1).grid_points()
# Depths and velocities: jumps, ramps, a guide, thin layers.
PROFILES = {
    "half-spaces": ([0.5, 0.5], [1.5, 3.0]),
    "ramp": ([0.475, 0.5], [1.5, 3.0]),
    "guide": ([0.3, 0.3, 0.6, 0.6], [4.5, 1.5, 1.5, 4.5]),
    "thin layer": ([0.5, 0.5, 0.525, 0.525], [4.0, 2.0, 2.0, 4.0]),
    "gradients": ([0.0, 0.3, 0.7, 1.0], [1.5, 2.6, 1.9, 3.0]),
}


def taper(t):
    """A smooth step from one at 0 to zero at 1."""
    t = np.clip(t, 2e-3, 1 - 2e-3)
    return 1 / (1 + np.exp(1 / (1 - t) - 1 / t))


def velocity_at(depth, depths, speeds):
    return np.interp(depth, depths, np.asarray(speeds) ** -2.0) ** -0.5


def total(points, source, profile, **options):
    own = velocity_at(source[-1], *profile)
    scattered = layered_medium(points, FREQUENCY, source, *profile, **options)
    return scattered + analytic.point_source(points - source, OMEGA / own)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("depth", [0.05, 0.48, 0.8])
def test_half_spaces_agree(ndim, depth):
    """Elements in depth and Fresnel's coefficients are independent of each other."""
    grid = VelocityModel(np.full((11,) + (6,) * (ndim - 1), 2.0), 0.1)
    source = np.array([0.2, 0.13, depth])[-ndim:]
    expected = two_half_spaces(grid.grid_points(), FREQUENCY, source, 0.5, 1.5, 3.0)
    field = layered_medium(grid.grid_points(), FREQUENCY, source, [0.5, 0.5], [1.5, 3.0])
    assert relative_l2(field, expected) < 1e-8


def test_image_source():
    """Above a very slow half-space, R → −1, stands an image of the other sign."""
    image = SOURCE * [1, -1] + [0, 2 * 0.6]
    points = GRID[GRID[:, 1] < 0.55]
    expected = -analytic.point_source(points - image, OMEGA / 2.0)
    errors = [
        relative_l2(two_half_spaces(points, FREQUENCY, SOURCE, 0.6, 2.0, slow), expected)
        for slow in (0.04, 0.02)
    ]
    assert errors[1] < 0.02 and 1.9 < errors[0] / errors[1] < 2.1


def test_linear_velocity():
    """The closed form, which knows no end, against a profile that ends smoothly."""
    velocity, gradient, end, fading = 1.5, 0.3, 2.0, 3.0
    step = 0.006
    depths = np.arange(-fading, end + fading, step)
    beyond = np.maximum(-depths, depths - end) / fading
    slope = gradient * np.where(beyond > 0, taper(beyond), 1.0)
    steps = step * (slope[1:] + slope[:-1]) / 2
    speeds = np.concatenate([[0.0], np.cumsum(steps)])
    speeds += velocity - np.interp(0.0, depths, speeds)
    points = np.concatenate([GRID[::9], SOURCE[None]])
    expected = linear_velocity(points, FREQUENCY, SOURCE, velocity, gradient)
    field = layered_medium(points, FREQUENCY, SOURCE, depths, speeds)
    assert np.all(np.isfinite(expected))
    assert relative_l2(field, expected) < 2e-5


@pytest.mark.parametrize("gradient", [1e-3, -1e-3])
def test_small_gradients_scatter_in_proportion(gradient):
    """No gradient, no scattered field; and the sign of the gradient is its sign."""
    field = linear_velocity(GRID, FREQUENCY, SOURCE, 2.0, gradient)
    twice = linear_velocity(GRID, FREQUENCY, SOURCE, 2.0, 2 * gradient)
    assert np.linalg.norm(field) < 0.02
    assert relative_l2(twice, 2 * field) < 0.01


def test_linear_velocity_solves_the_equation():
    points = SOURCE + [[0.4, 0.3], [-0.3, 0.7], [0.2, 0.6]]

    def field(x):
        incident = analytic.point_source(x - SOURCE, OMEGA / (1.5 + 0.8 * SOURCE[1]))
        return incident + linear_velocity(x, FREQUENCY, SOURCE, 1.5, 0.8)

    squared = (OMEGA / (1.5 + 0.8 * points[:, 1])) ** 2
    residual = laplacian(field, points, 4e-3) + squared * field(points)
    assert np.max(np.abs(residual) / np.abs(squared * field(points))) < 1e-5


def laplacian(function, points, step):
    """Sixth-order differences."""
    weights = np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * step**2)
    return sum(
        weight * function(points + shift * step * axis)
        for axis in np.eye(points.shape[1])
        for shift, weight in zip(range(-3, 4), weights, strict=True)
    )


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_equation_holds(name, ndim):
    profile = PROFILES[name]
    source = np.array([0.2, 0.7, 0.05])[-ndim:]
    offset = [[0.2, 0.4, 0.1], [-0.3, 0.2, 0.49], [0.2, 0.5, 0.7]]
    points = source + np.array(offset)[:, -ndim:]
    squared = (OMEGA / velocity_at(points[:, -1], *profile)) ** 2
    values = total(points, source, profile)
    residual = laplacian(lambda x: total(x, source, profile), points, 3e-3)
    residual = residual + squared * values
    assert np.max(np.abs(residual)) < 1e-4 * np.max(np.abs(squared * values))


@pytest.mark.parametrize("name", PROFILES)
def test_reciprocity(name):
    """u(A from B) = u(B from A), whatever their own velocities are."""
    profile = PROFILES[name]
    receiver = np.array([1.3, 0.81])
    there = total(receiver[None], SOURCE, profile)
    back = total(SOURCE[None], receiver, profile)
    assert abs(there - back) < 1e-8 * abs(there)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_scale(name, scale):
    depths, velocities = PROFILES[name]
    field = layered_medium(GRID, FREQUENCY, SOURCE, depths, velocities)
    scaled = layered_medium(
        scale * GRID,
        FREQUENCY / scale,
        scale * SOURCE,
        scale * np.array(depths),
        velocities,
    )
    # Rounding of depths decides which elements are split.
    assert relative_l2(scaled, field) < 1e-8


def test_mirrored_in_x_and_z():
    depths, velocities = map(np.array, PROFILES["gradients"])
    field = layered_medium(GRID, FREQUENCY, SOURCE, depths, velocities)
    sideways = layered_medium(
        GRID * [-1, 1], FREQUENCY, SOURCE * [-1, 1], depths, velocities
    )
    upside = layered_medium(
        GRID * [1, -1], FREQUENCY, SOURCE * [1, -1], -depths[::-1], velocities[::-1]
    )
    assert relative_l2(sideways, field) < 1e-12
    assert relative_l2(upside, field) < 1e-9


@pytest.mark.parametrize("name", PROFILES)
def test_path_and_elements_do_not_matter(name, monkeypatch):
    field = layered_medium(GRID, FREQUENCY, SOURCE, *PROFILES[name])
    for module, constant, value in (
        (layered_media, "_DEGREE", 12),
        (layered_media, "_SMALLEST_ELEMENT", 2e-4),
        (layered_media, "_PANEL_PHASE", 4.0),
        (layered_media, "_PANEL_POINTS", 20),
        (layered_media, "_TAIL", 1e-10),
    ):
        monkeypatch.setattr(module, constant, value)
    finer = layered_medium(GRID, FREQUENCY, SOURCE, *PROFILES[name])
    assert 0 < relative_l2(field, finer) < 2e-8


def test_a_ramp_approaches_the_jump():
    errors = []
    ideal = layered_medium(GRID, FREQUENCY, SOURCE, *PROFILES["half-spaces"])
    for width in (0.02, 0.01):
        depths = [0.5 - width / 2, 0.5 + width / 2]
        ramp = layered_medium(GRID, FREQUENCY, SOURCE, depths, [1.5, 3.0])
        errors.append(relative_l2(ramp, ideal))
    # The step stands in the middle of the ramp, so that the error is of second order.
    assert 3.6 < errors[0] / errors[1] < 4.4 and errors[1] < 0.003


def test_homogeneous_limits():
    """Nothing is scattered, and another background differs by the closed form."""
    depths, velocities = [0.0, 0.4, 1.0], [2.0, 2.0, 2.0]
    field = layered_medium(GRID, FREQUENCY, SOURCE, depths, velocities)
    assert np.max(np.abs(field)) < 1e-14
    shifted = layered_medium(
        GRID, FREQUENCY, SOURCE, depths, velocities, background_velocity=1.9
    )
    exact = analytic.shifted_background(GRID, FREQUENCY, SOURCE, 2.0, 1.9)
    chex.assert_trees_all_close(shifted, exact, atol=1e-12)
    halves = two_half_spaces(GRID, FREQUENCY, SOURCE, 0.5, 2.0, 2.0)
    assert np.max(np.abs(halves)) < 1e-14


def test_low_frequencies():
    """Wavelengths of 10 to 10,000 km: the static limit and ln of the frequency."""
    for frequency in (0.15, 1.5e-4):
        fields = [
            function(GRID, frequency, SOURCE, *rest)
            for function, rest in (
                (layered_medium, ([0.5, 0.5], [1.5, 3.0])),
                (two_half_spaces, (0.5, 1.5, 3.0)),
            )
        ]
        assert relative_l2(*fields) < 1e-8


def test_outgoing_and_amplitude():
    depths, velocities = PROFILES["gradients"]
    far = np.array([[0.7, -2.0], [0.7, -2.0 - 1e-4]])
    values = layered_medium(far, FREQUENCY, SOURCE, depths, velocities)
    phase = np.angle(values[1] / values[0]) / 1e-4
    assert abs(phase + OMEGA / 1.5) < 0.1 * OMEGA / 1.5
    scaled = layered_medium(far, FREQUENCY, SOURCE, depths, velocities, amplitude=1.925j)
    chex.assert_trees_all_close(scaled, 7.7 * values, rtol=1e-12)


def test_depth_profile():
    velocity = np.repeat(np.linspace(1.5, 3.0, 5)[:, None], 4, axis=1)
    model = VelocityModel(velocity, 0.1, origin=(0.0, -1.0))
    depths, speeds = depth_profile(model)
    np.testing.assert_allclose(depths, -1 + 0.1 * np.arange(5))
    np.testing.assert_allclose(speeds, velocity[:, 0])
    velocity[2, 1] += 0.1
    with pytest.raises(ValueError, match="must vary with depth alone"):
        depth_profile(model.replace_velocity(velocity))


def test_rounded_depths_make_no_slivers():
    """A source that misses a node by rounding stands on it."""
    depths, velocities = np.array([0.0, 0.05, 1.0]), [1.5, 1.8, 3.0]
    field = layered_medium(GRID, FREQUENCY, SOURCE, depths, velocities)
    nearly = layered_medium(GRID, FREQUENCY, SOURCE, depths + 3e-17, velocities)
    assert relative_l2(nearly, field) < 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency": 0.0}, "frequency must be positive, got 0.0 Hz"),
        ({"depths": [0.5, 0.4]}, "depths must be finite and not fall"),
        ({"depths": [0.5]}, "must be lists of the same length"),
        ({"velocities": [1.5, -3.0]}, "velocities must be positive"),
        ({"depths": [0.05, 0.05]}, "the source lies on a jump"),
        ({"background_velocity": -1.0}, "background velocity must be positive"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {
        "points": GRID,
        "frequency": FREQUENCY,
        "source": SOURCE,
        "depths": [0.5, 0.5],
        "velocities": [1.5, 3.0],
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        layered_medium(**arguments)
    with pytest.raises(ValueError, match="the source lies on the interface"):
        two_half_spaces(GRID, FREQUENCY, SOURCE, SOURCE[1], 1.5, 3.0)
    with pytest.raises(ValueError, match="gradient must not be zero"):
        linear_velocity(GRID, FREQUENCY, SOURCE, 1.5, 0.0)
    with pytest.raises(ValueError, match="velocity must be positive at the source"):
        linear_velocity(GRID, FREQUENCY, SOURCE, 1.5, -2.0)


def test_points_have_the_columns_of_the_source():
    with pytest.raises(AssertionError, match="assert_shape"):
        layered_medium(np.zeros((4, 3)), FREQUENCY, SOURCE, [0.0], [2.0])
