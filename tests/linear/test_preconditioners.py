"""The inverse for separable models, and iterations that it preconditions."""

import chex
import numpy as np
import pytest

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear.interpolation import squared_slowness
from meta_lrpinn.linear.lattice import operator, preconditioners
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel


def separable_model(ndim, quality=None):
    """1/v² the sum of a function of each coordinate at the nodes."""
    parts = np.meshgrid(*(np.linspace(0, 0.08, 7) ** (d + 1) for d in range(ndim)))
    return VelocityModel((0.15 + sum(parts)) ** -0.5, 0.1, quality=quality)


def flat_model(ndim, quality=None):
    """v(z) with a step, separable between the nodes, too."""
    velocity = np.full((7,) * ndim, 2.0)
    velocity[3:] = 3.0
    return VelocityModel(velocity, 0.1, quality=quality)


def posed(model, ratio=1.2, frequency=3.0):
    problem = make_problem(model, frequency, np.full(model.ndim, 0.22))
    return problem, lattices.make_lattice(problem, ratio, points_per_wavelength=8)


@pytest.mark.parametrize(("ndim", "quality"), [(2, None), (2, 20.0), (3, None)])
def test_exact_where_the_velocity_varies_with_depth_alone(ndim, quality):
    problem, lattice = posed(flat_model(ndim, quality), {2: 1.5, 3: 1.0}[ndim])
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(2, *lattice.shape)) + 1j * rng.normal(size=lattice.shape)

    form = form_of(problem, lattice)
    found = preconditioners.separable_inverse(form)(form.product(columns))
    np.testing.assert_allclose(found, columns, rtol=1e-7)


def test_parts_sum_to_a_separable_slowness():
    problem, lattice = posed(separable_model(3), 1.0)
    form = form_of(problem, lattice)
    parts = preconditioners.separable_parts(form)
    chex.assert_shape(parts, [(len(nodes),) for nodes in lattice.nodes])
    total = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    ((_, slowness),) = operator.slabs(form)
    np.testing.assert_allclose(total, slowness, rtol=1e-9)


def form_of(problem, lattice):
    discretisation = lattices.discretise(problem, lattice)
    return operator.weak_form(discretisation, squared_slowness(problem.model))


def solved(model, **options):
    problem, lattice = posed(model, **options)
    own = problem.source[None], problem.background_velocity[None]
    found = lattices.solve(problem, lattice, *own)
    form = form_of(problem, lattice)
    rhs = operator.right_hand_sides(form, *own)
    left = np.linalg.norm(rhs - form.product(found.weights))
    return found, left / np.linalg.norm(rhs)


def test_models_of_depth_alone_take_one_iteration():
    found, left = solved(flat_model(2), ratio=2.0)
    assert found.iterations == 1 and left < 1e-9 and found.residual[0] < 1e-9


def test_smooth_models_take_few_iterations():
    found, left = solved(separable_model(2), ratio=2.0)
    assert found.iterations <= 5 and left <= 2.5e-4


def test_reciprocity():
    """Source and receiver exchanged, around a body that is not separable."""
    velocity = np.full((24, 24), 2.0)
    velocity[9:15, 10:16] = 3.0
    places = np.array([[0.22, 0.31], [0.87, 0.86]])
    problem, lattice = posed(VelocityModel(velocity, 0.05), ratio=2.4)

    velocities = np.array([2.0, 2.0])
    solution = lattices.solve(problem, lattice, places, velocities, 1e-9)
    found = lattices.evaluate(problem, lattice, solution.weights, places[::-1])
    np.testing.assert_allclose(found[0, 0], found[1, 1], rtol=2e-2)
