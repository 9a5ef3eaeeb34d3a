import dataclasses
import functools

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_lrpinn.learning import configs, maml
from meta_lrpinn.learning.configs import (
    MAML,
    InnerSteps,
    JointTraining,
    MultiStepMAML,
    Reptile,
)
from meta_lrpinn.learning.soap import scale_by_soap

TASKS = 3
STEPS = {"steps": 2, "learning_rate": 0.1}
INNER = InnerSteps(**STEPS)
FIRST, SECOND = MAML(inner=INNER), MAML(inner=INNER, first_order=False)
STATIC = {"static_argnums": (0, 5, 6)}  # objective, algorithm and task axis

gradient_of = jax.jit(maml.gradient, **STATIC)


@functools.partial(jax.jit, **STATIC)
def loss_of(*arguments):
    """Loss and scalars; the compiler leaves out the gradient."""
    return maml.gradient(*arguments)[0]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def objective(params, task, key):
    """Regression of sin(a·x) at points drawn from the key."""
    # Compiles in a tenth of the time of jax.random.normal.
    phase = jax.random.key_data(key).astype(float) / 2**32
    points = 2 * jnp.sin(1e3 * (1 + phase) * jnp.arange(1.0, 17.0).reshape(8, 2))
    hidden = jnp.tanh(points @ params["first"] + params["bias"])
    misfit = hidden @ params["last"] - jnp.sin(points @ task["direction"])
    loss = jnp.mean(misfit**2)
    return loss, {"largest": jnp.max(jnp.abs(misfit))}


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    # A square matrix: of another one SOAP's bases are in part rounding alone.
    shapes = {"first": (2, 2), "bias": (2,), "last": (2,)}
    return {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    support, query = (
        {"direction": jnp.asarray(rng.normal(size=(TASKS, 2)))} for _ in range(2)
    )
    return support, query, jax.random.split(jax.random.key(7), TASKS)


def task(tasks, index):
    return jax.tree.map(lambda leaf: leaf[index], tasks)


query_gradient = jax.jit(jax.grad(objective, has_aux=True))


@functools.partial(jax.jit, static_argnames=("steps",))
def loop_adapt(params, task, key, steps, learning_rate):
    """Inner descent written out."""
    for step_key in jax.random.split(key, steps):
        gradient = jax.grad(lambda p, k=step_key: objective(p, task, k)[0])(params)
        params = jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)
    return params


def loop_keys(keys):
    return [jax.random.split(key) for key in keys]


def test_meta_loss_is_the_mean_over_tasks(params, batch):
    support, query, keys = batch
    loss, scalars = loss_of(objective, params, *batch, FIRST)

    results = []
    for index, (support_key, query_key) in enumerate(loop_keys(keys)):
        adapted = loop_adapt(params, task(support, index), support_key, **STEPS)
        results.append(objective(adapted, task(query, index), query_key))
    chex.assert_trees_all_close(loss, np.mean([r[0] for r in results]), rtol=1e-12)
    largest = np.mean([r[1]["largest"] for r in results])
    chex.assert_trees_all_close(scalars["largest"], largest, rtol=1e-12)


def test_support_loss_is_the_mean_loss_before_adaptation(params, batch):
    support, _, keys = batch
    _, scalars = loss_of(objective, params, *batch, FIRST)
    before = [
        objective(params, task(support, i), jax.random.split(k, 2)[0])[0]
        for i, (k, _) in enumerate(loop_keys(keys))
    ]
    chex.assert_trees_all_close(scalars["support_loss"], np.mean(before), rtol=1e-12)


@pytest.mark.parametrize(("task_axis", "same_task"), [("map", False), ("vmap", True)])
def test_second_order_gradient_is_that_of_the_meta_loss(
    params, batch, task_axis, same_task
):
    algorithm = dataclasses.replace(SECOND, same_task=same_task)
    _, gradient = gradient_of(objective, params, *batch, algorithm, task_axis)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    def loss(flat):
        return loss_of(objective, unravel(flat), *batch, algorithm)[0]

    step = 1e-5
    differences = [
        (loss(flat + step * unit) - loss(flat - step * unit)) / (2 * step)
        for unit in np.eye(flat.size)
    ]
    flat_gradient = jax.flatten_util.ravel_pytree(gradient)[0]
    chex.assert_trees_all_close(
        flat_gradient, jnp.asarray(differences), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("task_axis", configs.TASK_AXES)
def test_first_order_gradient_is_the_mean_query_gradient_where_adapted(
    params, batch, task_axis
):
    support, query, keys = batch
    _, gradient = gradient_of(objective, params, *batch, FIRST, task_axis)

    gradients = []
    for index, (support_key, query_key) in enumerate(loop_keys(keys)):
        adapted = loop_adapt(params, task(support, index), support_key, **STEPS)
        gradients.append(query_gradient(adapted, task(query, index), query_key)[0])
    mean = jax.tree.map(lambda *leaves: sum(leaves) / TASKS, *gradients)
    chex.assert_trees_all_close(gradient, mean, rtol=1e-11)


def test_orders_differ(params, batch):
    first, second = (
        gradient_of(objective, params, *batch, algorithm)[1]
        for algorithm in (FIRST, SECOND)
    )
    assert not np.allclose(first["first"], second["first"], rtol=1e-2)


@pytest.mark.parametrize("algorithm", [JointTraining(), FIRST, SECOND])
def test_tasks_one_by_one_give_the_same(params, batch, algorithm):
    one, all_at_once = (
        gradient_of(objective, params, *batch, algorithm, axis) for axis in ("map", "vmap")
    )
    chex.assert_trees_all_close(one, all_at_once, rtol=1e-11)


def test_joint_training_is_the_loss_of_the_support_tasks(params, batch):
    support, _, keys = batch
    loss, scalars = loss_of(objective, params, *batch, JointTraining())
    direct = [
        objective(params, task(support, i), k)[0]
        for i, (_, k) in enumerate(loop_keys(keys))
    ]
    chex.assert_trees_all_close(loss, np.mean(direct), rtol=1e-12)
    assert "support_loss" not in scalars


def test_adaptation_reports_its_losses_and_descends(params, batch):
    support, _, (key, *_) = batch
    one = task(support, 0)
    inner = InnerSteps(steps=30, learning_rate=0.1)
    adapted, losses = maml.adapt(objective, params, one, key, inner)
    chex.assert_shape(losses, (30,))
    first_key = jax.random.split(key, 30)[0]
    np.testing.assert_allclose(losses[0], objective(params, one, first_key)[0])
    assert objective(adapted, one, key)[0] < 0.5 * objective(params, one, key)[0]


def test_same_task_judges_support_tasks_at_other_points(params, batch):
    support, query, keys = batch
    given = loss_of(objective, params, support, support, keys, FIRST)
    other_points = MAML(inner=INNER, same_task=True)
    same = loss_of(objective, params, support, query, keys, other_points)
    chex.assert_trees_all_equal(same, given)
    # Of steps of no length, other points alone make query and support loss differ.
    still = MAML(inner=InnerSteps(learning_rate=0.0), same_task=True)
    loss, scalars = loss_of(objective, params, support, query, keys, still)
    assert abs(loss - scalars["support_loss"]) > 1e-3


def test_batches_that_do_not_fit_are_refused(params, batch):
    support, query, keys = batch
    shorter = jax.tree.map(lambda leaf: leaf[:2], query)
    with pytest.raises(AssertionError, match="2 != 3"):
        loss_of(objective, params, support, shorter, keys, FIRST)
    with pytest.raises(AssertionError, match="shape"):
        maml.number_of_tasks({"a": np.zeros((3, 1)), "b": np.zeros(2)})
    with pytest.raises(AssertionError, match="shape"):
        maml.number_of_tasks({"a": np.zeros((3, 1)), "b": np.zeros(())})


# Inner steps other than plain descent, and what they are worth without MAML -----------


def optax_adapt(params, task, key, optimiser, steps):
    """Inner steps of any optax optimiser, written out."""
    state = optimiser.init(params)
    for step_key in jax.random.split(key, steps):
        gradient = jax.grad(lambda p, k=step_key: objective(p, task, k)[0])(params)
        updates, state = optimiser.update(gradient, state)
        params = optax.apply_updates(params, updates)
    return params


INNER_STEPS = {
    "sgd": ({"optimiser": "sgd"}, optax.sgd(0.1)),
    "adam": ({"optimiser": "adam"}, optax.adam(0.1)),
    "soap": (
        {"optimiser": "soap"},
        optax.chain(scale_by_soap(), optax.scale_by_learning_rate(0.1)),
    ),
    "clipped": (
        {"optimiser": "sgd", "clip_norm": 0.2},
        optax.chain(optax.clip_by_global_norm(0.2), optax.sgd(0.1)),
    ),
}


@pytest.mark.parametrize(
    ("name", "task_axis"),
    [("sgd", "map"), ("adam", "vmap"), ("clipped", "vmap"), ("soap", "map")],
)
def test_reptile_goes_back_from_the_mean_of_the_adapted(params, batch, name, task_axis):
    options, optimiser = INNER_STEPS[name]
    support, query, keys = batch
    algorithm = Reptile(inner=InnerSteps(steps=4, learning_rate=0.1, **options))
    (loss, scalars), way = gradient_of(
        objective, params, support, query, keys, algorithm, task_axis
    )
    adapted, last, first = [], [], []
    for index, task_key in enumerate(keys):
        step_keys = jax.random.split(task_key, 4)
        one = task(support, index)
        adapted.append(optax_adapt(params, one, task_key, optimiser, 4))
        # The keys of the steps before the last are those of four.
        before = params
        state = optimiser.init(params)
        for step_key in step_keys[:3]:
            gradient = jax.grad(lambda p, k=step_key, t=one: objective(p, t, k)[0])(before)
            updates, state = optimiser.update(gradient, state)
            before = optax.apply_updates(before, updates)
        first.append(objective(params, one, step_keys[0])[0])
        last.append(objective(before, one, step_keys[3])[0])
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *adapted)
    expected = jax.tree.map(jnp.subtract, params, mean)
    # Adam's ε is under the root here and beside it there.
    chex.assert_trees_all_close(way, expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(loss, np.mean(last), rtol=1e-7)
    np.testing.assert_allclose(scalars["support_loss"], np.mean(first), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "task_axis"),
    [("sgd", "map"), ("adam", "vmap"), ("clipped", "vmap"), ("soap", "map")],
)
def test_multi_step_sums_what_the_query_would_do(params, batch, name, task_axis):
    options, optimiser = INNER_STEPS[name]
    support, query, keys = batch
    algorithm = MultiStepMAML(inner=InnerSteps(steps=2, learning_rate=0.1, **options))
    (loss, scalars), gradient = gradient_of(objective, params, *batch, algorithm, task_axis)
    totals, first, last = [], [], []
    for index, task_key in enumerate(keys):
        inside, state = params, optimiser.init(params)
        total = jax.tree.map(jnp.zeros_like, params)
        for step_key in jax.random.split(task_key, 2):
            support_key, query_key = jax.random.split(step_key)
            one, other = task(support, index), task(query, index)
            first.append(objective(inside, one, support_key)[0])
            slope = query_gradient(inside, one, support_key)[0]
            updates, state = optimiser.update(slope, state)
            inside = optax.apply_updates(inside, updates)
            slope = query_gradient(inside, other, query_key)[0]
            updates, _ = optimiser.update(slope, state)
            total = jax.tree.map(jnp.subtract, total, updates)
        totals.append(total)
        last.append(objective(inside, other, query_key)[0])
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *totals)
    # Adam's ε is under the root here and beside it there.
    chex.assert_trees_all_close(gradient, expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(loss, np.mean(last), rtol=1e-7)
    np.testing.assert_allclose(scalars["support_loss"], np.mean(first[::2]), rtol=1e-12)


def bowl(params, task, key):
    """½ a |p − c|²: k steps of descent end at c + (1 − η a)^k (p − c)."""
    del key
    misfit = params - task["centre"]
    return 0.5 * task["curvature"] * jnp.sum(misfit**2), {}


BOWLS = {
    "centre": np.array([[1.0, -2.0], [0.5, 3.0]]),
    "curvature": np.array([0.5, 2.0]),
}


def test_reptile_and_maml_of_quadratics_are_known():
    """With r = 1 − η a and k steps, of p − c.

    Reptile: 1 − r^k; MAML: a r^2k, of first order a r^k; multi-step: η a (r + … + r^k).
    """
    start, rate, steps = jnp.array([0.3, 0.7]), 0.2, 3
    misfit = np.asarray(start) - BOWLS["centre"]
    a = BOWLS["curvature"][:, None]
    shrunk = (1 - rate * a) ** steps
    keys = jax.random.split(jax.random.key(0), 2)
    inner = InnerSteps(steps=steps, learning_rate=rate)
    batch = BOWLS, BOWLS, keys
    _, way = maml.gradient(bowl, start, *batch, Reptile(inner=inner))
    np.testing.assert_allclose(way, np.mean((1 - shrunk) * misfit, axis=0), rtol=1e-12)
    _, total = maml.gradient(bowl, start, *batch, MultiStepMAML(inner=inner))
    expected = np.mean((1 - rate * a) * (1 - shrunk) * misfit, axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    for first_order, factor in ((True, shrunk), (False, shrunk**2)):
        algorithm = MAML(inner=inner, first_order=first_order)
        _, gradient = maml.gradient(bowl, start, *batch, algorithm)
        expected = np.mean(a * factor * misfit, axis=0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)


@pytest.mark.parametrize(("optimiser", "task_axis"), [("sgd", "vmap"), ("adam", "map")])
def test_second_order_goes_through_adam_and_clipping(params, batch, optimiser, task_axis):
    inner = InnerSteps(**STEPS, optimiser=optimiser, clip_norm=0.5)
    algorithm = MAML(inner=inner, first_order=False)
    _, gradient = gradient_of(objective, params, *batch, algorithm, task_axis)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    loss = jax.jit(lambda x: loss_of(objective, unravel(x), *batch, algorithm)[0])
    step = 1e-6
    numerical = [
        (loss(flat.at[i].add(step)) - loss(flat.at[i].add(-step))) / (2 * step)
        for i in range(len(flat))
    ]
    analytic, _ = jax.flatten_util.ravel_pytree(gradient)
    np.testing.assert_allclose(analytic, numerical, rtol=1e-5, atol=1e-8)


def test_second_order_adam_is_finite_where_the_gradient_is_zero():
    at_rest = jnp.array([1.0, -2.0])
    one = jax.tree.map(lambda leaf: leaf[:1], BOWLS)
    algorithm = MAML(
        inner=InnerSteps(steps=2, learning_rate=0.1, optimiser="adam"), first_order=False
    )
    keys = jax.random.split(jax.random.key(0), 1)
    _, gradient = maml.gradient(bowl, at_rest, one, one, keys, algorithm)
    assert np.all(np.isfinite(gradient))
