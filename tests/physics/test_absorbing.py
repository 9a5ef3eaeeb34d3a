"""The absorbing layer: profile, integral, sign, reflection, envelope."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.physics import absorbing

LOWER, UPPER = np.array([0.0, -0.5, 1.0]), np.array([2.0, 1.5, 4.0])
THICKNESS, VELOCITY, REFLECTION = 0.4, 3.0, 1e-3
OMEGA = 2 * np.pi * 5.0


def layer_of(ndim, thickness=THICKNESS):
    return absorbing.make_layer(LOWER[:ndim], UPPER[:ndim], thickness, VELOCITY, REFLECTION)


def points_around(ndim, count=200):
    rng = np.random.default_rng(0)
    lower, upper = LOWER[:ndim] - THICKNESS, UPPER[:ndim] + THICKNESS
    return rng.uniform(lower, upper, (count, ndim))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("ndim", [2, 3])
def test_nothing_happens_inside(ndim):
    rng = np.random.default_rng(1)
    points = rng.uniform(LOWER[:ndim], UPPER[:ndim], (50, ndim))
    layer = layer_of(ndim)
    for function in (
        absorbing.damping,
        absorbing.damping_slope,
        absorbing.damping_integral,
    ):
        value = function(layer, points)
        chex.assert_shape(value, (50, ndim))
        np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(absorbing.stretch(layer, points, OMEGA), 1.0)
    envelope, slope = absorbing.envelope(layer, points, VELOCITY)
    np.testing.assert_array_equal(envelope, 1.0)
    np.testing.assert_array_equal(slope, 0.0)


def test_damping_is_quadratic_and_positive_on_either_side():
    layer = layer_of(2)
    x = np.array([[2.4, 0.0], [2.2, 0.0], [-0.2, 0.0], [1.0, 1.7], [1.0, -0.9]])
    strength = float(layer.strength)
    expected = strength * np.array([[1, 0], [0.25, 0], [0.25, 0], [0, 0.25], [0, 1]])
    np.testing.assert_allclose(absorbing.damping(layer, x), expected, atol=1e-12)
    integral = (
        strength
        * THICKNESS
        / 3
        * np.array([[1, 0], [0.125, 0], [-0.125, 0], [0, 0.125], [0, -1]])
    )
    np.testing.assert_allclose(absorbing.damping_integral(layer, x), integral, atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_each_is_the_derivative_of_the_other(ndim):
    layer, points, step = layer_of(ndim), points_around(ndim), 1e-6

    def difference(function):
        return (function(layer, points + step) - function(layer, points - step)) / (
            2 * step
        )

    np.testing.assert_allclose(
        difference(absorbing.damping_integral),
        absorbing.damping(layer, points),
        atol=1e-4,
    )
    # σ″ jumps at the edge of the box, where the difference is off by its step.
    np.testing.assert_allclose(
        difference(absorbing.damping), absorbing.damping_slope(layer, points), atol=1e-2
    )


def test_strength_gives_the_reflection():
    """A wave of velocity v crosses the layer twice: R = exp(−2 ∫σ dx / v)."""
    layer = layer_of(2)
    edge = np.array([[2.0 + THICKNESS, 0.0]])
    crossing = absorbing.damping_integral(layer, edge)[0, 0]
    np.testing.assert_allclose(np.exp(-2 * crossing / VELOCITY), REFLECTION, rtol=1e-9)


def test_stretching_damps_outgoing_waves():
    """s = 1 − iσ/ω, dx̃/dx = s, and e^{−ikx̃} decays on either side."""
    layer, points = layer_of(3), points_around(3)
    stretch = absorbing.stretch(layer, points, OMEGA)
    np.testing.assert_allclose(
        stretch, 1 - 1j * absorbing.damping(layer, points) / OMEGA, rtol=1e-12
    )
    source, step = np.array([0.3, 0.2, 2.0]), 1e-6

    def offset(x):
        return absorbing.stretched_offset(layer, x, source, OMEGA)

    slope = (offset(points + step) - offset(points - step)) / (2 * step)
    np.testing.assert_allclose(slope, stretch, atol=1e-5)
    ahead, behind = offset(np.array([[2.3, 0.2, 2.0], [-0.3, 0.2, 2.0]]))
    assert ahead[0].imag < 0 < behind[0].imag
    for one, sign in ((ahead[0], 1), (behind[0], -1)):
        assert np.abs(np.exp(-1j * OMEGA / VELOCITY * sign * one)) < 1


def test_slope_of_the_stretching():
    layer, points, step = layer_of(2), points_around(2), 1e-6
    difference = (
        absorbing.stretch(layer, points + step, OMEGA)
        - absorbing.stretch(layer, points - step, OMEGA)
    ) / (2 * step)
    slope = absorbing.stretch_slope(layer, points, OMEGA)
    np.testing.assert_allclose(difference, slope, atol=1e-3)
    assert np.max(np.abs(slope)) > 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_envelope_and_its_logarithmic_gradient(ndim):
    layer, points = layer_of(ndim), jnp.asarray(points_around(ndim))
    value, slope = absorbing.envelope(layer, points, 2.5)
    chex.assert_shape([value, slope], [(200,), (200, ndim)])
    integral = np.abs(absorbing.damping_integral(layer, points))
    np.testing.assert_allclose(value, np.exp(-integral.sum(1) / 2.5), rtol=1e-12)

    def logarithm(point):
        return jnp.log(absorbing.envelope(layer, point[None], 2.5)[0][0])

    np.testing.assert_allclose(slope, jax.vmap(jax.grad(logarithm))(points), atol=1e-9)
    assert np.min(value) < 0.2


def test_envelope_decays_as_an_outgoing_wave_does():
    """|e^{−iωx̃/v}| is the envelope, whatever the frequency."""
    layer = layer_of(2)
    points = np.array([[2.35, 0.5], [-0.25, 0.5]])
    offset = absorbing.stretched_offset(layer, points, np.array([1.0, 0.5]), OMEGA)
    wave = np.exp(-1j * OMEGA / VELOCITY * np.sign(offset[:, 0].real) * offset[:, 0])
    value, _ = absorbing.envelope(layer, points, VELOCITY)
    np.testing.assert_allclose(np.abs(wave), value, rtol=1e-10)


def test_thickness_zero_is_no_layer():
    layer, points = layer_of(2, thickness=0.0), points_around(2)
    np.testing.assert_array_equal(absorbing.stretch(layer, points, OMEGA), 1.0)
    np.testing.assert_array_equal(absorbing.stretch_slope(layer, points, OMEGA), 0.0)
    source = np.array([1.0, 0.0])
    np.testing.assert_allclose(
        absorbing.stretched_offset(layer, points, source, OMEGA), points - source
    )
    np.testing.assert_array_equal(absorbing.envelope(layer, points, 2.0)[0], 1.0)


def test_layers_can_be_stacked():
    layers = jax.tree.map(lambda *x: np.stack(x), layer_of(2), layer_of(2, 0.8))
    points = np.array([[2.4, 0.0]])
    stacked = jax.vmap(absorbing.damping, in_axes=(0, None))(layers, points)
    for index, thickness in enumerate((0.4, 0.8)):
        alone = absorbing.damping(layer_of(2, thickness), points)
        np.testing.assert_allclose(stacked[index], alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("thickness", "reflection", "message"),
    [
        (-0.1, 1e-4, "thickness must not be negative, got -0.1 km"),
        (0.3, 0.0, "reflection must lie between 0 and 1, got 0.0"),
        (0.3, 1.5, "reflection must lie between 0 and 1, got 1.5"),
        (float("nan"), 1e-4, "thickness must not be negative, got nan km"),
    ],
)
def test_bad_input(thickness, reflection, message):
    with pytest.raises(ValueError, match=message):
        absorbing.make_layer(LOWER, UPPER, thickness, 2.0, reflection)


def ray_damping(layer, axis, velocity, across):
    """Damping of a ray that crosses the layer of an axis twice, X apart."""
    twice = 2 * float(layer.thickness)
    cosine = twice / np.hypot(twice, across)
    return np.exp(-2 * cosine * layer.strength[axis] * layer.thickness / 3 / velocity)


@pytest.mark.parametrize("upper", [(1.0, 1.0), (10.0, 0.5), (2.0, 0.5, 3.0)])
def test_layer_by_geometry_damps_the_most_grazing_ray(upper):
    upper = np.array(upper)
    layer = absorbing.layer_by_geometry(0 * upper, upper, 30.0, 1.5, 4.5, 1e-4)
    for axis in range(len(upper)):
        across = np.linalg.norm(np.delete(upper, axis))
        assert ray_damping(layer, axis, 4.5, across) == pytest.approx(1e-4)
        assert ray_damping(layer, axis, 1.5, 0.0) < 1e-12


def test_layer_by_geometry_has_no_lengths_of_its_own():
    for omega in (0.01, 30.0):  # longer and shorter than the model
        one = absorbing.layer_by_geometry((0, 0), (2, 1), omega, 1.5, 3.0)
        other = absorbing.layer_by_geometry((0, 0), (2e-6, 1e-6), omega * 1e6, 1.5, 3.0)
        np.testing.assert_allclose(other.thickness, one.thickness * 1e-6, rtol=1e-12)
        np.testing.assert_allclose(other.strength, one.strength * 1e6, rtol=1e-12)
    assert (
        one.thickness < 0.9
        and absorbing.layer_by_geometry((0, 0), (2, 1), 1e-4, 1.5, 3.0).thickness < 3
    )


def test_layer_by_geometry_of_a_given_thickness():
    layer = absorbing.layer_by_geometry((0, 0), (2, 1), 30.0, 1.5, 3.0, thickness=0.7)
    assert layer.thickness == 0.7 and layer.strength[1] > layer.strength[0]
    none = absorbing.layer_by_geometry((0, 0), (2, 1), 30.0, 1.5, 3.0, thickness=0)
    np.testing.assert_array_equal(none.strength, 0)
