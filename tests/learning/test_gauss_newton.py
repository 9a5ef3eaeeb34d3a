"""Damped steps of the singular values: against NumPy, and what a run of them keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from meta_lrpinn import models
from meta_lrpinn.learning import adaptation, gauss_newton, objectives
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.linear import least_squares
from meta_lrpinn.physics import derivatives
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.velocity import VelocityModel

FREQUENCY, POINTS, RIDGE = 3.0, 60, 1e-13
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def problem():
    depth = np.linspace(1.6, 2.4, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    return problems.make_problem(model, FREQUENCY, (0.3, 0.1), thickness=0.3)


def make_network(**options):
    network = models.make_meta_lrpinn(
        width=7, depth=2, rank=3, first_scale=5.0, last_width=6, **options
    )
    params = models.initial_parameters(network, jax.random.key(0))
    return models.prune_hypernetwork(network, params, FREQUENCY)


@pytest.fixture(scope="module")
def network():
    return make_network()


# One step -----------------------------------------------------------------------------


def slow_step(model, params, problem, points, damping, first_layer, projected):
    """The same step by finite differences and `lstsq` on the stacked equations."""
    start, unravel = ravel_pytree(gauss_newton.select(params, first_layer))
    collocation = problems.collocate(problem, points)

    @jax.jit
    def operator(theta):
        current = gauss_newton.merge(params, unravel(theta))
        features = objectives.feature_function(model, current, problem)
        samples = derivatives.derivatives(features, points)
        return least_squares.operator_on_features(samples, collocation)

    matrix = np.asarray(operator(start))
    rhs = np.asarray(collocation.scattering_source)
    weights = np.linalg.lstsq(matrix, rhs, rcond=None)[0]
    small = 1e-5 * np.eye(len(start))
    columns = [(operator(start + h) - operator(start - h)) @ weights for h in small]
    jacobian = np.stack(columns, axis=1) / 2e-5
    if projected:
        jacobian -= matrix @ np.linalg.lstsq(matrix, jacobian, rcond=None)[0]
    real = np.concatenate([jacobian.real, jacobian.imag])
    remainder = matrix @ weights - rhs
    remainder = np.concatenate([remainder.real, remainder.imag])
    weighted = np.sqrt(damping) * np.diag(np.linalg.norm(real, axis=0))
    stacked = np.concatenate([real, weighted])
    wanted = np.concatenate([-remainder, np.zeros(len(start))])
    return np.linalg.lstsq(stacked, wanted, rcond=None)[0]


@pytest.mark.parametrize(
    ("first_layer", "projected"),
    [(True, True), pytest.param(False, False, marks=pytest.mark.slow)],
)
def test_damped_step_is_that_of_least_squares(problem, first_layer, projected):
    with jax.enable_x64(True):
        model, params = make_network(param_dtype=jnp.float64)
        points = problems.sample_points(KEY, problem, POINTS)
        linearise = jax.jit(gauss_newton.linearise, static_argnums=(0, 4, 5, 6))
        system = linearise(model, params, problem, points, first_layer, projected, RIDGE)
        for damping in (1.0, 1e-2):
            step = gauss_newton.damped_step(system, damping)
            expected = slow_step(
                model, params, problem, points, damping, first_layer, projected
            )
            assert len(step) == 2 * 3 + first_layer * 4 * 7
            error = np.linalg.norm(step - expected) / np.linalg.norm(expected)
            assert error < 1e-4


def test_points_fill_chunks_of_any_number(monkeypatch):
    points = jnp.arange(14.0).reshape(7, 2)
    for chunk in (3, 7, 100):
        monkeypatch.setattr(gauss_newton, "_CHUNK", chunk)
        total, double = gauss_newton._map_points(lambda p: (p.sum(), 2 * p), points)
        np.testing.assert_array_equal(total, points.sum(axis=1))
        np.testing.assert_array_equal(double, 2 * points)


def test_a_parameter_without_effect_stays(network):
    gram = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    system = gauss_newton.Linearisation(
        gram=gram, gradient=jnp.array([1.0, 0.0]), squared=jnp.array(1.0)
    )
    step = gauss_newton.damped_step(system, 0.0)
    np.testing.assert_allclose(step, [-0.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(gauss_newton.damped_step(system, 1.0)[0], -0.25, 1e-5)


# A run --------------------------------------------------------------------------------


def run(network, problem, **changes):
    arguments = {"steps": 4, "points": POINTS, "key": KEY, **changes}
    return gauss_newton.gauss_newton(*network, problem, **arguments)


@pytest.mark.parametrize("first_layer", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_loss_falls_and_only_what_is_selected_changes(problem, network, first_layer):
    before = network[1]
    after, history = run(network, problem, first_layer=first_layer)
    assert [record["step"] for record in history] == list(range(5))
    held_out = [record["held_out"] for record in history]
    assert held_out == sorted(held_out, reverse=True) and held_out[-1] < held_out[0]
    seconds = [record["seconds"] for record in history]
    assert seconds == sorted(seconds) and seconds[1] > 0
    changed = {
        path[1].key if path[0].key == "network" else path[0].key
        for path, same in jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: bool(np.all(a == b)), before, after)
        )
        if not same
    }
    assert changed == {"embedding"} | ({"first"} if first_layer else set())


def test_held_out_loss_is_that_of_the_parameters_at_the_points_of_finetune(
    problem, network
):
    after, history = run(network, problem)
    objective = jax.jit(objectives.residual_objective(network[0], POINTS))
    task = single_task(jax.tree.map(jnp.asarray, problem))
    key = jax.random.fold_in(KEY, adaptation.HELD_OUT_FOLD)
    for params, record in ((network[1], history[0]), (after, history[-1])):
        expected = objective(params, task, key)[0]
        # A logarithm, in single precision.
        np.testing.assert_allclose(record["held_out"], expected, atol=2e-4)


def test_refused_steps_leave_the_parameters_and_add_damping(problem, network, monkeypatch):
    """A step to nowhere is never taken; patience ends the run."""
    forward = gauss_newton.damped_step
    monkeypatch.setattr(gauss_newton, "damped_step", lambda *a: jnp.nan * forward(*a))
    gauss_newton._attempted.clear_cache()
    after, history = run(network, problem, steps=9, patience=3)
    gauss_newton._attempted.clear_cache()
    jax.tree.map(np.testing.assert_array_equal, after, network[1])
    assert [record["step"] for record in history] == [0, 1, 2, 3]
    dampings = [record["damping"] for record in history[1:]]
    np.testing.assert_allclose(np.array(dampings) / dampings[0], [1, 4, 16])
    assert len({record["loss"] for record in history[1:]}) == 1  # the same points


def test_figures_of_merit_are_recorded_for_what_is_kept(problem, network):
    def evaluate(params):
        return {"sigma": float(params["embedding"]["hidden_0"][0])}

    after, history = run(network, problem, steps=2, evaluate=evaluate)
    assert history[0]["sigma"] == evaluate(network[1])["sigma"]
    assert history[-1]["sigma"] == evaluate(after)["sigma"]
    same, records = run(network, problem, steps=0, evaluate=evaluate)
    assert same is network[1]
    assert records == ({"step": 0, "seconds": 0.0, **evaluate(same)},)
    assert run(network, problem, steps=0)[1] == ()


def test_another_figure_decides_where_it_is_asked(problem, network):
    """Of steps that lower the loss, none is kept where the figure grows by each."""
    seen = []

    def evaluate(params):
        seen.append(params)
        return {"order": float(len(seen))}

    last, history = run(network, problem, steps=2, evaluate=evaluate)
    assert history[-1]["held_out"] < history[0]["held_out"]
    assert last is seen[-1] is not seen[0]
    first, _ = run(network, problem, steps=2, evaluate=evaluate, choose="order")
    assert first is network[1]


def test_progress_goes_to_standard_error(problem, network, capsys):
    run(network, problem, steps=1, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "1/1" in captured.err


def test_networks_without_free_singular_values_are_refused(problem, network):
    whole = models.make_meta_lrpinn(width=7, depth=2, rank=3)
    for model in (whole, models.PINN(width=7, depth=2)):
        with pytest.raises(ValueError, match="whose hypernetwork is pruned") as error:
            run((model, network[1]), problem)
        assert "\n" not in str(error.value)


def test_a_loss_that_is_not_finite_is_an_error(problem, network):
    model, params = network
    nowhere = jax.tree.map(lambda sigma: sigma * jnp.nan, params["embedding"])
    broken = {**params, "embedding": nowhere}
    with pytest.raises(FloatingPointError, match="nan before the first step"):
        run((model, broken), problem)
