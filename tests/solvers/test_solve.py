"""`solve`: every method on small problems, published fields, options, errors."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import checkpoints, configs, generators, models, networks
from meta_lrpinn.cases import load_case
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.problem import default_thickness
from meta_lrpinn.reference import analytic
from meta_lrpinn.solvers import solve as solver
from meta_lrpinn.solvers.solve import solve
from meta_lrpinn.velocity import VelocityModel

FREQUENCY, SOURCE = 3.0, (0.3, 0.1)
SECOND_ORDER = {"features": "lrpinn", "optimiser": "gauss_newton"}
SMALL = configs.NetworkConfig(width=40, depth=1, rank=10, first_scale=6.0)


@pytest.fixture(scope="module")
def model():
    depth = np.linspace(1.6, 2.4, 11)[:, None]
    return VelocityModel(np.array(np.broadcast_to(depth, (11, 11))), 0.08)


@pytest.fixture(scope="module")
def truth(model):
    return ml.reference_wavefield(model, FREQUENCY, SOURCE, refinement=3)


@pytest.fixture(scope="module")
def plane_waves(model, truth):
    return solve(model, FREQUENCY, SOURCE, unknowns=300, truth=truth.scattered)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved random initialisations, small, by kind of network."""
    folder, folders = tmp_path_factory.mktemp("init"), {}
    for kind in ("lrpinn", "pinn"):
        config = configs.NetworkConfig(**{**vars(SMALL), "kind": kind})
        network = networks.make_network(config)
        params = models.initial_parameters(network, jax.random.key(0))
        folders[kind] = folder / kind
        checkpoints.save_initialisation(folders[kind], params, vars(config), {})
    return folders


# Plane waves --------------------------------------------------------------------------


def test_result(plane_waves, model, truth):
    assert plane_waves.model is model and plane_waves.frequency == 3.0
    np.testing.assert_array_equal(plane_waves.source, SOURCE)
    for field in (plane_waves.scattered, plane_waves.background, plane_waves.total):
        assert isinstance(field, np.ndarray)
        chex.assert_shape(field, (11, 11))
        assert field.dtype == np.complex64
    background = analytic.point_source(
        model.grid_points() - SOURCE, 2 * np.pi * 3.0 / model.at(np.array([SOURCE]))[0]
    ).reshape(11, 11)
    is_away = np.abs(background) < 1
    np.testing.assert_allclose(
        plane_waves.background[is_away], background[is_away], atol=1e-5
    )
    assert plane_waves.elapsed > 0
    assert abs(plane_waves.unknowns - 300) < 20
    assert relative_l2(plane_waves.scattered, truth.scattered) < 0.01


def test_known_field_is_compared_with(plane_waves, truth):
    (record,) = plane_waves.history
    expected = relative_l2(plane_waves.scattered, truth.scattered)
    np.testing.assert_allclose(record["relative_l2"], expected, rtol=1e-4)
    assert record["unknowns"] == plane_waves.unknowns
    assert 0 < record["error_estimate"] == plane_waves.error_estimate < 0.03


def test_field_off_the_grid(plane_waves, model, truth):
    values = plane_waves.at(model.grid_points())
    np.testing.assert_allclose(values, plane_waves.scattered.ravel(), rtol=1e-4, atol=1e-6)
    between = np.random.default_rng(0).uniform(0.1, 0.7, (50, 2))
    assert relative_l2(plane_waves.at(between), truth.at(between)) < 0.02


def test_field_is_linear_in_the_amplitude(plane_waves, model):
    louder = solve(model, FREQUENCY, SOURCE, unknowns=300, amplitude=1.925j)
    np.testing.assert_allclose(
        louder.scattered, 7.7 * plane_waves.scattered, rtol=1e-4, atol=1e-6
    )
    is_finite = np.abs(plane_waves.background) < 1
    np.testing.assert_allclose(
        louder.background[is_finite], 7.7 * plane_waves.background[is_finite], rtol=1e-4
    )


def test_several_sources_and_single_precision(plane_waves, model):
    single = solve(
        model,
        FREQUENCY,
        [(0.6, 0.2), SOURCE],
        unknowns=300,
        precision="single",
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
    field = solve(model, FREQUENCY, SOURCE, tolerance=0.02)
    assert field.error_estimate <= 0.02
    assert relative_l2(field.scattered, truth.scattered) < 0.03
    numbers = [record["unknowns"] for record in field.history]
    assert numbers == sorted(numbers) and field.unknowns == numbers[-1]


def test_homogeneous_model_scatters_nothing_within_any_tolerance():
    field = solve(VelocityModel(np.full((9, 9), 2.0), 0.1), 3.0, SOURCE, tolerance=0.01)
    assert np.abs(field.scattered).max() < 1e-12
    np.testing.assert_array_equal(field.total, field.background)


def test_progress_is_shown_on_standard_error(model, capsys):
    solve(model, FREQUENCY, SOURCE, unknowns=300, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "unknowns" in captured.err


def test_background_velocity_moves_the_split_not_the_sum(plane_waves, model):
    other = solve(model, FREQUENCY, SOURCE, unknowns=300, background_velocity=1.75)
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
    field = solve(model, 2.5, source, thickness=0.4, unknowns=900)
    chex.assert_shape(field.scattered, (9, 8, 10))
    truth = ml.reference_wavefield(model, 2.5, source, refinement=1)
    assert relative_l2(field.scattered, truth.scattered) < 0.06
    points = model.grid_points()[::37]
    np.testing.assert_allclose(
        field.at(points), field.scattered.ravel()[::37], rtol=1e-3, atol=1e-7
    )


# Features of networks -----------------------------------------------------------------


def test_random_waves(model, truth):
    options = {"features": "random_waves", "unknowns": 220}
    field = solve(model, FREQUENCY, SOURCE, **options, truth=truth.scattered)
    assert field.unknowns == 220
    error = relative_l2(field.scattered, truth.scattered)
    assert error < 0.05
    (record,) = field.history
    assert record["step"] == record["source"] == 0
    np.testing.assert_allclose(record["relative_l2"], error, rtol=1e-2)
    np.testing.assert_allclose(
        field.at(model.grid_points()), field.scattered.ravel(), rtol=1e-3, atol=1e-6
    )


@pytest.fixture(scope="module")
def adapt(model, truth, folders):
    """Solves from a saved start; parameters before and after beside the field."""

    def run(kind, **options):
        seen, finetune = {}, solver.finetune.finetune

        def recording(objective, params, *args, **kwargs):
            result = finetune(objective, params, *args, **kwargs)
            seen.update(before=params, after=result[0])
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(solver.finetune, "finetune", recording)
            field = solve(
                model,
                FREQUENCY,
                SOURCE,
                features=kind,
                init=folders[kind],
                precision="single",
                truth=truth.scattered,
                **options,
            )
        return field, jax.device_get(seen["before"]), jax.device_get(seen["after"])

    return run


def check_record(field, truth, steps):
    """Every step is in the history, and what was kept is its best record."""
    if field.method.startswith("gradient"):
        figure = [record.get("held_out", 0.0) for record in field.history]
        assert field.error_estimate is None
    else:
        figure = [record["error_estimate"] for record in field.history]
        np.testing.assert_allclose(field.error_estimate, min(figure), rtol=1e-4)
        assert 0 < field.error_estimate < 2
    chex.assert_shape(field.scattered, (11, 11))
    assert field.unknowns == 40
    assert [record["step"] for record in field.history] == list(range(steps + 1))
    error = relative_l2(field.scattered, truth.scattered)
    assert 0 < error < 1.5
    recorded = [record["relative_l2"] for record in field.history]
    np.testing.assert_allclose(recorded[np.argmin(figure)], error, rtol=1e-3)
    np.testing.assert_allclose(
        field.at(field.model.grid_points()),
        field.scattered.ravel(),
        rtol=1e-3,
        atol=1e-5,
    )


def test_exact_solve_of_a_saved_network(adapt, truth):
    field, before, after = adapt("pinn")
    check_record(field, truth, 0)
    assert field.method == "galerkin, pinn"
    chex.assert_trees_all_equal(before, after)


def test_trained_features_with_reduced_rank_and_frozen_bases(adapt, truth, monkeypatch):
    """U and V keep the columns of the largest |σ| and every bit; the rest moves."""
    falling = iter(1 - 1e-6 * np.arange(100))  # so that the last record is kept
    monkeypatch.setattr(solver, "_estimate", lambda values: next(falling))
    field, before, after = adapt(
        "lrpinn",
        method="least_squares",
        steps=15,
        report_every=1,
        learning_rate=1e-2,
        rank_fraction=0.3,
        freeze_bases=True,
    )
    check_record(field, truth, 15)
    losses = [record["loss"] for record in field.history[1:]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for params in (before, after):
        assert params["embedding"]["hidden_0"].shape == (3,)
        chex.assert_shape(list(params["network"]["hidden_0"].values()), (40, 3))
    for factor in ("U", "V"):
        np.testing.assert_array_equal(
            before["network"]["hidden_0"][factor], after["network"]["hidden_0"][factor]
        )
    assert np.all(before["embedding"]["hidden_0"] != after["embedding"]["hidden_0"])
    biases = before["network"]["first"]["bias"], after["network"]["first"]["bias"]
    assert np.all(biases[0] != biases[1])


def test_gradient_with_hypernetwork_and_free_bases(adapt, truth):
    field, before, after = adapt(
        "lrpinn",
        method="gradient",
        steps=3,
        learning_rate=1e-5,
        prune_hypernetwork=False,
    )
    check_record(field, truth, 3)
    kernels = jax.tree.leaves(before["embedding"]), jax.tree.leaves(after["embedding"])
    assert len(kernels[0]) > 1
    assert any(np.any(a != b) for a, b in zip(*kernels, strict=True))
    assert before["network"]["hidden_0"]["U"].shape == (40, 10)
    for factor in ("U", "V"):
        bases = [params["network"]["hidden_0"][factor] for params in (before, after)]
        assert np.any(bases[0] != bases[1])


def test_gradient_starts_from_the_solved_output_or_the_networks_own(model, truth, folders):
    options = {
        "method": "gradient",
        "features": "pinn",
        "init": folders["pinn"],
        "steps": 0,
        "precision": "single",
    }
    solved, own = (
        solve(model, FREQUENCY, SOURCE, output_start=start, **options).scattered
        for start in ("solved", "network")
    )
    exact = solve(
        model,
        FREQUENCY,
        SOURCE,
        **{**options, "method": "galerkin", "precision": "double"},
    ).scattered
    assert relative_l2(solved, exact) < 0.02
    assert relative_l2(own, exact) > 0.1


def test_error_estimate_is_the_change_by_the_last_third(model, folders):
    """Over the first two thirds of the features, asked for as unknowns."""
    options = {"features": "lrpinn", "init": folders["lrpinn"]}
    field = solve(model, FREQUENCY, SOURCE, **options)
    fewer = solve(model, FREQUENCY, SOURCE, **options, unknowns=round(40 / 1.5))
    assert (field.unknowns, fewer.unknowns) == (40, 27)
    change = relative_l2(fewer.scattered, field.scattered)
    expected = change / solver.CHANGE_OVER_ERROR
    np.testing.assert_allclose(field.error_estimate, expected, rtol=1e-3)


@pytest.mark.parametrize("method", ["galerkin", "least_squares"])
def test_steps_that_only_lower_the_residual_are_not_kept(
    model, folders, monkeypatch, method
):
    """The estimate of the error decides, here one that grows at every record."""
    estimates = iter(range(1, 100))
    monkeypatch.setattr(solver, "_estimate", lambda values: float(next(estimates)))
    options = {"method": method, "features": "lrpinn", "init": folders["lrpinn"]}
    steps = {"steps": 15, "report_every": 5, "points": 200, "learning_rate": 1e-2}
    adapted = solve(model, FREQUENCY, SOURCE, **options, **steps)
    start = solve(model, FREQUENCY, SOURCE, **options, steps=0)
    assert [record["error_estimate"] for record in adapted.history] == [1, 2, 3, 4]
    losses = [record["held_out"] for record in adapted.history]
    assert min(losses[1:]) < losses[0]
    np.testing.assert_array_equal(adapted.scattered, start.scattered)


def test_a_field_of_zeros_has_no_estimate():
    """Nor has one without a coarser one beside it."""
    assert np.isnan(solver._estimate(np.zeros((3, 2))))
    assert np.isnan(solver._estimate(np.ones((3, 1))))
    half = np.array([[1.0, 0.5], [-1.0, -0.5]])
    assert solver._estimate(half) == pytest.approx(0.5 / solver.CHANGE_OVER_ERROR)


def test_features_are_solved_for_in_the_layer_they_are_for(model):
    """Unless another is asked for; several sources share the thickest."""
    sources = np.array([[0.3, 0.1], [0.3, 0.7]])
    options = {"method": "galerkin", "features": "lrpinn", "steps": 0}

    def field(share, **more):
        config = dataclasses.replace(SMALL, layer_share=share)
        network = networks.make_network(config)
        pair = network, models.initial_parameters(network, jax.random.key(0))
        return solve(model, FREQUENCY, sources, init=pair, **options, **more).scattered

    fastest = float(model.at(sources)[1])
    thickness = default_thickness(model, FREQUENCY, fastest, 0.5)
    half = field(0.5)
    chosen = field(1.0, thickness=thickness)  # of a velocity rounded otherwise
    np.testing.assert_allclose(half, chosen, atol=1e-6 * np.abs(half).max())
    assert relative_l2(half, field(1.0)) > 1e-3


def test_unknowns_are_at_least_the_rank(model, folders):
    with pytest.raises(ValueError, match="from the last layer's rank 10 to 40, got 9"):
        options = {"features": "lrpinn", "init": folders["lrpinn"]}
        solve(model, FREQUENCY, SOURCE, **options, unknowns=9)


def test_reports_come_as_often_as_asked(adapt):
    options = {"method": "least_squares", "steps": 5, "points": 200}
    field, _, _ = adapt("lrpinn", **options, report_every=2)
    assert [record["step"] for record in field.history] == [0, 2, 4, 5]


@pytest.mark.parametrize("method", ["galerkin", "least_squares"])
def test_gauss_newton_moves_the_singular_values_alone(model, truth, folders, method):
    seen, kept = {}, solver.gauss_newton.gauss_newton

    def recording(network, params, *args, **kwargs):
        result = kept(network, params, *args, **kwargs)
        seen.update(before=params, after=result[0], asked=kwargs)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solver.gauss_newton, "gauss_newton", recording)
        field = solve(
            model,
            FREQUENCY,
            SOURCE,
            method=method,
            features="lrpinn",
            init=folders["lrpinn"],
            optimiser="gauss_newton",
            steps=2,
            points=200,
            precision="single",
            truth=truth.scattered,
        )
    check_record(field, truth, 2)
    held_out = [record["held_out"] for record in field.history]
    assert held_out[-1] < held_out[0]
    before, after = seen["before"], seen["after"]
    jax.tree.map(np.testing.assert_array_equal, before["network"], after["network"])
    assert np.any(before["embedding"]["hidden_0"] != after["embedding"]["hidden_0"])
    assert seen["asked"]["patience"] == solver.gauss_newton.PATIENCE


def test_rank_chosen_by_the_residual_it_costs(model, folders):
    """As the same rank asked for as a fraction, which the method names."""
    options = {"features": "lrpinn", "init": folders["lrpinn"], "points": 200}
    field = solve(model, FREQUENCY, SOURCE, **options, rank_tolerance=1e9)
    assert field.method == "galerkin, lrpinn, rank 1 (6%)"
    same = solve(model, FREQUENCY, SOURCE, **options, rank_fraction=1 / 16)
    assert same.method == "galerkin, lrpinn"
    np.testing.assert_allclose(field.scattered, same.scattered, rtol=1e-4, atol=1e-7)


def test_seeds_of_a_random_start_reproduce_and_differ(model, monkeypatch):
    network = dataclasses.replace(SMALL, layer_share=0.5)
    small = dataclasses.replace(configs.PRESETS["small"], network=network)
    monkeypatch.setitem(configs.PRESETS, "small", small)
    first, again, other = (
        solve(
            model,
            FREQUENCY,
            SOURCE,
            features="pinn",
            init=None,
            seed=seed,
            precision="single",
        ).scattered
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert relative_l2(other, first) > 1e-3


# Options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"source": (5.0, 0.1)}, "source .* lies outside the model"),
        ({"source": (0.3, 0.1, 0.2)}, "source must have 2 coordinates"),
        ({"source": np.zeros((0, 2))}, "at least one source is needed"),
        ({"method": "magic"}, "method must be one of galerkin, .*, got 'magic'"),
        ({"features": "splines"}, "features must be one of plane_waves, .* 'splines'"),
        ({"precision": "half"}, "precision must be one of double, single, got 'half'"),
        ({"output_start": "zero"}, "output_start must be one of solved, network"),
        ({"method": "gradient"}, "plane_waves have nothing to train; method gradient"),
        ({"steps": 5}, "plane_waves have nothing to train; steps has no effect"),
        ({"features": "pinn", "tolerance": 0.1}, "tolerance needs features plane"),
        ({"features": "pinn", "unknowns": 9}, "unknowns applies to waves and to feat"),
        ({"unknowns": 9, "tolerance": 0.1}, "give unknowns or tolerance, not both"),
        ({"unknowns": 0}, "unknowns must be positive, got 0"),
        ({"tolerance": -1.0}, "tolerance must be positive, got -1.0"),
        ({"features": "pinn", "learning_rate": 0.0}, "learning_rate must be positive"),
        ({"features": "pinn", "steps": -1}, "steps must not be negative, got -1"),
        ({"rank_fraction": 0.5}, "rank_fraction applies to features lrpinn only"),
        ({"rank_fraction": 0.0}, "rank_fraction applies to features lrpinn only"),
        (
            {"features": "pinn", "freeze_bases": True},
            "freeze_bases applies to features lrpinn only",
        ),
        (
            {"features": "lrpinn", "rank_fraction": 0.5, "prune_hypernetwork": False},
            "rank_fraction needs a pruned hypernetwork",
        ),
        (
            {"features": "lrpinn", "rank_tolerance": 0.1, "prune_hypernetwork": False},
            "rank_tolerance needs a pruned hypernetwork",
        ),
        ({"rank_tolerance": 0.1}, "rank_tolerance applies to features lrpinn only"),
        (
            {"features": "lrpinn", "rank_tolerance": 0.0},
            "rank_tolerance must be positive, got 0.0",
        ),
        (
            {"features": "lrpinn", "rank_tolerance": 0.1, "rank_fraction": 0.5},
            "give rank_fraction or rank_tolerance, not both",
        ),
        ({"optimiser": "sgd"}, "optimiser must be one of adamw, gauss_newton, got"),
        ({"optimiser": "gauss_newton"}, "features lrpinn, which plane_waves have not"),
        ({**SECOND_ORDER, "features": "pinn"}, "features lrpinn, which pinn have not"),
        (
            {**SECOND_ORDER, "method": "gradient"},
            "gauss_newton needs method galerkin or least_squares; method gradient",
        ),
        (
            {**SECOND_ORDER, "prune_hypernetwork": False},
            "optimiser gauss_newton needs a pruned hypernetwork",
        ),
        ({**SECOND_ORDER, "learning_rate": 1e-3}, "makes no use of learning_rate"),
        ({**SECOND_ORDER, "freeze_bases": True}, "makes no use of freeze_bases"),
        ({**SECOND_ORDER, "report_every": 2}, "makes no use of report_every"),
        (
            {"features": "lrpinn", "rank_fraction": 1.5, "init": "lrpinn"},
            "fraction must be above 0 and at most 1, got 1.5",
        ),
        (
            {"truth": np.zeros((3, 3))},
            r"known field has shape \(3, 3\), expected \(11, 11\)",
        ),
        ({"thickness": -1.0}, "thickness must not be negative"),
        ({"amplitude": 0.0}, "amplitude must be finite and not zero"),
        ({"background_velocity": -2.0}, "background velocity must be positive"),
        ({"features": "pinn", "init": "nowhere"}, "nowhere is not a saved init"),
        ({"frequency": 400.0}, "plane waves are too many to solve for"),
    ],
)
def test_errors_are_one_line(model, folders, options, message):
    arguments = {"frequency": FREQUENCY, "source": SOURCE, **options}
    if options.get("init") in folders:
        arguments["init"] = folders[options["init"]]
    with pytest.raises(ValueError, match=message) as error:
        solve(model, **arguments)
    assert "\n" not in str(error.value)


def test_initialisation_of_another_kind(model, folders):
    with pytest.raises(ValueError, match="lrpinn is a 2D lrpinn; asked for a 2D pinn"):
        solve(model, FREQUENCY, SOURCE, features="pinn", init=folders["lrpinn"])


def test_solve_is_the_packages():
    assert ml.solve is solve
