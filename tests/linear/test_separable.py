"""The inverse for separable models, and iterations that it preconditions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear.lattice import operator, separable, solution
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def separable_model(ndim, quality=None):
    """1/v² the sum of a function of each coordinate at the nodes."""
    parts = np.meshgrid(*(np.linspace(0, 0.08, 7) ** (d + 1) for d in range(ndim)))
    return VelocityModel((0.15 + sum(parts)) ** -0.5, 0.1, quality=quality)


def flat_model(ndim, quality=None):
    """v(z) with a step, separable between the nodes, too."""
    velocity = np.full((7,) * ndim, 2.0)
    velocity[3:] = 3.0
    return VelocityModel(velocity, 0.1, quality=quality)


def chequerboard(contrast=3.0, cells=24, side=6):
    fields = np.add.outer(np.arange(cells) // side, np.arange(cells) // side) % 2
    return VelocityModel(np.where(fields, 1.5, 1.5 * contrast), 0.05)


def posed(model, ratio=1.2, frequency=3.0):
    problem = make_problem(model, frequency, np.full(model.ndim, 0.22))
    return problem, lattices.make_lattice(problem, ratio, points_per_wavelength=8)


@pytest.mark.parametrize(("ndim", "quality"), [(2, None), (2, 20.0), (3, None)])
def test_exact_where_the_velocity_varies_with_depth_alone(ndim, quality):
    problem, lattice = posed(flat_model(ndim, quality), {2: 1.5, 3: 1.0}[ndim])
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(2, *lattice.shape)) + 1j * rng.normal(size=lattice.shape)

    @jax.jit
    def there_and_back(problem, columns):
        form = operator.weak_form(problem, lattice)
        product = operator.make_operator(problem, lattice, form)(columns)
        return separable.separable_inverse(problem, lattice, form)(product)

    np.testing.assert_allclose(there_and_back(problem, columns), columns, rtol=1e-7)


def test_parts_sum_to_a_separable_slowness():
    problem, lattice = posed(separable_model(3), 1.0)
    form = operator.weak_form(problem, lattice)
    parts = separable.separable_parts(problem, lattice, form)
    chex.assert_shape(parts, [(n,) for n in lattice.quadrature_shape])
    total = parts[0][:, None, None] + parts[1][:, None] + parts[2]
    points = operator.node_points(problem, lattice)
    slowness = problem.model.squared_slowness_at(points)
    # Between the nodes the velocity is linear, not the slowness.
    np.testing.assert_allclose(total, slowness, rtol=2e-3)


def solved(model, **options):
    problem, lattice = posed(model, **options)
    own = problem.source[None], problem.background_velocity[None]
    found = jax.jit(lattices.solve)(problem, lattice, *own)
    left = np.linalg.norm(
        lattices.right_hand_side(problem, lattice)
        - lattices.make_operator(problem, lattice)(found.weights)[0]
    )
    return found, left / np.linalg.norm(lattices.right_hand_side(problem, lattice))


def test_models_of_depth_alone_take_one_iteration():
    found, left = solved(flat_model(2), ratio=2.0)
    assert found.iterations == 1 and left < 1e-9 and found.residual[0] < 1e-9


def test_smooth_models_take_few_iterations():
    found, left = solved(separable_model(2), ratio=2.0)
    assert found.iterations <= 5 and left <= 2.5e-4


def test_a_factored_block_saves_iterations(monkeypatch):
    monkeypatch.setattr(solution, "_patience", lambda lattice, sources: 5)
    problem, lattice = posed(chequerboard(), ratio=2.0)
    own = problem.source[None], problem.background_velocity[None]
    assert 0 < len(lattice.travelling) < lattice.number / 2
    with_block = jax.jit(lattices.solve)(problem, lattice, *own)
    monkeypatch.setattr(solution, "_patience", lambda lattice, sources: 600)
    alone = jax.jit(lambda *arguments: lattices.solve(*arguments))(problem, lattice, *own)
    assert 5 < with_block.iterations < alone.iterations < 600
    for found in (alone, with_block):
        assert found.residual[0] <= 2.6e-4
    change = np.linalg.norm(with_block.fields - alone.fields)
    assert change < 5e-3 * np.linalg.norm(alone.fields)


def test_reciprocity():
    """Source and receiver exchanged, around a body that is not separable."""
    velocity = np.full((24, 24), 2.0)
    velocity[9:15, 10:16] = 3.0
    places = np.array([[0.22, 0.31], [0.87, 0.86]])
    problem, lattice = posed(VelocityModel(velocity, 0.05), ratio=2.4)

    @jax.jit
    def exchanged(problem):
        weights = lattices.solve_weights(
            problem, lattice, places, jnp.array([2.0, 2.0]), 1e-9
        )
        return lattices.evaluate(problem, lattice, weights, jnp.asarray(places[::-1]))

    found = exchanged(problem)
    np.testing.assert_allclose(found[0, 0], found[1, 1], rtol=2e-2)
