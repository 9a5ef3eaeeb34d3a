"""The coarse grid as a preconditioner, and what is said where iterations end early."""

import chex
import numpy as np
import pytest

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear import residuals
from meta_lrpinn.linear.interpolation import squared_slowness
from meta_lrpinn.linear.lattice import operator, preconditioners, solution
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel


def chequerboard(ndim=2, contrast=3.0, cells=24, side=6, quality=None):
    index = np.arange(cells) // side
    fields = sum(np.meshgrid(*[index] * ndim, indexing="ij")) % 2
    return VelocityModel(np.where(fields, 1.5, 1.5 * contrast), 0.05, quality=quality)


def posed(model, frequency=3.0, ratio=2.0):
    problem = make_problem(model, frequency, np.full(model.ndim, 0.22))
    return problem, lattices.make_lattice(problem, ratio, points_per_wavelength=8)


def system_of(problem, lattice):
    discretisation = lattices.discretise(problem, lattice)
    form = operator.weak_form(discretisation, squared_slowness(problem.model))
    own = problem.source[None], problem.background_velocity[None]
    return solution.System(form), operator.right_hand_sides(form, *own)


def left_by(system, rhs, change):
    return np.linalg.norm(rhs - system.form.product(change)) / np.linalg.norm(rhs)


@pytest.mark.parametrize(("ndim", "quality"), [(2, None), (2, 30.0), pytest.param(3, None)])
def test_one_correction_solves_for_what_travels(ndim, quality):
    """Of a body that the grid resolves; the separable inverse alone leaves far more."""
    axes = np.meshgrid(*[np.linspace(-1, 1, 21)] * ndim, indexing="ij")
    bump = np.exp(-4 * sum(axis**2 for axis in axes))
    model = VelocityModel(2.0 + 1.5 * bump, 0.06, quality=quality)
    system, rhs = system_of(*posed(model, {2: 5.0, 3: 2.0}[ndim], {2: 2.0, 3: 1.3}[ndim]))
    alone = left_by(system, rhs, system.separable(rhs))
    both = left_by(system, rhs, system.corrected(rhs)[0])
    assert both < 0.1 and both < alone / 4


def test_images_are_those_of_the_changes():
    system, rhs = system_of(*posed(chequerboard()))
    for improve in (system.smoothed, system.corrected):
        change, image = improve(rhs)
        np.testing.assert_allclose(
            image, system.form.product(change), atol=1e-9 * np.abs(image).max()
        )


def test_the_grid_has_the_points_that_are_asked_for():
    problem, lattice = posed(chequerboard())
    discretisation = lattices.discretise(problem, lattice)
    inverse = preconditioners.coarse_inverse(system_of(problem, lattice)[0].form)
    shapes = zip(preconditioners.grid_shape(discretisation), lattice.shape, strict=True)
    chex.assert_shape(inverse.there, list(shapes))
    step = 1.15 / preconditioners.cells(discretisation)[0]
    assert 5 <= 1.5 / 3.0 / step < 6


def test_the_coarse_grid_saves_iterations():
    system, rhs = system_of(*posed(chequerboard(), 12.0))
    start = residuals.Iterate(np.zeros_like(rhs), rhs / np.linalg.norm(rhs), 0)
    alone, both = (
        residuals.solve(improve, start, 1e-6, 200)
        for improve in (system.smoothed, system.corrected)
    )
    assert both.iterations < alone.iterations / 2
    assert np.linalg.norm(both.residual) <= 1e-6
    found = system.solve(rhs, 1e-6)
    assert found.iterations < alone.iterations
    assert np.linalg.norm(found.residual) <= 1e-6


def test_where_iterations_end_early_it_is_said(monkeypatch):
    problem, lattice = posed(chequerboard(), 12.0)
    own = problem.source[None], problem.background_velocity[None]
    truth = lattices.solve(problem, lattice, *own, tolerance=1e-8)
    assert np.all(truth.converged)
    for most in (1, 2, 3, 5):
        monkeypatch.setattr(solution, "_MOST", most)
        with pytest.warns(UserWarning, match="iterations ended at a residual of"):
            found = lattices.solve(problem, lattice, *own, tolerance=1e-6)
        assert not np.any(found.converged)
        error = relative_l2(found.fields, truth.fields)
        assert found.error_estimate[0] > error / 2
