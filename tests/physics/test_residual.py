"""The residual vanishes for exact solutions, and for nothing else."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.physics import absorbing, background, residual

OMEGA = 2 * np.pi * 5.0
VELOCITY, BACKGROUND_VELOCITY = 2.6, 1.9
AMPLITUDE = 0.7 - 0.4j


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def setting(ndim):
    """A layer around the unit box, a source in it, points on all sides."""
    layer = absorbing.make_layer(np.zeros(ndim), np.ones(ndim), 0.3, 2.2, 1e-3)
    source = np.array([0.52, 0.31, 0.48])[:ndim]
    points = np.random.default_rng(0).uniform(-0.28, 1.28, (300, ndim))
    points = points[np.linalg.norm(points - source, axis=1) > 0.15]
    return layer, source, points


def difference_derivatives(function, points, step=2e-3):
    """Gradient and curvature (n, ndim), by sixth-order differences."""
    ndim = points.shape[1]
    shifts = np.arange(-3, 4)
    moved = points[:, None, None] + step * np.eye(ndim)[:, None] * shifts[:, None]
    values = np.asarray(function(moved.reshape(-1, ndim))).reshape(-1, ndim, 7)
    first = values @ np.array([-1, 9, -45, 0, 45, -9, 1]) / (60 * step)
    second = values @ np.array([2, -27, 270, -490, 270, -27, 2]) / (180 * step**2)
    return first, second


def relative_residual(
    ndim, *, convention=1, solution_layer=True, source_layer=True, sign=1
):
    """Of δu = u_v − u_{v₀} in a homogeneous medium, with one thing made wrong.

    Points within a step of the edge of the box, where σ″ jumps, are left out.
    """
    layer, source, points = setting(ndim)
    depth = np.minimum(np.abs(points), np.abs(points - 1))
    points = points[np.all(depth > 0.01, axis=1)]

    def background_field(x, velocity, is_stretched=True):
        offset = absorbing.stretched_offset(layer, x, source, OMEGA)
        offset = offset if is_stretched else x - source
        return background.background_field(offset, OMEGA / velocity, AMPLITUDE)

    def scattered(x):
        total = background_field(x, VELOCITY, solution_layer)
        field = total - background_field(x, BACKGROUND_VELOCITY, solution_layer)
        return field if convention == 1 else jnp.conj(field)

    first, second = difference_derivatives(scattered, points)
    laplacian = residual.stretched_laplacian(
        first,
        second,
        absorbing.stretch(layer, points, OMEGA),
        absorbing.stretch_slope(layer, points, OMEGA),
    )
    slowness = np.full(len(points), VELOCITY**-2.0)
    load = residual.scattering_source(
        slowness,
        BACKGROUND_VELOCITY**-2.0,
        sign * background_field(points, BACKGROUND_VELOCITY, source_layer),
        OMEGA,
    )
    remainder = residual.helmholtz_residual(
        scattered(points), laplacian, slowness, load, OMEGA
    )
    chex.assert_shape(remainder, (len(points),))
    return np.linalg.norm(remainder) / np.linalg.norm(load)


@pytest.mark.parametrize("ndim", [2, 3])
def test_shifted_background_solves_the_equation(ndim):
    assert relative_residual(ndim) < 1e-5


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "wrong",
    [
        {"convention": -1},  # e^{−iωt}
        {"sign": -1},  # sign of the right-hand side
        {"source_layer": False},  # u₀ not continued into the layer
        {"solution_layer": False, "source_layer": False},  # equation stretched alone
    ],
)
def test_wrong_conventions_do_not(ndim, wrong):
    assert relative_residual(ndim, **wrong) > 0.05


def test_manufactured_solution():
    """δu = sin(ax) e^{ibz} without a layer: Δδu = −(a² + b²) δu."""
    a, b = 7.0, -4.0
    x, z = np.random.default_rng(1).random((2, 50))
    field = np.sin(a * x) * np.exp(1j * b * z)
    gradient = np.stack([a * np.cos(a * x) * np.exp(1j * b * z), 1j * b * field], -1)
    second = np.stack([-(a**2) * field, -(b**2) * field], -1)
    laplacian = residual.stretched_laplacian(
        gradient, second, np.ones((50, 2)), np.zeros((50, 2))
    )
    np.testing.assert_allclose(laplacian, -(a**2 + b**2) * field, atol=1e-10)
    slowness, load = 0.1 + x, x - 2j * z
    remainder = residual.helmholtz_residual(field, laplacian, slowness, load, 3.0)
    expected = (9.0 * slowness - a**2 - b**2) * field - load
    np.testing.assert_allclose(remainder, expected, atol=1e-10)


def test_scattering_source_has_the_sign_and_unit_of_the_equation():
    """−ω² (m − m₀) u₀, zero where the medium is the background."""
    load = residual.scattering_source(np.array([0.25, 0.04]), 0.25, 2j, 3.0)
    np.testing.assert_allclose(load, [0.0, 9.0 * 0.21 * 2j], rtol=1e-12)


def test_shapes_are_asserted():
    ones = np.ones((50, 2))
    with pytest.raises(AssertionError, match="assert_equal_shape"):
        residual.stretched_laplacian(ones, ones, ones, ones[:, :1])
    with pytest.raises(AssertionError, match="assert_shape"):
        residual.as_complex(np.ones((5, 3)))


def test_stretched_laplacian_is_the_derivative_along_the_stretched_coordinate():
    """(1/s) d/dx ((1/s) du/dx) of u = e^{−ikx̃} is −k² u."""
    layer, source, points = setting(2)
    k = 9.0

    def wave(x):
        offset = absorbing.stretched_offset(layer, x, source, OMEGA)
        return np.exp(-1j * k * offset[:, 0])

    inside = np.all(np.minimum(np.abs(points), np.abs(points - 1)) > 0.01, axis=1)
    points = points[inside]
    laplacian = residual.stretched_laplacian(
        *difference_derivatives(wave, points),
        absorbing.stretch(layer, points, OMEGA),
        absorbing.stretch_slope(layer, points, OMEGA),
    )
    np.testing.assert_allclose(laplacian, -(k**2) * wave(points), atol=1e-4 * k**2)


def test_real_and_complex_forms_are_inverse():
    pairs = np.random.default_rng(3).normal(size=(5, 2))
    field = residual.as_complex(jnp.asarray(pairs))
    np.testing.assert_array_equal(field, pairs[:, 0] + 1j * pairs[:, 1])
    np.testing.assert_array_equal(residual.as_real(field), pairs)
