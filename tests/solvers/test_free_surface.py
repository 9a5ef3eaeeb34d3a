"""A free surface: against images, mirrored media, and what vanishes at it."""

import pickle

import jax
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import configs, networks
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import background, free_surface
from meta_lrpinn.reference import analytic, layered_media

FREQUENCY, SOURCE = 6.0, np.array([0.35, 0.14])
SOLVERS = [
    pytest.param(ml.FiniteDifferences(), 3e-3, id="finite_differences"),
    pytest.param(ml.PlaneWaves(), 1.5e-2, id="plane_waves"),
]


SLOW_WAVES = pytest.param(*SOLVERS[1].values, id="plane_waves", marks=pytest.mark.slow)


def image(source, top=0.0):
    return np.array([*source[:-1], 2 * top - source[-1]])


def layers(quality=None, top=0.0):
    depth = 0.02 * np.arange(31)
    velocity = np.interp(depth, [0, 0.2, 0.22, 0.6], [1.6, 1.9, 2.6, 2.8])[:, None]
    return ml.VelocityModel(velocity * np.ones(36), 0.02, (0.0, top), quality)


def exact_total(model, source, top=0.0):
    """The medium and its mirror image, v(|z|), with the source and its image."""
    depths, velocities = layered_media.depth_profile(model)
    both = np.concatenate([2 * top - depths[:0:-1], depths])
    mirrored = np.concatenate([velocities[:0:-1], velocities])
    points = model.grid_points()
    own = np.interp(source[-1], depths, velocities**-2) ** -0.5
    fields = [
        layered_media.layered_medium(points, FREQUENCY, one, both, mirrored)
        + analytic.point_source(points - one, 2 * np.pi * FREQUENCY / own)
        for one in (source, image(source, top))
    ]
    return (fields[0] - fields[1]).reshape(model.shape)


def off_source(model, source):
    """Nodes away from the source, where u is infinite."""
    distance = np.linalg.norm(model.grid_points() - source, axis=-1)
    return (distance > 0.01).reshape(model.shape)


@pytest.mark.parametrize(("settings", "tolerance"), SOLVERS)
def test_half_space_with_image(settings, tolerance):
    """From a wrong background, whose error the solver has to make up for."""
    velocity = 2.0
    model = ml.VelocityModel(np.full((26, 31), velocity), 0.02)
    field = ml.solve(
        model, FREQUENCY, SOURCE, settings, background_velocity=2.2, free_surface=True
    )
    points = model.grid_points()
    exact = analytic.shifted_background(points, FREQUENCY, SOURCE, velocity, 2.2)
    exact = exact - analytic.shifted_background(
        points, FREQUENCY, image(SOURCE), velocity, 2.2
    )
    assert relative_l2(field.scattered.ravel(), exact) < tolerance
    own = ml.solve(model, FREQUENCY, SOURCE, settings, free_surface=True)
    assert np.abs(own.scattered).max() < 1e-12
    k = 2 * np.pi * FREQUENCY / velocity
    known = analytic.point_source(points - SOURCE, k)
    known = known - analytic.point_source(points - image(SOURCE), k)
    away = off_source(model, SOURCE)
    np.testing.assert_allclose(own.total[away], known.reshape(model.shape)[away], atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "tolerance", "quality"),
    [
        pytest.param(*SOLVERS[0].values, None, id="finite_differences"),
        pytest.param(*SOLVERS[0].values, 20.0, id="finite_differences, lossy"),
        pytest.param(*SOLVERS[1].values, None, id="plane_waves", marks=pytest.mark.slow),
        pytest.param(
            *SOLVERS[1].values, 20.0, id="plane_waves, lossy", marks=pytest.mark.slow
        ),
    ],
)
def test_layers_under_a_free_surface(settings, tolerance, quality):
    model = layers(quality)
    field = ml.solve(model, FREQUENCY, SOURCE, settings, free_surface=True)
    exact = exact_total(model, SOURCE)
    away = off_source(model, SOURCE)
    scattered = (exact - field.background)[away]
    error = relative_l2(field.scattered[away], scattered)
    assert error < tolerance
    assert field.error_estimate is None or error < 1.5 * field.error_estimate + 1e-4
    # The surface matters.
    without = ml.solve(model, FREQUENCY, SOURCE, settings)
    assert relative_l2(without.total[away], exact[away]) > 0.3


@pytest.mark.parametrize(("settings", "tolerance"), [SOLVERS[0], SLOW_WAVES])
def test_the_field_vanishes_at_the_surface(settings, tolerance):
    """To the last digit, also where the surface is at another depth, and off the grid."""
    model, source = layers(top=0.3), np.array([[0.35, 0.44], [0.2, 0.5]])
    field = ml.solve(model, FREQUENCY, source, settings, free_surface=True)
    assert np.all(field.total[:, 0] == 0) and np.all(field.scattered[:, 0] == 0)
    assert np.all(field.total[:, 1].mask | (field.total[:, 1] != 0))
    surface = np.stack([np.linspace(0.01, 0.69, 7), np.full(7, 0.3)], axis=-1)
    for part in ("scattered", "background", "total"):
        assert np.all(field.at(surface, part) == 0)
    again = pickle.loads(pickle.dumps(field))
    points = surface + [0.0, 0.11]
    np.testing.assert_array_equal(again.at(points), field.at(points))
    shallow = layers()
    moved = ml.solve(shallow, FREQUENCY, source - [0, 0.3], settings, free_surface=True)
    assert relative_l2(moved.scattered, field.scattered) < 1e-6


def test_three_dimensions():
    model = ml.VelocityModel(np.full((9, 11, 11), 2.0), 0.05)
    source = np.array([0.25, 0.25, 0.15])
    depth = np.arange(9)[:, None, None]
    model = model.replace_velocity(np.where(depth < 5, 2.0, 2.6) * np.ones(model.shape))
    settings = ml.FiniteDifferences(tolerance=None)
    truth = ml.solve(model, 4.0, source, settings, free_surface=True)
    field = ml.solve(model, 4.0, source, free_surface=True)
    assert relative_l2(field.scattered, truth.scattered) < 0.03
    assert np.all(field.total[0] == 0)


def adapting():
    """A few steps whose first record is the one that is returned."""
    config = configs.NetworkConfig(width=24, depth=1, rank=8, first_scale=6.0)
    module = networks.make_network(config)
    params = models.initial_parameters(module, jax.random.key(0))
    network = ml.Network(module, params).prune(FREQUENCY)
    optimiser = ml.AdamW(steps=2, report_every=1, points=100, learning_rate=1.0)
    return ml.GradientTraining(network, optimiser=optimiser)


@pytest.mark.parametrize(
    "settings",
    [
        ml.FiniteDifferences(tolerance=None),
        pytest.param(adapting, id="gradient_training"),
        ml.PlaneWaves(unknowns=200),
    ],
)
def test_every_record_has_its_own_distance_from_the_truth(settings):
    """That of the field below the surface, of each source, whichever is returned."""
    settings = settings() if callable(settings) else settings
    model, sources = layers(), np.array([SOURCE, [0.2, 0.1]])
    truth = np.random.default_rng(0).normal(size=(2, *model.shape)) + 0j
    field = ml.solve(model, FREQUENCY, sources, settings, free_surface=True, truth=truth)
    if "source" not in field.history[0]:
        expected = relative_l2(field.scattered, truth)
        assert field.history[-1]["relative_l2"] == pytest.approx(expected, rel=1e-4)
        return
    for index in range(2):
        own = [record for record in field.history if record["source"] == index]
        returned = min(own, key=lambda record: record.get("held_out", 0.0))
        expected = relative_l2(field.scattered[index], truth[index])
        assert returned["relative_l2"] == pytest.approx(expected, rel=1e-4)
        if len(own) > 1:
            assert returned is not own[-1]
            assert own[-1]["relative_l2"] != pytest.approx(expected, rel=1e-4)


def test_a_source_on_the_surface_is_refused():
    with pytest.raises(ValueError, match="stands on the free surface"):
        ml.solve(layers(), 5.0, [(0.3, 0.1), (0.2, 0.0)], free_surface=True)


def test_the_mirrored_model_is_even():
    model = layers(quality=np.linspace(10, 99, 31 * 36).reshape(31, 36), top=0.3)
    whole = free_surface.mirrored_model(model)
    points = np.random.default_rng(0).uniform((0, 0.3), (0.7, 0.9), (50, 2))
    images = background.mirrored(points, model.lower[-1])
    for where in (points, images):
        np.testing.assert_allclose(
            whole.squared_slowness_at(where),
            model.squared_slowness_at(points),
            rtol=1e-4,
        )


def test_the_saved_case_has_the_surface(tmp_path):
    settings = ml.FiniteDifferences(tolerance=None)
    field = ml.solve(layers(), FREQUENCY, SOURCE, settings, free_surface=True)
    field.save(tmp_path / "field.npz")
    assert ml.load_case(tmp_path / "field.npz").free_surface is True
    plain = ml.solve(layers(), FREQUENCY, SOURCE, settings)
    plain.save(tmp_path / "plain.npz")
    assert not ml.load_case(tmp_path / "plain.npz").free_surface


SURVEYED = [
    pytest.param(ml.FiniteDifferences(tolerance=None), 0.0, id="finite_differences"),
    pytest.param(
        ml.PlaneWaves(unknowns=300), 0.02, id="plane_waves", marks=pytest.mark.slow
    ),
    pytest.param(
        ml.PlaneWaves(tolerance=0.03), 0.0, id="tolerance", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("settings", "tolerance"), SURVEYED)
def test_surveys_have_the_wavefields_of_solve(settings, tolerance):
    """On the grid and at receivers, of which one lies on the surface."""
    one = layers()
    models = [one, one.replace_velocity(np.asarray(one.velocity)[:, ::-1] * 1.05)]
    sources = np.array([SOURCE, [0.2, 0.1]])
    receivers = np.array([[0.1, 0.0], [0.31, 0.26], [0.6, 0.5]])
    surveys = [
        ml.solve_survey(
            models, [FREQUENCY], sources, settings, receivers=where, free_surface=True
        )
        for where in (None, receivers)
    ]
    for index, model in enumerate(models):
        field = ml.solve(model, FREQUENCY, sources, settings, free_surface=True)
        found = [survey.scattered[index, 0] for survey in surveys]
        assert relative_l2(found[0], field.scattered) <= max(tolerance, 1e-6)
        assert relative_l2(found[1], field.at(receivers)) <= max(tolerance, 1e-6)
        assert np.all(found[0][:, 0] == 0) and np.all(found[1][:, 0] == 0)
        if field.error_estimates is not None and not tolerance:
            np.testing.assert_allclose(
                surveys[0].error_estimates[index, 0], field.error_estimates, rtol=1e-5
            )


@pytest.mark.slow
def test_seismograms_of_a_half_space_with_image():
    """The traces of the source less those of its image, in the medium without surface."""
    spacing, place = 0.02, np.array([0.15, 0.08])
    half = ml.VelocityModel(np.full((16, 21), 2.0), spacing)
    whole = ml.VelocityModel(np.full((31, 21), 2.0), spacing, (0.0, -0.3))
    receivers = np.array([[0.3, 0.2], [0.06, 0.16], [0.2, 0.0]])
    when = {"peak_frequency": 8.0, "record": 0.6}
    traces = ml.time_traces(half, place, receivers, free_surface=True, **when)
    own, other = ml.time_traces(
        whole, np.stack([place, image(place)]), receivers, **when
    ).data
    assert traces.free_surface and np.abs(traces.data).max() > 0.01
    assert np.all(traces.data[0, 2] == 0)
    error = np.abs(traces.data[0] - (own - other)).max()
    assert error < 2e-3 * np.abs(traces.data).max()
    with pytest.raises(ValueError, match="stands on the free surface"):
        ml.time_traces(half, [0.1, 0.0], receivers, free_surface=True, **when)
