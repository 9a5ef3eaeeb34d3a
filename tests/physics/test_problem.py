"""Problems: defaults, checked input, coefficients at points, sampling."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.physics import absorbing, background
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic

FREQUENCY, SOURCE = 5.0, (0.3, 0.1)


def gradient_model(ndim=2, origin=None):
    """Velocity 1.5 at the top to 3.0 at 1 km depth; 1 km wide, 0.1 km grid."""
    depth = np.linspace(1.5, 3.0, 11).reshape((11,) + (1,) * (ndim - 1))
    return VelocityModel(np.broadcast_to(depth, (11,) * ndim), 0.1, origin)


def test_defaults():
    problem = make_problem(gradient_model(), FREQUENCY, SOURCE)
    assert problem.ndim == 2
    np.testing.assert_allclose(problem.omega, 2 * np.pi * 5)
    np.testing.assert_allclose(problem.background_velocity, 1.65, rtol=1e-12)
    np.testing.assert_allclose(problem.amplitude, 0.25j)
    # A layer for all rays of a square of 1 km, waves of 1.5 to 3 km/s.
    layer = problem.layer
    expected = absorbing.layer_by_geometry((0, 0), (1, 1), 10 * np.pi, 1.5, 3.0, 1e-5)
    chex.assert_trees_all_close(layer, expected, rtol=1e-12)
    np.testing.assert_allclose(problem.lower, -layer.thickness, rtol=1e-12)
    np.testing.assert_allclose(problem.upper, 1 + layer.thickness, rtol=1e-12)
    # The envelope falls to √R at the outer edge, whatever the strength.
    edge = np.stack([problem.upper, [0.5, problem.upper[1]]])
    envelope = problems.envelope_at(problem, edge)
    np.testing.assert_allclose(envelope, [1e-5, 1e-5**0.5], rtol=1e-5)
    deep = make_problem(gradient_model(3), FREQUENCY, (0.3, 0.5, 0.1))
    np.testing.assert_allclose(deep.amplitude, -1 / (4 * np.pi))
    assert deep.ndim == 3


@pytest.mark.parametrize(
    ("frequency", "v0", "expected"),
    [(5.0, 1.65, 0.495), (5.0, 4.0, 0.8), (50.0, 1.65, 0.3)],
)
def test_default_thickness(frequency, v0, expected):
    """The longest of 1.1 mean wavelengths, a background wavelength and 0.3 km."""
    thickness = problems.default_thickness(gradient_model(), frequency, v0)
    np.testing.assert_allclose(thickness, expected, rtol=1e-12)
    half = make_problem(
        gradient_model(), frequency, SOURCE, background_velocity=v0, layer_fraction=0.5
    )
    np.testing.assert_allclose(half.layer.thickness, expected / 2, rtol=1e-12)


def test_layer_of_networks():
    """What they are trained in: 1.1 wavelengths at the mean velocity, and R there."""
    problem = make_problem(gradient_model(), FREQUENCY, SOURCE, layer_fraction=1.0)
    expected = absorbing.make_layer((0, 0), (1, 1), 0.495, 2.25, 1e-5)
    chex.assert_trees_all_close(problem.layer, expected, rtol=1e-12)
    np.testing.assert_allclose(problem.envelope_velocity, 0.9 * 2.25, rtol=1e-12)


def test_options():
    problem = make_problem(
        gradient_model(origin=(2.0, -1.0)),
        FREQUENCY,
        (2.3, -0.5),
        amplitude=1.925j,
        background_velocity=1.8,
        thickness=0.0,
    )
    np.testing.assert_array_equal(problem.lower, [2.0, -1.0])
    np.testing.assert_allclose(problem.upper, [3.0, 0.0], atol=1e-12)
    assert problem.amplitude == 1.925j
    assert problem.background_velocity == 1.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"frequency": 0.0}, "frequency must be positive, got 0.0 Hz"),
        ({"frequency": np.nan}, "frequency must be positive, got nan Hz"),
        ({"frequency": np.inf}, "frequency must be positive, got inf Hz"),
        ({"source": (0.3,)}, r"source must have 2 coordinates, got \[0.3\]"),
        ({"source": (0.3, 0.1, 0.2)}, "source must have 2 coordinates"),
        ({"source": (1.4, 0.1)}, "source .* lies outside the model, x 0.* to 1"),
        ({"background_velocity": 0.0}, "background velocity must be positive, got 0.0"),
        ({"background_velocity": np.nan}, "background velocity must be positive"),
        ({"background_velocity": np.inf}, "background velocity must be positive"),
        ({"thickness": -0.2}, "thickness must not be negative, got -0.2 km"),
        ({"amplitude": np.nan}, "amplitude must be finite and not zero, got nan"),
        ({"amplitude": 0.0}, "amplitude must be finite and not zero, got 0"),
        ({"reflection": 2.0}, "reflection must lie between 0 and 1, got 2.0"),
    ],
)
def test_bad_input(changes, message):
    arguments = {"frequency": FREQUENCY, "source": SOURCE, **changes}
    with pytest.raises(ValueError, match=message) as error:
        make_problem(gradient_model(), **arguments)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def collocated():
    """Points in the model and in its layer, and what the problem is there."""
    points = np.random.default_rng(0).uniform(-0.45, 1.45, (60, 2))
    with jax.enable_x64(True):
        problem = make_problem(gradient_model(), FREQUENCY, SOURCE, thickness=0.495)
        collocation = jax.jit(problems.collocate)(problem, points)
        return problem, jax.device_get(collocation)


def test_collocation_shapes(collocated):
    _, collocation = collocated
    chex.assert_shape(collocation.points, (60, 2))
    chex.assert_shape([collocation.stretch, collocation.stretch_slope], (60, 2))
    chex.assert_shape([collocation.squared_slowness, collocation.scattering_source], (60,))


def test_collocation_against_plain_numpy(collocated):
    problem, collocation = collocated
    points, omega = collocation.points, 2 * np.pi * FREQUENCY
    # Edge values continue into the layer.
    nodes = np.linspace(0, 1, 11)
    slowness = np.interp(points[:, 1], nodes, (1.5 + 1.5 * nodes) ** -2)
    own = np.interp(SOURCE[1], nodes, (1.5 + 1.5 * nodes) ** -2)
    np.testing.assert_allclose(collocation.squared_slowness, slowness, rtol=1e-12)
    strength, thickness = problem.layer.strength, 0.495
    depth = np.maximum(points - 1, 0) + np.minimum(points, 0)
    sigma = strength * (depth / thickness) ** 2
    np.testing.assert_allclose(collocation.stretch, 1 - 1j * sigma / omega, rtol=1e-12)
    offset = points - SOURCE - 1j * strength * depth**3 / (3 * thickness**2 * omega)
    incident = analytic.point_source(offset, omega * np.sqrt(own), 0.25j)
    load = -(omega**2) * (slowness - own) * incident
    np.testing.assert_allclose(collocation.scattering_source, load, rtol=1e-9)


def test_background_is_continued_into_the_layer(collocated):
    problem, _ = collocated
    with jax.enable_x64(True):
        points = jnp.array([[1.4, 0.1], [0.5, 0.1]])
        field = problems.background_at(problem, points)
        plain = background.background_field(
            points - problem.source, problem.omega / problem.background_velocity, 0.25j
        )
    assert np.abs(field[0]) < 0.2 * np.abs(plain[0])
    np.testing.assert_allclose(field[1], plain[1], rtol=1e-12)


def test_envelope_decays_in_the_layer_only(collocated):
    problem, _ = collocated
    points = jnp.array([[0.5, 0.5], [1.2, 0.5], [1.4, 0.5]])
    inside, shallow, deep = problems.envelope_at(problem, points)
    assert inside == 1 and 1 > shallow > deep > 0


def test_collocate_is_vmappable_over_stacked_problems():
    model = gradient_model()
    several = [
        make_problem(model, f, (x, 0.1), thickness=0.4) for f, x in [(4, 0.2), (6, 0.7)]
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    points = np.random.default_rng(1).uniform(-0.3, 1.3, (2, 9, 2))
    with jax.enable_x64(True):
        together = jax.vmap(problems.collocate)(stacked, jnp.asarray(points))
        for index, problem in enumerate(several):
            alone = problems.collocate(problem, jnp.asarray(points[index]))
            own = jax.tree.map(lambda leaf, i=index: leaf[i], together)
            chex.assert_trees_all_close(own, alone, rtol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_samples_fill_the_domain_and_its_layer(ndim):
    source = (0.3, 0.5, 0.1)[:ndim]
    problem = make_problem(gradient_model(ndim), FREQUENCY, source, thickness=0.495)
    points = np.asarray(
        problems.sample_points(jax.random.key(0), problem, 4000, near_source=0.0)
    )
    chex.assert_shape(points, (4000, ndim))
    assert np.all(points >= problem.lower) and np.all(points <= problem.upper)
    np.testing.assert_allclose(points.mean(0), 0.5, atol=0.05)
    np.testing.assert_allclose(points.std(0), 1.99 / np.sqrt(12), rtol=0.03)
    again = problems.sample_points(jax.random.key(1), problem, 4000, near_source=0.0)
    assert not np.any(np.all(points == again, axis=1))


def test_a_fraction_of_the_samples_is_near_the_source():
    problem = make_problem(gradient_model(), FREQUENCY, SOURCE)
    points = problems.sample_points(jax.random.key(0), problem, 5000, near_source=0.4)
    chex.assert_shape(points, (5000, 2))
    assert np.all(points >= problem.lower) and np.all(points <= problem.upper)
    near = np.asarray(points)[3000:] - np.asarray(SOURCE)
    # Half a background wavelength of 0.33 km.
    np.testing.assert_allclose(near.std(0), 0.165, rtol=0.05)
    np.testing.assert_allclose(near.mean(0), 0.0, atol=0.02)


def test_velocity_at_interpolates():
    middle = ((2.25**-2 + 2.4**-2) / 2) ** -0.5
    assert problems.velocity_at(gradient_model(), (0.33, 0.55)) == pytest.approx(middle)
