"""`solve`: every method on small problems, published fields, options, errors."""

import pickle

import chex
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.files.cases import load_case
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic
from meta_lrpinn.runtime import machine
from meta_lrpinn.solvers.protocol import Conditions
from meta_lrpinn.solvers.solve import solve

FREQUENCY, SOURCE = 3.0, (0.3, 0.1)


@pytest.fixture(scope="module")
def model():
    depth = np.linspace(1.6, 2.4, 11)[:, None]
    return VelocityModel(np.array(np.broadcast_to(depth, (11, 11))), 0.08)


@pytest.fixture(scope="module")
def truth(model):
    return ml.reference_wavefield(model, FREQUENCY, SOURCE, refinement=3)


@pytest.fixture(scope="module")
def plane_waves(model, truth):
    return solve(
        model, FREQUENCY, SOURCE, ml.PlaneWaves(unknowns=300), truth=truth.scattered
    )


# Plane waves --------------------------------------------------------------------------


def test_result(plane_waves, model, truth):
    assert plane_waves.model is model and plane_waves.frequency == 3.0
    np.testing.assert_array_equal(plane_waves.source, SOURCE)
    for field in (plane_waves.scattered, plane_waves.background, plane_waves.total):
        assert isinstance(field, np.ndarray)
        chex.assert_shape(field, (11, 11))
        assert field.dtype == np.complex128
    background = analytic.point_source(
        model.grid_points() - SOURCE, 2 * np.pi * 3.0 / model.at(np.array([SOURCE]))[0]
    ).reshape(11, 11)
    is_away = np.abs(background) < 1
    np.testing.assert_allclose(
        plane_waves.background[is_away], background[is_away], atol=1e-5
    )
    assert plane_waves.elapsed > 0
    assert abs(plane_waves.stats.unknowns - 300) < 20
    assert relative_l2(plane_waves.scattered, truth.scattered) < 0.01


def test_known_field_is_compared_with(plane_waves, truth):
    (record,) = plane_waves.history
    expected = relative_l2(plane_waves.scattered, truth.scattered)
    np.testing.assert_allclose(record["relative_l2"], expected, rtol=1e-4)
    assert record["unknowns"] == plane_waves.stats.unknowns
    assert 0 < record["error_estimate"] == plane_waves.error_estimate < 0.03


def test_field_off_the_grid(plane_waves, model, truth):
    values = plane_waves.at(model.grid_points())
    np.testing.assert_allclose(values, plane_waves.scattered.ravel(), rtol=1e-4, atol=1e-6)
    between = np.random.default_rng(0).uniform(0.1, 0.7, (50, 2))
    assert relative_l2(plane_waves.at(between), truth.at(between)) < 0.02


def test_field_is_linear_in_the_amplitude(plane_waves, model):
    louder = solve(model, FREQUENCY, SOURCE, ml.PlaneWaves(unknowns=300), amplitude=1.925j)
    np.testing.assert_allclose(
        louder.scattered, 7.7 * plane_waves.scattered, rtol=1e-4, atol=1e-6
    )
    is_finite = np.abs(plane_waves.background) < 1
    np.testing.assert_allclose(
        louder.background[is_finite], 7.7 * plane_waves.background[is_finite], rtol=1e-4
    )


def test_several_sources(plane_waves, model):
    single = solve(
        model,
        FREQUENCY,
        [(0.6, 0.2), SOURCE],
        ml.PlaneWaves(unknowns=300),
        thickness=_thickness(model),
    )
    chex.assert_shape([single.scattered, single.total], (2, 11, 11))
    chex.assert_shape(single.at(np.array([SOURCE] * 3)), (2, 3))
    assert relative_l2(single.scattered[1], plane_waves.scattered) < 5e-3
    assert relative_l2(single.scattered[0], plane_waves.scattered) > 0.3


def _thickness(model):
    """The default at SOURCE."""
    return 1.1 * float(np.mean(model.velocity)) / FREQUENCY


def test_tolerance_is_reached(model, truth):
    field = solve(model, FREQUENCY, SOURCE, ml.PlaneWaves(tolerance=0.02))
    assert field.error_estimate <= 0.02
    assert relative_l2(field.scattered, truth.scattered) < 0.03
    numbers = [record["unknowns"] for record in field.history]
    assert numbers == sorted(numbers) and field.stats.unknowns == numbers[-1]


def test_homogeneous_model_scatters_nothing_within_any_tolerance():
    model = VelocityModel(np.full((9, 9), 2.0), 0.1)
    field = solve(model, 3.0, SOURCE, ml.PlaneWaves(tolerance=0.01))
    assert np.abs(field.scattered).max() < 1e-12
    np.testing.assert_allclose(field.total, field.background, atol=1e-12)


def test_progress_is_shown_on_standard_error(model, capsys):
    solve(model, FREQUENCY, SOURCE, ml.PlaneWaves(unknowns=300), progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "unknowns" in captured.err


def test_background_velocity_moves_the_split_not_the_sum(plane_waves, model):
    other = solve(
        model, FREQUENCY, SOURCE, ml.PlaneWaves(unknowns=300), background_velocity=1.75
    )
    is_away = np.linalg.norm(model.grid_points() - SOURCE, axis=1) > 0.2
    is_away = is_away.reshape(11, 11)
    assert relative_l2(other.scattered[is_away], plane_waves.scattered[is_away]) > 0.05
    assert relative_l2(other.total[is_away], plane_waves.total[is_away]) < 0.02


def test_published_layered_model(data_dir):
    case = load_case(data_dir / "layered_5hz.npz")
    field = solve(
        case.model,
        case.frequency,
        case.source,
        amplitude=case.amplitude,
        background_velocity=case.background_velocity,
        truth=case.scattered,
    )
    assert relative_l2(field.scattered, case.scattered) < 0.02
    assert relative_l2(field.scattered.conj(), case.scattered) > 1


def test_published_nine_sources(data_dir):
    case = load_case(data_dir / "layered_4hz_9sources.npz")
    field = solve(
        case.model,
        case.frequency,
        case.source,
        amplitude=case.amplitude,
        background_velocity=case.background_velocity,
    )
    chex.assert_shape(field.scattered, (9, 101, 101))
    errors = [
        relative_l2(*pair) for pair in zip(field.scattered, case.scattered, strict=True)
    ]
    assert max(errors) < 0.025


def test_cube_with_a_smooth_inclusion():
    """3D through the same call, against finite differences."""
    model = generators.smooth_inclusion(
        shape=(9, 8, 10), spacing=0.1, background=2.0, peak=2.6, radius=0.2
    )
    source = (0.3, 0.3, 0.1)
    field = solve(model, 2.5, source, ml.PlaneWaves(unknowns=900), thickness=0.4)
    chex.assert_shape(field.scattered, (9, 8, 10))
    truth = ml.reference_wavefield(model, 2.5, source, refinement=1)
    assert relative_l2(field.scattered, truth.scattered) < 0.06
    points = model.grid_points()[::37]
    np.testing.assert_allclose(
        field.at(points), field.scattered.ravel()[::37], rtol=1e-3, atol=1e-7
    )


def test_finite_differences_are_a_solver_like_the_others(model, truth):
    settings = ml.FiniteDifferences(tolerance=1e-3)
    field = solve(model, FREQUENCY, SOURCE, settings, truth=truth.scattered)
    assert field.solver == "finite_differences"
    assert field.converged and field.error_estimate < 1e-3
    assert field.history[-1]["relative_l2"] < 2e-3
    short = ml.reference_wavefield(model, FREQUENCY, SOURCE, tolerance=1e-3)
    np.testing.assert_array_equal(short.scattered, field.scattered)


@pytest.mark.parametrize(
    "settings",
    [
        ml.PlaneWaves(unknowns=150),
        ml.FiniteDifferences(tolerance=None),
    ],
)
def test_wavefields_can_be_pickled(model, settings):
    field = solve(model, FREQUENCY, [SOURCE, (0.5, 0.5)], settings)
    copy = pickle.loads(pickle.dumps(field))
    assert copy.provenance == field.provenance
    points = np.random.default_rng(0).uniform(0.1, 0.7, (9, 2))
    np.testing.assert_array_equal(copy.at(points, "total"), field.at(points, "total"))


# Options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ml.PlaneWaves, {"unknowns": 9, "tolerance": 0.1}, "unknowns or tolerance, not"),
        (ml.PlaneWaves, {"unknowns": 0}, "unknowns must be positive, got 0"),
        (ml.PlaneWaves, {"unknowns": 9.5}, "unknowns must be a whole number"),
        (ml.PlaneWaves, {"tolerance": -1.0}, "tolerance must be positive, got -1.0"),
        (ml.PlaneWaves, {"tolerance": float("nan")}, "tolerance must be positive"),
        (ml.FiniteDifferences, {"scheme_order": 3}, "scheme_order must be 2 or 4, got 3"),
        (ml.FiniteDifferences, {"tolerance": 0}, "tolerance must be positive"),
        (ml.AdamW, {"steps": -1}, "steps must be a whole number from 0 up, got -1"),
        (ml.AdamW, {"learning_rate": 0.0}, "learning_rate must be positive"),
        (ml.AdamW, {"points": 0}, "points must be positive"),
        (ml.NetworkFeatures, {"precision": "half"}, "precision must be one of double"),
        (ml.GradientTraining, {"loss": "l1"}, "loss must be one of relative, published"),
        (ml.GradientTraining, {"source_penalty": 1.0}, "no effect without loss publish"),
        (ml.GradientTraining, {"source_penalty": -1.0}, "must not be negative, got -1"),
        (ml.GradientTraining, {"output_start": "zero"}, "output_start must be one of"),
        (ml.GradientTraining, {"optimiser": None}, "optimiser must be AdamW or SOAP"),
    ],
)
def test_settings_are_checked_when_made(kind, options, message):
    with pytest.raises(ValueError, match=message) as error:
        kind(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [ml.PlaneWaves, ml.AdamW, ml.FiniteDifferences])
def test_what_does_not_apply_is_no_field(kind):
    with pytest.raises(TypeError, match="unexpected keyword"):
        kind(rank_fraction=0.5)
    with pytest.raises(TypeError, match="positional"):
        kind(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": np.ones((5, 5))}, "model must be a VelocityModel, got ndarray"),
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"frequency": [[4.0, 5.0]]}, "frequency must be one number in Hz, got"),
        ({"frequency": "5"}, "frequency must be one number in Hz, got '5'"),
        ({"frequency": 5 + 1j}, "frequency must be one number in Hz"),
        ({"source": (5.0, 0.1)}, "source .* lies outside the model"),
        ({"source": (0.3, 0.1, 0.2)}, "source must have 2 coordinates"),
        ({"source": np.zeros((0, 2))}, "at least one source is needed"),
        ({"settings": "plane_waves"}, "settings must be one of PlaneWaves, .*, got 'pl"),
        ({"settings": ml.AdamW()}, "settings must be one of PlaneWaves"),
        (
            {"truth": np.zeros((3, 3))},
            r"known field has shape \(3, 3\), expected \(11, 11\)",
        ),
        ({"thickness": -1.0}, "thickness must not be negative"),
        ({"reflection": 2.0}, "reflection must lie between 0 and 1"),
        ({"amplitude": 0.0}, "amplitude must be finite and not zero"),
        ({"amplitude": "loud"}, "amplitude must be one number"),
        ({"background_velocity": -2.0}, "background velocity must be positive"),
        ({"background_velocity": [2.0]}, "background velocity must be one number"),
        ({"seed": "a"}, "seed must be a whole number from 0 up, got 'a'"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 2**32}, "seed must be at most 4294967295"),
        ({"frequency": 1e308}, "is the frequency in Hz and the spacing in km"),
        ({"frequency": 1e-320}, "is the frequency in Hz and the spacing in km"),
        ({"frequency": np.array([4.0, 1e308])}, "is the frequency in Hz"),
        ({"thickness": 1e6}, "thickness must be at most .* is it in metres"),
        ({"reflection": 5e-324}, "reflection must lie between 0 and 1"),
        ({"background_velocity": 1500.0}, "is it in m/s"),
        ({"amplitude": 1e308}, "amplitude must be 1e-30 to 1e.30 in size"),
        ({"settings": ml.NetworkFeatures("nowhere")}, "there is no folder nowhere"),
        ({"frequency": 4e4}, "plane waves"),
    ],
)
def test_errors_are_one_line(model, options, message):
    arguments = {"model": model, "frequency": FREQUENCY, "source": SOURCE, **options}
    with pytest.raises(ValueError, match=message) as error:
        solve(**arguments)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_solve_is_the_packages():
    assert ml.solve is solve


# Several frequencies ------------------------------------------------------------------


def test_several_frequencies_are_each_alone(model):
    settings = ml.FiniteDifferences(tolerance=None)
    fields = solve(model, [4.0, 3.0], [SOURCE], settings)
    assert [field.frequency for field in fields] == [4.0, 3.0]
    for field in fields:
        alone = solve(model, field.frequency, [SOURCE], settings)
        np.testing.assert_array_equal(field.scattered, alone.scattered)
        assert field.scattered.shape == (1, 11, 11)


def test_each_of_several_frequencies_has_its_own_known_field(model):
    settings = ml.FiniteDifferences(tolerance=None)
    truths = [field.scattered for field in solve(model, [3.0, 4.0], SOURCE, settings)]
    fields = solve(model, np.array([3.0, 4.0]), SOURCE, settings, truth=truths)
    assert [field.history[-1]["relative_l2"] for field in fields] == [0, 0]
    with pytest.raises(ValueError, match="2 frequencies have 1 known field"):
        solve(model, [3.0, 4.0], SOURCE, settings, truth=truths[:1])


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ([], "one or more numbers"),
        ([3.0, -4.0], "frequency must be positive, got -4.0 Hz"),
        ([3.0, 3.0], "given twice"),
    ],
)
def test_wrong_lists_of_frequencies_are_refused(model, frequencies, message):
    with pytest.raises(ValueError, match=message):
        solve(model, frequencies, SOURCE)


def test_no_value_is_given_where_the_field_is_infinite():
    model = ml.VelocityModel(np.full((9, 9), 2.0), 0.05)
    field = ml.solve(model, 4.0, (0.2, 0.2), ml.FiniteDifferences(tolerance=None))
    points = np.array([[0.1, 0.1], [0.2, 0.2]])
    for part in ("total", "background"):
        with pytest.raises(ValueError, match="a point stands on a source, where u is inf"):
            field.at(points, part)
    assert np.all(np.isfinite(field.at(points)))
    assert np.all(np.isfinite(field.at(points[:1], "total")))
    both = ml.solve(model, 4.0, points, ml.FiniteDifferences(tolerance=None))
    assert np.isinf(both.at(points, "total")).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("free_surface", [False, True])
@pytest.mark.parametrize(
    "settings",
    [ml.PlaneWaves(), ml.FiniteDifferences(tolerance=None)],
    ids=lambda s: s.name,
)
def test_sources_fired_together_have_the_sum_of_their_fields(
    settings, free_surface, tmp_path
):
    model = generators.random_velocity(3, (21, 25), 0.04)
    sources, weights = np.array([[0.2, 0.1], [0.5, 0.3], [0.7, 0.2]]), [1.0, -2.0, 0.5j]
    options = {"free_surface": free_surface}
    each = ml.solve(model, 4.0, sources, settings, **options)
    shot = ml.solve(model, 4.0, sources, settings, weights=weights, **options)
    points = np.array([[0.33, 0.21], [0.61, 0.47]])
    for part in ("scattered", "background"):
        expected = np.tensordot(weights, getattr(each, part), 1)
        assert relative_l2(getattr(shot, part), expected) < 5e-3
    expected = np.asarray(weights) @ each.at(points, "total")
    np.testing.assert_allclose(shot.at(points, "total"), expected, rtol=2e-2)
    assert shot.total.mask.sum() == each.total.mask.sum()
    assert np.ndim(shot.error_estimate or 0.0) == 0
    shot.save(tmp_path / "shot.npz")
    case = load_case(tmp_path / "shot.npz")
    np.testing.assert_array_equal(case.weights, weights)
    np.testing.assert_array_equal(case.scattered, shot.scattered)


@pytest.mark.parametrize(
    "settings",
    [ml.PlaneWaves(), ml.FiniteDifferences(tolerance=None)],
    ids=lambda s: s.name,
)
def test_data_of_sources_fired_together_are_one_row(settings):
    model = generators.random_velocity(3, (13, 15), 0.05)
    sources, weights = np.array([[0.2, 0.1], [0.5, 0.3]]), np.array([1.0, -2.0])
    receivers = np.array([[0.3, 0.05], [0.6, 0.05]])
    options = model, 3.0, sources, receivers
    each = settings.prepare(*options)
    shot = settings.prepare(*options, Conditions(weights=weights))
    expected = weights @ np.asarray(each.data(model.velocity))
    found = shot.data(model.velocity)
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    np.testing.assert_allclose(shot.solve(model).fields[0], expected, rtol=2e-2)


def test_sources_fired_together_need_room_for_one_field(monkeypatch):
    monkeypatch.setattr(machine, "machine_memory", lambda: 1e6)
    model = ml.VelocityModel(np.full((9, 9), 2.0), 0.05)
    sources = np.stack([np.linspace(0.05, 0.35, 1000), np.full(1000, 0.1)], axis=-1)
    with pytest.raises(ValueError, match="1,000 wavefields on 9 x 9 points take"):
        ml.solve(model, 4.0, sources)
    field = ml.solve(model, 4.0, sources, weights=np.ones(1000))
    assert field.scattered.shape == (9, 9)


def test_weights_that_do_not_fit_are_refused():
    model = ml.VelocityModel(np.full((9, 9), 2.0), 0.05)
    sources = [[0.1, 0.1], [0.2, 0.2]]
    for weights, message in (
        ([1.0], "one number for each of 2 sources"),
        ([0.0, 0.0], "one of them not zero"),
        ([1.0, np.nan], "weights must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ml.solve(model, 4.0, sources, weights=weights)
    with pytest.raises(ValueError, match="weights are of several sources"):
        ml.solve(model, 4.0, sources[0], weights=[1.0])
    with pytest.raises(ValueError, match="networks solve for each source alone"):
        ml.solve(model, 4.0, sources, ml.NetworkFeatures(), weights=[1.0, 2.0])
