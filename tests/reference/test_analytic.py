"""Exact solutions: they solve the equation, are continuous, and converge."""

import chex
import jax
import numpy as np
import pytest

from meta_lrpinn.physics import background
from meta_lrpinn.reference import analytic

FREQUENCY = 6.0
OMEGA = 2 * np.pi * FREQUENCY
INSIDE, OUTSIDE = 2.7, 1.9
RADIUS = 0.31
CASES = {
    2: (
        analytic.circular_inclusion,
        {"source": np.array([-0.2, 0.1]), "centre": np.array([0.4, 0.5])},
    ),
    3: (
        analytic.spherical_inclusion,
        {"source": np.array([-0.2, 0.3, 0.1]), "centre": np.array([0.4, 0.2, 0.5])},
    ),
}


def scattered(ndim, points, **changes):
    function, where = CASES[ndim]
    arguments = {
        "frequency": FREQUENCY,
        "radius": RADIUS,
        "velocity_inside": INSIDE,
        "velocity_outside": OUTSIDE,
        **where,
        **changes,
    }
    return function(np.atleast_2d(points), **arguments)


def directions(ndim, count=12):
    vectors = np.random.default_rng(0).normal(size=(count, ndim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def laplacian(function, points, step):
    """Fourth-order differences."""
    total = 0
    for axis in np.eye(points.shape[1]):
        for shift, weight in ((-2, -1), (-1, 16), (0, -30), (1, 16), (2, -1)):
            total = total + weight * function(points + shift * step * axis)
    return total / (12 * step**2)


@pytest.mark.parametrize("ndim", [2, 3])
def test_point_source_agrees_with_the_jax_form(ndim):
    rng = np.random.default_rng(1)
    offset = rng.normal(size=(200, ndim))
    offset = offset - 0.3j * np.sign(offset) * rng.random((200, ndim))
    amplitude = background.default_amplitude(ndim)
    with jax.enable_x64(True):
        expected = background.background_field(offset, 17.0, amplitude)
    chex.assert_trees_all_close(
        analytic.point_source(offset, 17.0), np.asarray(expected), rtol=1e-9
    )


def test_point_source_is_outgoing():
    """A H₀⁽²⁾(kr) → A √(2/πkr) e^{−i(kr − π/4)}."""
    k, r = 40.0, 50.0
    value = analytic.point_source(np.array([[r, 0.0]]), k, 1.0)[0]
    far = np.sqrt(2 / (np.pi * k * r)) * np.exp(-1j * (k * r - np.pi / 4))
    assert abs(value - far) < 1e-3 * abs(far)


@pytest.mark.parametrize("ndim", [2, 3])
def test_shifted_background_solves_the_scattered_equation(ndim):
    source = np.full(ndim, 0.1)
    points = source + 0.4 * directions(ndim)

    def field(x):
        return analytic.shifted_background(x, FREQUENCY, source, INSIDE, OUTSIDE)

    incident = analytic.point_source(points - source, OMEGA / OUTSIDE)
    contrast = INSIDE**-2 - OUTSIDE**-2
    chex.assert_trees_all_close(
        laplacian(field, points, 2e-3) + (OMEGA / INSIDE) ** 2 * field(points),
        -(OMEGA**2) * contrast * incident,
        rtol=1e-4,
    )


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_inclusion_solves_the_equation(ndim, place):
    centre, source = (CASES[ndim][1][name] for name in ("centre", "source"))
    scale, velocity = (0.6, INSIDE) if place == "inside" else (1.4, OUTSIDE)
    points = centre + scale * RADIUS * directions(ndim)
    contrast = velocity**-2 - OUTSIDE**-2
    incident = analytic.point_source(points - source, OMEGA / OUTSIDE)
    values = scattered(ndim, points)
    chex.assert_shape(values, (len(points),))
    residual = (
        laplacian(lambda x: scattered(ndim, x), points, 2e-3)
        + (OMEGA / velocity) ** 2 * values
        + OMEGA**2 * contrast * incident
    )
    scale = np.max(np.abs((OMEGA / velocity) ** 2 * values))
    assert np.max(np.abs(residual)) < 1e-4 * scale


@pytest.mark.parametrize("ndim", [2, 3])
def test_inclusion_is_continuous_with_its_normal_derivative(ndim):
    centre = CASES[ndim][1]["centre"]
    normal = directions(ndim)
    step = 1e-4

    def at(distance):
        return scattered(ndim, centre + distance * normal)

    inside, outside = at(RADIUS * (1 - 1e-9)), at(RADIUS * (1 + 1e-9))
    scale = np.max(np.abs(inside))
    chex.assert_trees_all_close(inside, outside, atol=1e-6 * scale)

    def slope(side):  # one-sided, third order
        edge = RADIUS * (1 + side * 1e-9)
        weights = (-11 / 6, 3.0, -1.5, 1 / 3)
        total = sum(w * at(edge + side * j * step) for j, w in enumerate(weights))
        return side * total / step

    inner, outer = slope(-1), slope(1)
    chex.assert_trees_all_close(inner, outer, atol=1e-4 * np.max(np.abs(inner)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_series_converges_with_its_terms(ndim):
    centre = CASES[ndim][1]["centre"]
    points = centre + np.outer(np.linspace(0.0, 3.0, 30), directions(ndim, 1)[0])
    full = scattered(ndim, points)
    errors = [
        np.linalg.norm(scattered(ndim, points, terms=terms) - full) / np.linalg.norm(full)
        for terms in (5, 10, 15, 25)
    ]
    assert errors[0] > 1e-3 and errors[-1] < 1e-11
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("ndim", [2, 3])
def test_no_contrast_scatters_nothing(ndim):
    centre = CASES[ndim][1]["centre"]
    points = centre + np.outer(np.linspace(0.01, 1.0, 20), directions(ndim, 1)[0])
    field = scattered(ndim, points, velocity_inside=OUTSIDE)
    chex.assert_trees_all_close(field, np.zeros_like(field), atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_high_frequencies_stay_finite(ndim):
    """Size parameter k a near 200, and points far away and at the centre."""
    centre = CASES[ndim][1]["centre"]
    points = centre + np.outer([0.0, 0.2, 0.4, 100.0], directions(ndim, 1)[0])
    field = scattered(ndim, points, frequency=200.0)
    assert np.all(np.isfinite(field)) and np.all(np.abs(field) > 0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_reciprocity(ndim):
    """Source and receiver change places."""
    source, centre = (CASES[ndim][1][name] for name in ("source", "centre"))
    receiver = centre + 1.7 * RADIUS * directions(ndim, 1)[0]
    there = scattered(ndim, receiver)
    back = scattered(ndim, source, source=receiver)
    chex.assert_trees_all_close(there, back, rtol=1e-10)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": -1.0}, "radius must be positive, got -1.0 km"),
        ({"frequency": 0.0}, "frequency must be positive, got 0.0 Hz"),
        ({"radius": 3.0}, "source must lie outside the inclusion"),
    ],
)
def test_bad_arguments(ndim, changes, message):
    with pytest.raises(ValueError, match=message):
        scattered(ndim, np.zeros(ndim), **changes)
