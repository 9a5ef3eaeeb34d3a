"""Generalised conjugate residuals, for many right-hand sides."""

import chex
import numpy as np
import pytest

from meta_lrpinn.linear import residuals


def indefinite(size, seed=0):
    """A complex matrix whose spectrum surrounds zero, and right-hand sides."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.5, 2, size) * np.exp(1j * rng.uniform(-0.6, 0.6, size))
    values *= np.where(np.arange(size) % 4, 1, -1)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    columns = rng.normal(size=(3, size)) + 1j * rng.normal(size=(3, size))
    return basis @ np.diag(values) @ basis.T, columns


def by(matrix, precondition=lambda rows: rows.copy()):
    def improve(rows):
        change = precondition(rows)
        return change, change @ matrix.T

    return improve


def started(columns):
    return residuals.Iterate(np.zeros_like(columns), columns, 2)


def test_solution_and_residual():
    matrix, columns = indefinite(20)
    found = residuals.solve(by(matrix), started(columns), 1e-9, 100)
    expected = np.linalg.solve(matrix, columns.T).T
    chex.assert_equal_shape([found.solution, found.residual, columns])
    np.testing.assert_allclose(found.solution, expected, atol=1e-8)
    np.testing.assert_allclose(
        found.residual, columns - found.solution @ matrix.T, atol=1e-12
    )
    # Counted on, and at most as many as there are unknowns.
    assert 2 < found.iterations <= 22


def test_residuals_never_rise_and_rows_that_ended_stay():
    matrix, columns = indefinite(30)
    columns[0] *= 1e-6
    norms = []
    for most in range(1, 12):
        found = residuals.solve(by(matrix), started(columns), 1e-4, most)
        norms.append(residuals.norm(found.residual))
    assert np.all(np.diff(norms, axis=0) <= 1e-12)
    np.testing.assert_array_equal(found.solution[0], 0)


def test_an_exact_inverse_takes_one_iteration():
    matrix, columns = indefinite(20)
    inverse = np.linalg.inv(matrix)
    improve = by(matrix, lambda rows: rows @ inverse.T)
    assert residuals.solve(improve, started(columns), 1e-9, 100).iterations == 3


def test_with_few_changes_kept_it_still_ends(monkeypatch):
    monkeypatch.setattr(residuals, "KEPT", 8)
    matrix, columns = indefinite(40)
    shifted = matrix + 3 * np.eye(40)
    found = residuals.solve(by(shifted), started(columns), 1e-9, 200)
    np.testing.assert_allclose(found.solution @ shifted.T, columns, atol=1e-8)


def test_it_ends_where_it_is_hopeless():
    matrix, columns = indefinite(20)
    found = residuals.solve(
        by(matrix), started(columns), 1e-9, 100, lambda norms: len(norms) == 4
    )
    assert found.iterations == 5


@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_do(count):
    matrix, columns = indefinite(20)
    nothing = started(0 * columns[:count])
    found = residuals.solve(by(matrix), nothing, 0.0, 100)
    assert found.iterations == 2
    np.testing.assert_array_equal(found.solution, 0)
