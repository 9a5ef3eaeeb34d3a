"""Synthetic models are reproducible, within bounds, and what their names say."""

import chex
import numpy as np
import pytest

from meta_lrpinn import generators
from meta_lrpinn.generators import (
    BUILTIN,
    builtin,
    layered,
    random_velocity,
    salt_body,
    smooth_inclusion,
    thrust_belt,
)
from meta_lrpinn.generators.geology import DEFORMATIONS, Grid
from meta_lrpinn.physics.velocity import VelocityModel

SHAPES = {2: (41, 61), 3: (21, 15, 25)}
RANDOM = {
    "layered": (layered, 1.5, 5.0),
    "thrust_belt": (thrust_belt, 2.2, 6.0),
    "salt_body": (salt_body, 1.5, 4.5),
    "random_velocity": (random_velocity, 1.5, 5.0),
}
SEEDS = range(8)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", RANDOM)
def test_random_models_have_their_shape_and_stay_in_bounds(name, ndim):
    generator, minimum, maximum = RANDOM[name]
    spacing = (0.02, 0.03) if ndim == 2 else 0.05
    for seed in SEEDS:
        model = generator(seed, shape=SHAPES[ndim], spacing=spacing)
        assert isinstance(model, VelocityModel)
        chex.assert_shape(model.velocity, SHAPES[ndim])
        assert model.velocity.dtype == np.float32
        assert model.spacing == (spacing if ndim == 2 else (0.05,) * 3)
        assert minimum <= model.minimum < model.maximum <= maximum


@pytest.mark.parametrize("name", RANDOM)
def test_random_models_depend_on_the_seed_alone(name):
    generator = RANDOM[name][0]
    first = [generator(seed, shape=SHAPES[2]).velocity for seed in SEEDS]
    np.random.seed(0)
    again = [generator(seed, shape=SHAPES[2]).velocity for seed in SEEDS]
    chex.assert_trees_all_equal(first, again)
    for i, one in enumerate(first):
        for other in first[:i]:
            assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("name", RANDOM)
def test_3d_models_vary_along_y_and_x(name):
    generator = RANDOM[name][0]
    models = [generator(seed, shape=SHAPES[3], spacing=0.05) for seed in SEEDS]
    for axis in (1, 2):
        spread = [np.ptp(model.velocity, axis=axis).max() for model in models]
        assert max(spread) > 0.3


@pytest.mark.parametrize("name", RANDOM)
def test_random_models_get_faster_with_depth_on_average(name):
    generator = RANDOM[name][0]
    profiles = [generator(s, shape=SHAPES[2]).velocity.mean(axis=1) for s in range(20)]
    thirds = np.array_split(np.mean(profiles, axis=0), 3)
    top, middle, bottom = (third.mean() for third in thirds)
    assert top + 0.3 < middle < bottom - 0.1


@pytest.mark.parametrize("structure", generators.STRUCTURES)
def test_layers_respect_narrow_bounds(structure):
    for seed in SEEDS:
        model = layered(
            seed, shape=SHAPES[2], minimum=2.0, maximum=2.2, structure=structure
        )
        assert 2.0 <= model.minimum < model.maximum <= np.float32(2.2)


def test_flat_layers_do_not_vary_sideways():
    for seed in SEEDS:
        for shape in SHAPES.values():
            velocity = layered(seed, shape=shape, structure="flat").velocity
            sideways = np.ptp(velocity.reshape(shape[0], -1), axis=1)
            assert sideways.max() < 1e-5


@pytest.mark.parametrize("layers", [(1, 1), (4, 4), (3, 7)])
def test_flat_layers_are_as_many_as_asked(layers):
    counts = []
    for seed in SEEDS:
        velocity = layered(
            seed, shape=(301, 5), structure="flat", layers=layers, smoothing=0.0
        ).velocity
        counts.append(1 + np.count_nonzero(np.diff(velocity[:, 0])))
    # Neighbours that are clipped to the same bound look like one layer.
    assert layers[0] - 1 <= min(counts)
    assert max(counts) <= layers[1]
    if layers[0] == layers[1]:
        assert np.median(counts) == layers[0]
    else:
        assert len(set(counts)) > 2


def test_dipping_interfaces_are_straight_and_inclined():
    inclined = 0
    for seed in SEEDS:
        velocity = layered(
            seed,
            shape=(401, 41),
            spacing=(0.005, 0.05),
            structure="dipping",
            smoothing=0.0,
        ).velocity
        for speed in np.unique(velocity)[1:]:
            depths = np.argmax(velocity >= speed, axis=0).astype(float)
            if depths.min() < 80 or depths.max() > 380 or not depths.all():
                continue
            line = np.polyfit(np.arange(41), depths, 1)
            if np.abs(np.polyval(line, np.arange(41)) - depths).max() < 1.5:
                assert abs(line[0]) > 0.5
                inclined += 1
    assert inclined >= 5


def test_folded_layers_vary_smoothly_sideways():
    for seed in SEEDS:
        model = layered(seed, structure="folded")
        assert np.ptp(model.velocity, axis=1).max() > 0.2
        step = np.abs(np.diff(model.velocity, axis=1)).max()
        assert step < 0.5 * np.ptp(model.velocity)


@pytest.mark.parametrize("ndim", [2, 3])
def test_faults_break_layers_sideways_and_folds_do_not(ndim):
    shape = (101, 201) if ndim == 2 else (41, 15, 61)
    grid = Grid(shape, 0.0125)

    def jump(structure, seed):
        deform = DEFORMATIONS[structure]
        depth = deform(np.random.default_rng(seed), grid)
        return np.abs(np.diff(depth, axis=-1)).max(axis=-1)

    for seed in SEEDS:
        # Every row is cut by a fault whose throw is 4 % of the depth or more.
        assert np.median(jump("faulted", seed)) > 0.035 * grid.depth
        assert jump("folded", seed).max() < 0.0125
        assert jump("flat", seed).max() == 0.0


def test_some_layered_models_have_inversions_and_some_water():
    models = [layered(seed, smoothing=0.0) for seed in range(30)]
    inverted = sum(np.any(np.diff(m.velocity, axis=0) < -0.05) for m in models)
    assert 5 <= inverted <= 29
    watery = sum(np.all(m.velocity[0] == np.float32(generators.WATER)) for m in models)
    assert 7 <= watery <= 20


def test_random_structure_draws_all_structures():
    flat = sum(
        np.ptp(layered(seed, smoothing=0.0).velocity, axis=1).max() == 0
        for seed in range(40)
    )
    assert 3 <= flat <= 20


def test_smoothing_is_in_km():
    rough = layered(2, structure="folded", smoothing=0.0)
    smooth = layered(2, structure="folded", smoothing=0.1)
    np.testing.assert_allclose(smooth.velocity, rough.smoothed(0.1).velocity, rtol=1e-5)
    steps = [np.abs(np.diff(m.velocity, axis=0)).max() for m in (smooth, rough)]
    assert steps[0] < 0.5 * steps[1]


def test_thrusts_put_fast_rock_over_slow():
    for seed in SEEDS:
        model = thrust_belt(seed)
        # Repeated layers: going down, the velocity falls in many columns.
        falls = np.diff(model.velocity, axis=0) < -0.1
        assert falls.any(axis=0).mean() > 0.5
        # Ramps: layers end sideways.
        assert np.abs(np.diff(model.velocity, axis=1)).max() > 0.5


def test_thrusts_leave_the_basement_alone():
    velocity = thrust_belt(1, shape=(201, 251)).velocity
    changes = np.mean(np.diff(velocity, axis=1) != 0, axis=1)
    assert changes[-12:].mean() < 0.3 * changes[40:120].mean()


def test_salt_has_sharp_edges_and_one_velocity():
    for seed in SEEDS:
        for shape, least, most in ((SHAPES[2], 0.03, 0.5), (SHAPES[3], 0.01, 0.5)):
            model = salt_body(seed, shape=shape, spacing=0.05)
            inside = model.velocity == np.float32(4.5)
            assert least < inside.mean() < most
            assert np.max(model.velocity[~inside]) <= 4.0
            sides = inside[..., 1:] != inside[..., :-1]
            jumps = np.abs(np.diff(model.velocity, axis=-1))[sides]
            assert jumps.size and jumps.min() >= 0.45
            assert np.median(jumps) > 1.0


def test_salt_velocity_is_an_argument():
    model = salt_body(1, salt=5.2)
    assert model.maximum == np.float32(5.2)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("profile", ["gaussian", "compact"])
def test_inclusion_has_its_values(ndim, profile):
    shape = (41,) * ndim
    model = smooth_inclusion(shape=shape, spacing=0.05, peak=3.0, profile=profile)
    middle = (20,) * ndim
    np.testing.assert_allclose(model.velocity[middle], 3.0, rtol=1e-6)
    np.testing.assert_allclose(model.velocity[(0,) * ndim], 2.0, rtol=1e-4)
    # It is round: all axes look the same.
    lines = [
        np.moveaxis(model.velocity, axis, 0)[(slice(None), *middle[1:])]
        for axis in range(ndim)
    ]
    for line in lines[1:]:
        np.testing.assert_allclose(line, lines[0], rtol=1e-6)


def test_inclusion_profiles_follow_their_formulas():
    arguments = dict(shape=(41, 61), spacing=0.05, centre=(1.0, 1.0), radius=0.5)
    gaussian = smooth_inclusion(**arguments)
    compact = smooth_inclusion(**arguments, profile="compact")
    np.testing.assert_allclose(
        gaussian.velocity[20, 30], 2.0 + 0.5 * np.exp(-0.5), rtol=1e-6
    )
    np.testing.assert_allclose(
        compact.velocity[25, 20], 2.0 + 0.5 * np.exp(1 - 1 / (1 - 0.25)), rtol=1e-6
    )
    outside = np.linalg.norm(compact.grid_points() - [1.0, 1.0], axis=1) >= 0.5
    np.testing.assert_array_equal(compact.velocity.ravel()[outside], 2.0)


def test_random_velocity_is_a_mixture():
    models = [random_velocity(seed).velocity for seed in range(60)]
    flat = sum(np.ptp(v, axis=1).max() < 1e-4 for v in models)
    steps = np.array([np.abs(np.diff(v, axis=0)).max() for v in models])
    assert 2 <= flat <= 20
    assert np.count_nonzero(steps > 0.4) >= 5  # hardly smoothed layers
    assert np.count_nonzero(steps < 0.1) >= 5  # gradients and soft layers
    assert min(v.min() for v in models) == 1.5
    assert max(v.max() for v in models) > 4.5


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_models_are_deterministic(name):
    model = builtin(name)
    chex.assert_trees_all_equal(model, builtin(name))
    assert 1.5 <= model.minimum < model.maximum <= 6.0


def test_builtin_layered_is_what_solve_expects():
    model = builtin("layered")
    assert model.shape == (101, 101)
    assert model.spacing == (0.025, 0.025)
    np.testing.assert_allclose([model.minimum, model.maximum], [1.5, 4.0], atol=0.02)
    # The source lies in homogeneous water near the surface.
    np.testing.assert_allclose(model.velocity[:4], 1.5, rtol=1e-3)
    assert np.any(np.diff(model.velocity, axis=0) < -0.01)


def test_builtin_3d_is_small():
    assert builtin("layered_3d").shape == (41, 41, 41)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: builtin("moon"), "no built-in model 'moon'; choose one of layered, "),
        (lambda: layered(0, structure="bent"), "structure must be random, fl.*bent"),
        (lambda: layered(0, layers=(5, 3)), r"layers must be \(fewest, most\)"),
        (lambda: layered(0, minimum=3.0, maximum=2.0), "minimum < maximum, got 3.0"),
        (lambda: layered(0, shape=(5,)), r"shape must be \(nz, nx\) or .* got \(5,\)"),
        (lambda: layered(0, shape=(5, 1)), r"at least 2 each, got \(5, 1\)"),
        (lambda: layered(0, spacing=-0.1), "spacing must be positive, got -0.1 km"),
        (lambda: layered(0, smoothing=-1.0), "smoothing length must be zero or more"),
        (lambda: layered(-1), "seed must be a whole number from 0 up, got -1"),
        (lambda: random_velocity(0.5), "seed must be a whole number .* got 0.5"),
        (lambda: thrust_belt(0, faults=(0, 2)), r"faults must be \(fewest, most\)"),
        (lambda: salt_body(0, salt=-4.0), "salt velocity must be positive, got -4.0"),
        (lambda: smooth_inclusion(profile="box"), "gaussian or compact, got 'box'"),
        (lambda: smooth_inclusion(peak=-1.0), "peak must be positive, got -1.0 km/s"),
        (lambda: smooth_inclusion(radius=0.0), "radius must be positive, got 0.0 km"),
        (lambda: smooth_inclusion(centre=(1.0,)), "centre must have 2 coordinates"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
