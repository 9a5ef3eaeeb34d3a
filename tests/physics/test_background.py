"""The background field: Hankel functions, normalisation, direction, continuation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from meta_lrpinn.physics import background

RADIUS = np.geomspace(1e-3, 100, 61)
ARGUMENT = -np.linspace(0, 1.5, 13)
K = 12.0  # rad/km


def fourth_quadrant():
    return (RADIUS[:, None] * np.exp(1j * ARGUMENT)).ravel()


def test_hankel_function_agrees_with_scipy_in_double():
    z = fourth_quadrant()
    with jax.enable_x64(True):
        value = background.hankel0(jnp.asarray(z))
        chex.assert_shape(value, z.shape)
        assert value.dtype == jnp.complex128
        np.testing.assert_allclose(value, scipy.special.hankel2(0, z), rtol=1e-11)


def test_hankel_function_agrees_with_scipy_in_single():
    z = fourth_quadrant().astype(np.complex64)
    value = background.hankel0(jnp.asarray(z))
    assert value.dtype == jnp.complex64
    exact = scipy.special.hankel2(0, z.astype(complex))
    np.testing.assert_allclose(value, exact, rtol=2e-5, atol=1e-30)


def test_hankel_function_of_real_arguments_is_complex():
    z = np.array([0.5, 3.9, 4.1, 20.0])
    value = background.hankel0(jnp.asarray(z, jnp.float32))
    assert value.dtype == jnp.complex64
    np.testing.assert_allclose(value, scipy.special.hankel2(0, z), rtol=2e-5)


def test_gradient_of_the_hankel_function():
    """H₀′ = −H₁, on either side of the crossover of the two expansions."""
    z = np.array([1e-3, 3.999999, 4.0, 4.000001, 30.0]) * np.exp(-0.3j)
    with jax.enable_x64(True):

        @jax.jit
        def checked(z):
            _, slope = jax.jvp(background.hankel0, (z,), (jnp.ones_like(z),))
            energy = jax.grad(lambda z: jnp.sum(jnp.abs(background.hankel0(z)) ** 2))
            return slope, energy(z), background.hankel0(z)

        slope, backward, _ = checked(jnp.asarray(z))
        ahead, behind = (checked(z * (1 + d))[2] for d in (1e-6, -1e-6))
        difference = (ahead - behind) / (2e-6 * z)
    np.testing.assert_allclose(slope, -scipy.special.hankel2(1, z), rtol=1e-10)
    np.testing.assert_allclose(np.asarray(difference), slope, rtol=1e-6)
    assert np.all(np.isfinite(backward))


@pytest.mark.parametrize(("ndim", "amplitude"), [(2, 0.25j), (3, -1 / (4 * np.pi))])
def test_default_amplitude(ndim, amplitude):
    assert background.default_amplitude(ndim) == pytest.approx(amplitude, rel=1e-15)


def radial(ndim, r, amplitude=None):
    """u₀ at distances r (n,) along some direction."""
    if amplitude is None:
        amplitude = background.default_amplitude(ndim)
    direction = np.array([0.6, 0.8, 0.0])[:ndim]
    return background.background_field(r[..., None] * direction, K, amplitude)


@pytest.mark.parametrize("ndim", [2, 3])
def test_default_amplitude_gives_the_fundamental_solution(ndim):
    """∮ ∂u₀/∂r dS → ∫ δ dx = 1 around the source."""
    with jax.enable_x64(True):
        r = jnp.array([1e-6])
        _, slope = jax.jvp(lambda r: radial(ndim, r), (r,), (jnp.ones(1),))
        area = {2: 2 * np.pi * r, 3: 4 * np.pi * r**2}[ndim]
        np.testing.assert_allclose(slope * area, [1.0], atol=1e-8)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("is_stretched", [False, True])
def test_helmholtz_equation_away_from_the_source(ndim, is_stretched):
    """Also at complex offsets: the continuation is analytic in each of them."""
    rng = np.random.default_rng(0)
    offset = rng.uniform(-1, 1, (20, ndim)) + 0j
    if is_stretched:
        offset = offset - 0.3j * np.sign(offset.real) * rng.random((20, ndim))

    with jax.enable_x64(True):
        step = 1e-3
        shifts = step * np.eye(ndim)[:, None] * np.array([-2, -1, 0, 1, 2])[:, None]
        field = background.background_field(offset[:, None, None] + shifts, K, 0.3 - 1.2j)
    chex.assert_shape(field, (20, ndim, 5))
    field = np.asarray(field)
    second = field @ [-1, 16, -30, 16, -1] / (12 * step**2)
    restoring = K**2 * field[:, 0, 2]
    assert np.all(np.abs(second.sum(1) + restoring) < 1e-5 * np.abs(restoring))


@pytest.mark.parametrize("ndim", [2, 3])
def test_waves_are_outgoing(ndim):
    """With e^{+iωt}, outgoing is e^{−ikr}: the phase falls by k per km."""
    with jax.enable_x64(True):
        r = jnp.array([5.0, 5.001])
        near, far = radial(ndim, r)
        np.testing.assert_allclose(np.angle(far / near), -K * 0.001, rtol=1e-3)
        decay = {2: np.sqrt(np.pi * K * r[0] / 2), 3: r[0]}[ndim]
        phase = {2: np.pi / 4, 3: 0.0}[ndim]
        plane = near * decay * np.exp(1j * (K * r[0] - phase))
        amplitude = background.default_amplitude(ndim)
        np.testing.assert_allclose(plane, amplitude, rtol=3e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_waves_decay_along_the_stretched_coordinate(ndim):
    depth = 0.5  # km, ∫σ dx / ω
    direction = np.eye(ndim)[0]
    with jax.enable_x64(True):
        here = background.background_field(jnp.asarray(2.0 * direction), K, 1.0)
        stretched = background.background_field((2.0 - 1j * depth) * direction, K, 1.0)
        mirrored = background.background_field((-2.0 + 1j * depth) * direction, K, 1.0)
        ratio = np.abs(stretched / here)
        np.testing.assert_allclose(ratio, np.exp(-K * depth), rtol=0.05)
        np.testing.assert_allclose(mirrored, stretched, rtol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_source_itself_is_finite(ndim):
    with jax.enable_x64(True):
        offset = jnp.zeros((1, ndim))
        assert np.all(np.isfinite(background.background_field(offset, K, 1.0)))
        gradient = jax.grad(lambda x: jnp.abs(background.background_field(x, K, 1.0)[0]))(
            offset
        )
        assert np.all(np.isfinite(gradient))


def test_complex_distance_continues_the_distance():
    offset = np.array([[3.0, 4.0], [3.0 - 1.0j, 4.0 - 2.0j]])
    distance = background.complex_distance(jnp.asarray(offset))
    exact = [5.0, np.sqrt((3 - 1j) ** 2 + (4 - 2j) ** 2)]
    np.testing.assert_allclose(distance, exact, rtol=1e-6)
    assert np.all(np.imag(distance[1:]) < 0)


def test_one_column_is_refused():
    with pytest.raises(AssertionError, match="assert_shape"):
        background.background_field(np.zeros((4, 1)), K, 1.0)
