"""SOAP against Adam, the singular value decomposition, and its invariances."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from meta_lrpinn.learning.soap import scale_by_soap

SHAPE, STEPS, RATE = (5, 3), 12, 0.05


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def random_matrix(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed, size):
    return np.linalg.qr(random_matrix(seed, (size, size)))[0]


def descend(descent, gradient, start, steps=STEPS):
    """Parameters after so many steps at one rate."""
    params, state = start, descent.init(start)
    for _ in range(steps):
        updates, state = descent.update(gradient(params), state)
        params = jax.tree.map(lambda p, u: p - RATE * u, params, updates)
    return params, state


def quadratic(left, right, target):
    """Gradient of ½ ‖A (W − T) B‖²."""
    return lambda w: left.T @ (left @ (w - target) @ right) @ right.T


def test_a_matrix_is_treated_alike_in_every_basis():
    """Rotating rows and columns rotates the whole descent; Adam's is another one."""
    shape = (4, 4)
    left, right, target = (random_matrix(seed, shape) for seed in range(3))
    q, r = rotation(3, 4), rotation(4, 4)
    plain = quadratic(left, right, target)
    rotated = quadratic(left @ q.T, r.T @ right, q @ target @ r)
    for descent, is_alike in ((scale_by_soap(), True), (optax.scale_by_adam(), False)):
        one, _ = descend(descent, plain, jnp.zeros(shape))
        other, _ = descend(descent, rotated, jnp.zeros(shape))
        assert np.allclose(q @ one @ r, other, atol=1e-4) == is_alike


def test_the_first_gradient_gives_bases_and_no_step():
    """The eigenvectors of G Gᵀ and Gᵀ G, in which the next one is a step by its signs."""
    gradients = [random_matrix(seed, (4, 4)) for seed in range(2)]
    descent = scale_by_soap()
    direction, state = descent.update(gradients[0], descent.init(gradients[0]))
    np.testing.assert_array_equal(direction, 0)
    u, singular, vt = np.linalg.svd(gradients[0])
    left, right = state.moments[0].bases
    np.testing.assert_allclose(abs(left.T @ u), np.eye(4), atol=1e-8)
    np.testing.assert_allclose(
        abs(left.T @ gradients[0] @ right), np.diag(singular), atol=1e-8
    )
    direction, _ = descent.update(gradients[1], state)
    signs = np.sign(u.T @ gradients[1] @ vt.T)
    np.testing.assert_allclose(direction, u @ signs @ vt, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 2)])
def test_what_is_no_matrix_is_treated_as_by_adam(shape):
    """After the first gradient, which is for the matrices alone."""
    target = random_matrix(0, shape)
    start = jnp.zeros(shape)
    adam = optax.scale_by_adam(b1=0.9, b2=0.9)
    ours, state = descend(scale_by_soap(), lambda w: w - target, start, STEPS + 1)
    theirs, _ = descend(adam, lambda w: w - target, start, STEPS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert state.moments[0].bases == ()


def test_bases_follow_the_gradients():
    """They stay orthogonal, and end as the eigenvectors of what was remembered."""
    target = random_matrix(2) * 100  # far away: gradients change little
    gradient = quadratic(np.eye(5), np.diag([1.0, 0.6, 0.3]), target)
    _, state = descend(scale_by_soap(), gradient, jnp.zeros(SHAPE), 100)
    (moments,) = state.moments
    chex.assert_shape(moments.bases, [(5, 5), (3, 3)])
    for basis, side in zip(moments.bases, moments.sides, strict=True):
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
        turned = basis.T @ side @ basis
        off = turned - np.diag(np.diag(turned))
        assert np.linalg.norm(off) < 1e-3 * np.linalg.norm(turned)


def test_correlated_rows_and_columns_do_not_slow_it_down():
    """Conditions of 100 on both sides, turned: ten times nearer than Adam in 300 steps."""
    scales = np.diag(np.geomspace(1, 100, 5)), np.diag(np.geomspace(1, 100, 3))
    left, right = rotation(0, 5) @ scales[0] @ rotation(1, 5), scales[1] @ rotation(2, 3)
    target = random_matrix(3)
    gradient = quadratic(left, right, target)
    schedule = optax.cosine_decay_schedule(0.1, 300)

    def distance(descent):
        optimiser = optax.chain(descent, optax.scale_by_learning_rate(schedule))

        def step(carry, _):
            params, state = carry
            updates, state = optimiser.update(gradient(params), state)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.zeros(SHAPE)
        (end, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), length=300)
        return np.linalg.norm(end - target)

    assert distance(scale_by_soap()) < 0.1 * distance(optax.scale_by_adam())


def test_trees_and_frozen_parts():
    """Arrays that `optax.partition` hides are left alone."""
    params = {"free": jnp.zeros(SHAPE), "frozen": jnp.ones((4, 4))}
    labels = {"free": "free", "frozen": "frozen"}
    transforms = {"free": scale_by_soap(), "frozen": optax.set_to_zero()}
    descent = optax.partition(transforms, labels)
    ended, _ = descend(descent, lambda p: jax.tree.map(lambda x: x - 3.0, p), params)
    np.testing.assert_array_equal(ended["frozen"], 1.0)
    assert np.all(ended["free"] > 0)
