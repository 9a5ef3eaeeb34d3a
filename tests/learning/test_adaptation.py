"""The loop of gradient adaptation, on objectives whose minimum is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_lrpinn.learning import adaptation
from meta_lrpinn.learning.adaptation import finetune, paper_schedule

TARGET = jnp.array([1.0, -2.0])


def quadratic(params, task, key):
    """‖p − task‖² and a number that only its key decides."""
    loss = jnp.sum((params["p"] - task) ** 2)
    return loss, {"drawn": jax.random.uniform(key)}


def run(objective=quadratic, **changes):
    arguments = {
        "steps": 7,
        "optimiser": optax.sgd(0.25),
        "key": jax.random.key(0),
        "report_every": 3,
        **changes,
    }
    return finetune(objective, {"p": jnp.zeros(2)}, TARGET, **arguments)


def test_steps_are_those_of_the_optimiser():
    """Gradient descent halves the distance at every step of 1/4."""
    params, history = run()
    np.testing.assert_allclose(params["p"], TARGET * (1 - 0.5**7), rtol=1e-6)
    start, *history = history
    assert start == {"step": 0, "held_out": 5.0, "seconds": 0.0}
    assert [record["step"] for record in history] == [3, 6, 7]
    # Each record holds the mean loss since the last one, before its updates.
    losses = 5 * 0.25 ** np.arange(7)
    expected = [losses[:3].mean(), losses[3:6].mean(), losses[6]]
    np.testing.assert_allclose([r["loss"] for r in history], expected, rtol=1e-5)
    seconds = [record["seconds"] for record in history]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_every_step_draws_its_own_key():
    _, history = run(report_every=1)
    drawn = [record["drawn"] for record in history[1:]]
    assert len(set(drawn)) == 7
    expected = [
        float(jax.random.uniform(jax.random.fold_in(jax.random.key(0), i)))
        for i in range(7)
    ]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_points_may_be_the_same_at_every_step():
    _, history = run(report_every=1, fixed_points=True)
    first = jax.random.uniform(jax.random.fold_in(jax.random.key(0), 0))
    drawn = [record["drawn"] for record in history[1:]]
    np.testing.assert_allclose(drawn, 7 * [float(first)], rtol=1e-6)


def test_reports_do_not_change_the_result():
    often, rarely = run(report_every=1)[0], run(report_every=100)[0]
    np.testing.assert_allclose(often["p"], rarely["p"], rtol=1e-6)


def test_zero_steps_change_nothing():
    params, history = run(steps=0)
    np.testing.assert_array_equal(params["p"], 0.0)
    assert history == ()


def test_figures_of_merit_are_recorded_from_the_start():
    seen = []

    def evaluate(params):
        seen.append(np.array(params["p"]))
        return {"distance": float(np.linalg.norm(params["p"] - TARGET))}

    params, history = run(evaluate=evaluate)
    assert [record["step"] for record in history] == [0, 3, 6, 7]
    expected = np.sqrt(5) * 0.5 ** np.array([0, 3, 6, 7])
    np.testing.assert_allclose([r["distance"] for r in history], expected, rtol=1e-5)
    np.testing.assert_array_equal(seen[-1], params["p"])


def test_parameters_with_the_smallest_held_out_loss_are_kept():
    """Steps that only overshoot leave the start; patience ends them early."""
    params, history = run(optimiser=optax.sgd(1.1), steps=6, report_every=1, patience=2)
    np.testing.assert_array_equal(params["p"], 0.0)
    assert [record["step"] for record in history] == [0, 1, 2]
    held_out = [record["held_out"] for record in history]
    np.testing.assert_allclose(held_out, [5, 5 * 1.2**2, 5 * 1.2**4], rtol=1e-5)


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="after .* steps; try a smaller"):
        run(optimiser=optax.sgd(1e30), steps=40, report_every=10)


def test_progress_goes_to_standard_error(capsys):
    run(progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "7/7" in captured.err and "loss" in captured.err
    run()
    assert capsys.readouterr().err == ""


def steps_of(optimiser, number=5):
    """Parameters on the way, of gradients of norms around one."""
    params = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.ones((2, 2))}
    state, way = optimiser.init(params), []
    for index in range(number):
        gradient = jax.tree.map(lambda p, i=index: jnp.sin(p + i), params)
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        way.append(params)
    return way


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_adamw_is_that_of_optax(clip_norm):
    options = {"weight_decay": 0.3, "clip_norm": clip_norm}
    mine = adaptation.make_optimiser("adamw", 0.1, "cosine", 5, **options)
    theirs = optax.adamw(optax.cosine_decay_schedule(0.1, 5), weight_decay=0.3)
    if clip_norm is not None:
        theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs)
    chex.assert_trees_all_close(steps_of(mine), steps_of(theirs), rtol=1e-6)
    without = adaptation.make_optimiser("adamw", 0.1, "cosine", 5, clip_norm=clip_norm)
    assert not np.allclose(steps_of(without)[-1]["a"], steps_of(mine)[-1]["a"])


def test_weights_of_soap_decay_too():
    """With no gradient, by learning rate times decay at every step."""
    optimiser = adaptation.make_optimiser("soap", 0.1, "halved", 2, weight_decay=0.5)
    params = {"a": jnp.array([1.0, -2.0])}
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimiser.update(nothing, optimiser.init(params), params)
    np.testing.assert_allclose(updates["a"], -0.05 * params["a"], rtol=1e-6)


def test_paper_schedule_halves():
    schedule = paper_schedule()
    rates = [float(schedule(step)) for step in (0, 1999, 2001, 3999, 4001, 7999, 8001)]
    expected = np.array([8, 8, 4, 4, 2, 2, 1]) * 1e-3 / 8
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert paper_schedule(0.5)(0) == 0.5
