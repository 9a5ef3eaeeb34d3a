"""Conjugate residuals on small complex symmetric systems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.linear import conjugate_residual

SIZE = 12


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def system(columns=3, seed=0):
    """An indefinite, complex symmetric, not Hermitian matrix, and right-hand sides."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    matrix = draw(SIZE, SIZE)
    return matrix + matrix.T, draw(columns, SIZE)


def solve(matrix, rhs, inverse=None, tolerance=1e-10, most=100, **options):
    start = conjugate_residual.Iterate(jnp.zeros_like(rhs), jnp.asarray(rhs), jnp.array(0))
    return conjugate_residual.solve(
        lambda rows: rows @ matrix.T,
        (lambda rows: rows) if inverse is None else (lambda rows: rows @ inverse.T),
        start,
        tolerance,
        most,
        **options,
    )


def test_as_many_iterations_as_unknowns_solve_every_column():
    matrix, rhs = system()
    found = solve(matrix, rhs)
    np.testing.assert_allclose(found.solution, np.linalg.solve(matrix, rhs.T).T, rtol=1e-7)
    assert found.iterations <= SIZE + 1  # one for rounding


def test_the_exact_inverse_takes_one_iteration():
    matrix, rhs = system()
    found = solve(matrix, rhs, np.linalg.inv(matrix))
    assert found.iterations == 1
    np.testing.assert_allclose(found.residual, 0, atol=1e-10)


def test_symmetry_may_be_that_of_another_bilinear_form():
    """As of plane waves, whose matrix is symmetric after its rows are turned round."""
    matrix, rhs = system()
    turned, rhs = matrix[::-1], rhs[:, ::-1]
    found = solve(turned, rhs, form=lambda u, v: conjugate_residual.pairing(u[:, ::-1], v))
    np.testing.assert_allclose(found.solution, np.linalg.solve(turned, rhs.T).T, rtol=1e-7)
    assert found.iterations <= SIZE + 1


def test_residuals_are_those_of_the_solution_and_never_rise():
    matrix, rhs = system(columns=1)
    last = np.linalg.norm(rhs)
    for most in range(1, SIZE):
        found = solve(matrix, rhs, most=most)
        np.testing.assert_allclose(
            found.residual, rhs - found.solution @ matrix.T, atol=1e-9
        )
        size = np.linalg.norm(found.residual)
        assert found.iterations == most and size <= last
        last = size


def test_columns_end_by_themselves():
    """Of zero, solved at the start, and of others beside them."""
    matrix, rhs = system()
    mixed = np.stack([rhs[0], 0 * rhs[0], 1e-12 * rhs[1]])
    found = solve(matrix, mixed)
    np.testing.assert_array_equal(found.solution[1:], 0)
    np.testing.assert_allclose(found.solution[:1], solve(matrix, rhs[:1]).solution)
