import dataclasses
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_lrpinn import models
from meta_lrpinn.learning import (
    checkpoints,
    configs,
    maml,
    networks,
    objectives,
    run_log,
    task_sets,
    training,
)
from meta_lrpinn.runtime.options import as_dict

TASKS = 2
MAML = configs.MAML(inner=configs.InnerSteps(learning_rate=0.1), learning_rate=0.05)
CONFIG = configs.TrainingConfig(
    algorithm=MAML,
    iterations=12,
    clip_norm=1.0,
    tasks_per_batch=TASKS,
    evaluate_every=4,
    checkpoint_every=6,
    log_every=3,
)


def objective(params, task, key):
    """Distance from a task's centre, blurred by the key."""
    blur = jax.random.key_data(key).astype(jnp.float32) / 2.0**32
    misfit = params["centre"] - task["centre"] + 0.01 * blur
    # A task of infinite weight ends in a loss that is not finite.
    loss = jnp.sum(misfit**2) * task["weight"] + jnp.sum(params["scale"] ** 2)
    return loss, {"distance": jnp.sqrt(jnp.sum(misfit**2))}


def sampler(seed, step):
    rng = np.random.default_rng((seed, step))

    def batch():
        centres = rng.normal(size=(TASKS, 2)).astype(np.float32)
        return {"centre": centres, "weight": np.ones(TASKS, np.float32)}

    return batch(), batch()


def bad_from(bad_step, value=np.nan):
    def sample(seed, step):
        support, query = sampler(seed, step)
        if step >= bad_step:
            query["weight"][1] = value
        return support, query

    return sample


def parameters():
    return {"centre": np.full(2, 5.0, np.float32), "scale": np.ones(3, np.float32)}


def distance(params, step):
    return {"error": float(np.linalg.norm(params["centre"])), "step_seen": step}


def run(directory, config=CONFIG, sample=sampler, **options):
    options = {"evaluate": distance, "progress": False, **options}
    return training.train(config, objective, sample, parameters(), directory, **options)


def steps(path):
    return [row["step"] for row in run_log.read_rows(path)]


def saved_steps(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("first_order", "same_task", "clip_norm"), [(True, False, 0.5), (False, True, None)]
)
def test_training_is_adamw_on_the_clipped_meta_gradient(
    tmp_path, first_order, same_task, clip_norm
):
    algorithm = dataclasses.replace(
        MAML, first_order=first_order, same_task=same_task, weight_decay=0.1
    )
    config = dataclasses.replace(
        CONFIG,
        algorithm=algorithm,
        iterations=7,
        schedule=configs.Staircase(decay_every=3),
        clip_norm=clip_norm,
        seed=3,
    )
    state = run(tmp_path, config)

    schedule = optax.piecewise_constant_schedule(0.05, {3: 0.8, 6: 0.8})
    optimiser = optax.adamw(schedule, weight_decay=0.1)
    params = jax.tree.map(jnp.asarray, parameters())
    opt_state = optimiser.init(params)
    gradient = jax.jit(lambda *batch: maml.gradient(objective, *batch, algorithm))
    for step in range(7):
        key = jax.random.fold_in(jax.random.key(3), step)
        support, query = sampler(3, step)
        keys = jax.random.split(key, config.tasks_per_batch)
        _, grads = gradient(params, support, query, keys)
        norm = optax.tree.norm(grads)
        factor = 1.0 if clip_norm is None else jnp.minimum(1, clip_norm / norm)
        grads = jax.tree.map(lambda g, f=factor: g * f, grads)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_close(state.params, params, rtol=1e-5)
    assert int(state.step) == 7


def test_bases_are_orthonormal_after_every_update(tmp_path):
    joint = configs.JointTraining(learning_rate=0.05, weight_decay=0.0)
    config = dataclasses.replace(CONFIG, iterations=2, algorithm=joint)

    def pull(params, task, key):
        (layer,) = params["network"].values()
        far = jnp.sum((layer["U"] - 2.0) ** 2) + jnp.sum((layer["V"] + 1.0) ** 2)
        return far + jnp.sum(task["centre"] ** 2), {}

    start = {"network": {"hidden_0": {"U": np.eye(5, 3), "V": np.eye(4, 3)}}}

    def bases(name, **changes):
        changed = dataclasses.replace(config, **changes)
        folder = tmp_path / name
        state = training.train(changed, pull, sampler, start, folder, progress=False)
        return state.params["network"]["hidden_0"].values()

    for basis in bases("kept", orthonormal_bases=True):
        np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-5)
    for basis in bases("free"):
        assert np.abs(basis.T @ basis - np.eye(3)).max() > 0.01


def test_reptile_interpolates_towards_the_adapted_parameters(tmp_path):
    """A fraction of 1 ends at their mean: here, one long step, the centres of the tasks."""
    inner = configs.InnerSteps(learning_rate=0.5)
    config = dataclasses.replace(CONFIG, iterations=1, clip_norm=None)

    def exact(params, task, key):
        return jnp.sum((params["centre"] - task["centre"]) ** 2), {}

    start = {"centre": np.full(2, 5.0, np.float32)}
    ends = [
        training.train(
            dataclasses.replace(
                config, algorithm=configs.Reptile(inner=inner, step=fraction)
            ),
            exact,
            sampler,
            start,
            tmp_path / str(fraction),
            progress=False,
        ).params["centre"]
        for fraction in (1.0, 0.25)
    ]
    mean = sampler(config.seed, 0)[0]["centre"].mean(axis=0)
    np.testing.assert_allclose(ends[0], mean, rtol=1e-5)
    np.testing.assert_allclose(ends[1], 0.75 * start["centre"] + 0.25 * mean, rtol=1e-5)


@pytest.mark.parametrize("name", ["paper", "own_output"])
def test_tasks_at_once_train_as_one_by_one(tmp_path, name):
    """A network as the presets have them, on what they learn from, jitted."""
    preset = configs.PRESETS[name]
    algorithm = preset.training.algorithm
    inner = dataclasses.replace(algorithm.inner, steps=2)
    config = dataclasses.replace(
        preset.training,
        algorithm=dataclasses.replace(algorithm, inner=inner),
        iterations=2,
        tasks_per_batch=2,
    )
    size = {"smallest_size": 11, "largest_size": 11, "spacing": 0.1}
    sample = task_sets.streaming_sampler(dataclasses.replace(preset.tasks, **size), config)
    model = networks.make_network(
        dataclasses.replace(preset.network, width=8, depth=1, rank=3)
    )
    objective = objectives.make_objective(
        dataclasses.replace(preset.objective, points=36), model
    )
    params = models.initial_parameters(model, jax.random.key(0))
    ends = [
        training.train(
            dataclasses.replace(config, task_axis=axis),
            *(objective, sample, params, tmp_path / axis),
            progress=False,
        ).params
        for axis in configs.TASK_AXES
    ]
    chex.assert_trees_all_close(*ends, rtol=1e-3, atol=1e-5)
    moved = jax.tree.map(lambda end, start: jnp.any(end != start), ends[0], params)
    assert all(jax.tree.leaves(moved))


def test_schedules():
    staircase = training.make_schedule(configs.TrainingConfig())
    rates = [float(staircase(step)) for step in (0, 4_999, 5_000, 10_000)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 8e-4, 6.4e-4], rtol=1e-6)
    config = configs.TrainingConfig(schedule=configs.Cosine(), iterations=100)
    cosine = training.make_schedule(config)
    rates = [float(cosine(step)) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 0], rtol=1e-5, atol=1e-9)
    reptile = configs.TrainingConfig(algorithm=configs.Reptile(step=0.5))
    step = training.make_schedule(reptile)
    np.testing.assert_allclose([step(0), step(5_000)], [0.5, 0.4], rtol=1e-6)


def test_the_update_compiles_once(tmp_path):
    traces = []

    def counting(params, task, key):
        traces.append(None)
        return objective(params, task, key)

    short = dataclasses.replace(CONFIG, iterations=6)
    training.train(short, counting, sampler, parameters(), tmp_path, progress=False)
    # Once as the inner loss and once as the query's, however many steps there are.
    assert len(traces) == 2


def test_metrics_are_logged_and_evaluations_too(tmp_path):
    state = run(tmp_path)
    assert steps(tmp_path / "training.csv") == [3, 4, 6, 8, 9, 12]
    rows = run_log.read_rows(tmp_path / "training.csv")
    assert set(rows[0]) == {
        "step",
        "loss",
        "distance",
        "support_loss",
        "gradient_norm",
        "seconds_per_iteration",
    }
    assert rows[-1]["loss"] < rows[0]["loss"]
    evaluations = run_log.read_rows(tmp_path / "evaluation.csv")
    assert [row["step"] for row in evaluations] == [0, 4, 8, 12]
    assert [row["step_seen"] for row in evaluations] == [0, 4, 8, 12]
    np.testing.assert_allclose(
        evaluations[-1]["error"], distance(state.params, 12)["error"], rtol=1e-6
    )


def test_best_and_latest_checkpoints_are_kept(tmp_path):
    errors = {0: 9.0, 4: 0.5, 8: 0.7, 12: 0.6}
    config = dataclasses.replace(CONFIG, checkpoint_every=3)
    run(tmp_path, config, evaluate=lambda params, step: {"error": errors[step]})
    assert saved_steps(tmp_path) == [4, 9, 12]
    _, settings, step = checkpoints.load_run_parameters(tmp_path, "best")
    assert step == 4
    assert settings["training"] == as_dict(config)


def test_a_finished_run_is_not_continued(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path)
    chex.assert_trees_all_equal(first.params, again.params)
    assert steps(tmp_path / "evaluation.csv") == [0, 4, 8, 12]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_divergence_names_the_last_good_checkpoint(tmp_path, value):
    with pytest.raises(training.TrainingDiverged) as error:
        run(tmp_path, sample=bad_from(7, value))
    # The batch of step 7 makes update 8.
    message = str(error.value)
    assert message.startswith("loss is not finite at step 8 (loss ")
    last = tmp_path / "checkpoints" / "6"
    assert message.endswith(f"the last good checkpoint is {last} (step 6)")
    assert max(saved_steps(tmp_path)) == 6
    params, _, _ = checkpoints.load_run_parameters(tmp_path, "latest")
    chex.assert_tree_all_finite(params)
    assert max(steps(tmp_path / "training.csv")) == 6


def test_a_bad_state_is_not_saved_even_at_once(tmp_path):
    config = dataclasses.replace(
        CONFIG, checkpoint_every=1, evaluate_every=1, log_every=100
    )
    with pytest.raises(training.TrainingDiverged, match="at step 6 .*step 5"):
        run(tmp_path, config, sample=bad_from(5))
    assert max(saved_steps(tmp_path)) == 5


def test_a_gradient_that_is_not_finite_counts(tmp_path):
    def cusp(params, task, key):
        loss = jnp.sqrt(jnp.sum((params["centre"] * 0) ** 2))
        return loss, {}

    config = dataclasses.replace(CONFIG, algorithm=configs.JointTraining())
    with pytest.raises(training.TrainingDiverged) as error:
        training.train(config, cusp, sampler, parameters(), tmp_path, progress=False)
    assert str(error.value) == (
        "gradient is not finite at step 1 (loss 0.0, gradient norm nan); no checkpoint "
        "was saved before"
    )


def test_other_settings_are_refused_on_resume(tmp_path):
    settings = {"network": {"width": 3}}
    run(tmp_path, settings=settings)
    faster = dataclasses.replace(MAML, learning_rate=0.1)
    other = dataclasses.replace(CONFIG, algorithm=faster, log_every=1)
    with pytest.raises(ValueError) as error:
        run(tmp_path, other, settings={"network": {"width": 4}})
    message = str(error.value)
    assert "training.algorithm.learning_rate was 0.05, is 0.1" in message
    assert "network.width was 3, is 4" in message
    assert "log_every" not in message


def test_more_iterations_are_not_another_run_but_for_cosine(tmp_path):
    longer = dataclasses.replace(CONFIG, iterations=15)
    run(tmp_path / "staircase")
    state = run(tmp_path / "staircase", longer)
    assert int(state.step) == 15
    chex.assert_trees_all_equal(state.params, run(tmp_path / "once", longer).params)

    cosine = dataclasses.replace(CONFIG, schedule=configs.Cosine())
    run(tmp_path / "cosine", cosine)
    with pytest.raises(ValueError, match="training.iterations was 12, is 15"):
        run(tmp_path / "cosine", dataclasses.replace(cosine, iterations=15))


def test_the_time_budget_ends_a_run_and_counts_earlier_sittings(tmp_path):
    # However short: a checkpoint, of which there is an initialisation to write.
    state = run(tmp_path, seconds=0.0)
    assert 0 < int(state.step) < 12
    assert max(saved_steps(tmp_path)) == int(state.step)
    state = run(tmp_path / "later", seconds=1e9)
    assert int(state.step) == 12

    slow = threading.Event()

    def sample(seed, step):
        slow.wait(0.05)
        return sampler(seed, step)

    config = dataclasses.replace(CONFIG, iterations=1000)
    state = run(tmp_path / "slow", config, sample=sample, seconds=2.0)
    stopped = int(state.step)
    assert 0 < stopped < 100
    assert max(saved_steps(tmp_path / "slow")) == stopped
    assert steps(tmp_path / "slow" / "evaluation.csv")[-1] == stopped
    state = run(tmp_path / "slow", config, sample=sample, seconds=2.0)
    assert int(state.step) == stopped


def test_an_error_in_the_sampler_ends_the_run(tmp_path):
    def broken(seed, step):
        if step == 5:
            raise OSError("no such task")
        return sampler(seed, step)

    with pytest.raises(OSError, match="no such task"):
        run(tmp_path, sample=broken)
    names = [thread.name for thread in threading.enumerate()]
    assert "task sampler" not in names


def test_progress_shows_time_left_loss_and_error(tmp_path, capfd):
    run(tmp_path, progress=True)
    longer = dataclasses.replace(CONFIG, iterations=13)
    run(tmp_path, longer, progress=True)
    text = capfd.readouterr().err
    assert "12/12 [" in text and "loss=" in text and "error=" in text
    assert f"resuming from step 12, {tmp_path / 'checkpoints' / '12'}" in text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("iterations", 0, "iterations must be positive, got 0"),
        ("clip_norm", float("nan"), "clip_norm must be positive, got nan"),
        ("task_axis", "pmap", "task_axis must be one of vmap, map, got 'pmap'"),
    ],
)
def test_configuration_is_checked(field, value, message):
    with pytest.raises(ValueError, match=message):
        configs.TrainingConfig(**{field: value})
