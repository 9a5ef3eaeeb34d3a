"""Compiled programs: the same results, only the latest kept, and NumPy inside them."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.runtime import host, programs


def counted(**options):
    """A jitted sum of squares, and the shapes it was traced for."""
    traced = []

    def total(values, *, power=2):
        traced.append((values.shape, values.dtype, power))
        return jnp.sum(values**power)

    return programs.jit_latest(total, ("power",), **options), traced


def test_a_program_is_compiled_once_for_each_shape_type_and_static_argument():
    total, traced = counted()
    for _ in range(2):
        assert total(jnp.arange(3.0)) == 5
        assert total(jnp.arange(4.0)) == 14
        assert total(jnp.arange(4.0), power=1) == 6
        with jax.enable_x64(True):
            assert total(np.arange(4.0)) == 14
    assert len(traced) == 4


def test_the_one_used_longest_ago_is_forgotten():
    total, traced = counted(kept=2)
    for size in (1, 2, 1, 3, 1, 2):
        total(jnp.ones(size))
    assert [shape for shape, *_ in traced] == [(1,), (2,), (3,), (2,)]


def test_static_arguments_may_stand_in_any_place():
    scale = programs.jit_latest(lambda name, x: x * len(name), ("name",))
    assert [scale("ab", 3.0), scale(name="abc", x=3.0), scale("ab", x=1.0)] == [6, 9, 2]


def test_gradients_and_outer_programs_pass_through():
    total, _ = counted()
    gradient = jax.jit(jax.grad(total))(jnp.arange(3.0))
    np.testing.assert_array_equal(gradient, [0, 2, 4])


def test_what_is_forgotten_is_freed():
    """A thousand shapes leave as many live executables as a few."""
    total, _ = counted(kept=4)
    count = []
    for size in range(1, 25):
        total(np.ones(size))
        if size in (8, 12, 24):
            gc.collect()
            count.append(len(jax.devices()[0].client.live_executables()))
    assert count[0] == count[1] == count[2]


@pytest.mark.slow
def test_ever_new_frequencies_leave_no_programs_behind():
    import meta_lrpinn as ml

    model = ml.VelocityModel(np.linspace(1.5, 2.0, 9)[:, None] * np.ones((9, 9)), 0.04)
    count = []
    for index in range(60):
        waves = ml.PlaneWaves(unknowns=60 + 3 * index)
        ml.solve(model, 3 + 0.05 * index, (0.16, 0.04), waves).at([[0.1, 0.1]])
        gc.collect()
        count.append(len(jax.devices()[0].client.live_executables()))
    assert count[-1] < count[29] + 10


@pytest.mark.parametrize("double", [False, True])
def test_functions_of_the_host_keep_their_precision_and_have_gradients(double):
    factors = np.array([1 / 3 + 2j / 7, 0.1j])

    def forward(x):
        return x[:2] * factors, x.sum() + 0j

    def backward(x, total, cotangent):
        assert total == pytest.approx(x.sum() + 0j)
        return np.append((cotangent * factors).real, 0.0)

    function = host.differentiable(lambda x: x, forward, backward, ((2,), ()))
    with jax.enable_x64(double):
        x = jnp.array([1 / 3, 2 / 3, 1.0])
        expected = (np.array([1 / 3, 2 / 3]) * factors).astype(jnp.result_type(complex))
        for result in (function(x), jax.jit(function)(x), jax.vmap(function)(x[None])[0]):
            np.testing.assert_allclose(result, expected, 1e-15 if double else 2e-7)
        gradient = jax.grad(lambda x: jnp.sum(jnp.abs(function(x)) ** 2))(x)
        np.testing.assert_allclose(
            gradient[:2], 2 * np.abs(factors) ** 2 * x[:2], 1e-14 if double else 1e-6
        )
