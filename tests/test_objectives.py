"""Objectives: values against plain NumPy, gradients on every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models, objectives
from meta_lrpinn import problem as problems
from meta_lrpinn.adapt import output_layer
from meta_lrpinn.physics import derivatives
from meta_lrpinn.problem import make_problem
from meta_lrpinn.reference.finite_difference import reference_wavefield
from meta_lrpinn.tasks import single_task
from meta_lrpinn.velocity import VelocityModel
from meta_lrpinn.wavefield import relative_l2

KEY = jax.random.key(3)
FREQUENCY, SOURCE = 3.0, (0.4, 0.1)


def gradient_model(ndim=2):
    depth = np.linspace(1.5, 2.5, 11).reshape((11,) + (1,) * (ndim - 1))
    return VelocityModel(np.array(np.broadcast_to(depth, (11,) * ndim)), 0.1)


def lrpinn(**changes):
    sizes = {"width": 24, "depth": 2, "rank": 5, "first_scale": 6.0, **changes}
    model = models.make_meta_lrpinn(**sizes, embedding_width=8, embedding_hidden=1)
    return model, models.initial_parameters(model, jax.random.key(0))


def pinn(**changes):
    model = models.PINN(**{"width": 40, "depth": 1, "first_scale": 6.0, **changes})
    return model, models.initial_parameters(model, jax.random.key(0))


@pytest.fixture(scope="module")
def problem():
    return make_problem(gradient_model(), FREQUENCY, SOURCE, thickness=0.5)


@pytest.fixture(scope="module")
def task(problem):
    """One velocity with its known wavefield."""
    truth = reference_wavefield(problem.model, FREQUENCY, SOURCE, refinement=4)
    task = single_task(problem)
    return task.replace(scattered=jnp.asarray(truth.scattered, jnp.complex64)[None])


def two_velocities(task):
    faster = 1.2 * task.velocities[0]
    return task.replace(
        velocities=jnp.stack([task.velocities[0], faster]),
        background_velocities=task.background_velocities[0] * jnp.array([1.0, 1.2]),
        scattered=jnp.concatenate([task.scattered, task.scattered]),
    )


MAKERS = {
    "paper": lambda model: objectives.paper_objective(model, 60),
    "residual": lambda model: objectives.residual_objective(model, 120),
    "galerkin": lambda model: objectives.galerkin_objective(model, (16, 16)),
}


@pytest.fixture(scope="module", params=MAKERS)
def evaluated(request, task):
    """Loss, scalars and gradient of each objective on the low-rank network."""
    model, params = lrpinn()
    function = jax.jit(jax.value_and_grad(MAKERS[request.param](model), has_aux=True))
    return request.param, params, lambda params, key: function(params, task, key)


def test_losses_and_gradients_are_finite_on_every_parameter(evaluated):
    name, params, function = evaluated
    (loss, scalars), gradient = function(params, KEY)
    assert np.isfinite(loss) and np.shape(loss) == ()
    assert all(np.isfinite(value) for value in scalars.values())
    for path, leaf in jax.tree.leaves_with_path(gradient):
        where = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), where
        # Only the paper's objective uses the output layer; its bases are orthonormal
        # at the start, but the residual moves them too.
        is_eliminated = "'last'" in where and name != "paper"
        assert np.any(leaf != 0) != is_eliminated, where


def test_another_key_draws_other_points(evaluated):
    _, params, function = evaluated
    first, again = function(params, KEY)[0][0], function(params, KEY)[0][0]
    other = function(params, jax.random.key(4))[0][0]
    assert first == again and first != other


def test_paper_objective_of_a_constant_output(problem):
    """δu = c without a layer: residual ω² m c − source, penalty √(mean d |c|²)."""
    model, params = lrpinn()
    output = {"kernel": jnp.zeros((24, 2)), "bias": jnp.array([0.03, 0.04])}
    params["network"]["last"] = output
    inside = problem.replace(layer=problem.layer.replace(thickness=np.zeros(())))
    task = single_task(inside)
    loss, parts = jax.jit(objectives.paper_objective(model, 400))(params, task, KEY)
    points = np.asarray(problems.sample_points(KEY, inside, 400))
    source = np.asarray(problems.scattering_source_at(inside, points))
    omega = 2 * np.pi * FREQUENCY
    slowness = (1.5 + points[:, 1]) ** -2
    remainder = omega**2 * slowness * (0.03 + 0.04j) - source
    np.testing.assert_allclose(
        parts["pde"], np.sqrt(np.mean(np.abs(remainder) ** 2)), rtol=1e-3
    )
    # A quarter of the wavelength at the source.
    reach = 0.25 * float(problem.background_velocity) / FREQUENCY
    squared = np.sum((points - np.asarray(SOURCE)) ** 2, axis=1)
    weight = 1e8 * omega * np.maximum(reach**2 - squared, 0)
    assert np.any(weight > 0)
    np.testing.assert_allclose(
        parts["source"], 0.05 * np.sqrt(np.mean(weight)), rtol=1e-3
    )
    assert parts["orthogonality"] < 1e-5
    np.testing.assert_allclose(loss, 0.1 * sum(parts.values()), rtol=1e-6)


def test_paper_objective_without_penalty_or_bases(problem):
    model, params = pinn()
    objective = objectives.paper_objective(model, 60, source_penalty=0.0)
    _, parts = jax.eval_shape(objective, params, single_task(problem), KEY)
    assert set(parts) == {"pde"}


def test_residual_objective_against_least_squares(problem, task):
    """The relative residual that NumPy's own least squares leaves, g = 2 velocities."""
    model, params = pinn()
    several = two_velocities(task)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, float), params)
        several = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), several)
        several = several.replace(problem=problem)
        loss, scalars = jax.jit(objectives.residual_objective(model, 300))(
            params, several, KEY
        )
        points = problems.sample_points(KEY, problem, 300)
        function = objectives.feature_function(model, params, problem)
        sampled = jax.jit(lambda x: derivatives.derivatives(function, x))(points)
        sampled = jax.device_get(sampled)
        expected = []
        for velocity, v0 in zip(
            several.velocities, several.background_velocities, strict=True
        ):
            own = problems.collocate(several.member(velocity, v0), points)
            s, slope = np.asarray(own.stretch), np.asarray(own.stretch_slope)
            first = (slope / s**3)[..., None] * sampled.gradient
            operator = np.sum(sampled.second / (s**2)[..., None] - first, axis=1)
            mass = np.asarray(own.omega**2 * own.squared_slowness)
            operator = operator + mass[:, None] * sampled.value
            rhs = np.asarray(own.scattering_source)
            weights = np.linalg.lstsq(operator, rhs, rcond=None)[0]
            expected.append(relative_l2(operator @ weights, rhs))
    assert 0.01 < expected[0] < 0.99
    # The ridge costs a little.
    np.testing.assert_allclose(scalars["residual"], np.mean(expected), rtol=0.02)
    np.testing.assert_allclose(loss, np.mean(np.log(expected)), atol=0.02)


def test_galerkin_objective_is_the_error_of_the_solution(problem, task):
    """With every node and a fine quadrature: relative L2 by the way `solve` goes."""
    model, params = pinn(width=150)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: jnp.asarray(x, float), params)
        known = task.replace(
            problem=problem,
            velocities=jnp.asarray(problem.model.velocity)[None],
            background_velocities=jnp.asarray(problem.background_velocity)[None],
            scattered=jnp.asarray(np.asarray(task.scattered), complex),
        )
        objective = objectives.galerkin_objective(
            model, (30, 30), stride=1, damping=1e-11
        )
        loss, scalars = jax.jit(objective)(double, known, KEY)
    weights = output_layer.solve("galerkin", model, params, problem, double=True)
    field = output_layer.feature_field(model, params, problem, weights, double=True)
    truth = np.asarray(task.scattered).ravel()
    error = relative_l2(field(problem.model.grid_points()), truth)
    assert 0.01 < error < 0.7
    got = float(scalars["error"])
    np.testing.assert_allclose(got, error, rtol=0.03)
    np.testing.assert_allclose(loss, np.log(got + 1e-3), rtol=1e-6)


def test_galerkin_objective_does_not_see_a_continued_grid(problem, task):
    """Nodes beyond the model, whatever stands there, leave the error as it is."""
    model, params = pinn()
    objective = jax.jit(
        objectives.galerkin_objective(model, (16, 16), stride=1, damping=1e-4)
    )
    _, scalars = objective(params, task, KEY)
    velocity = jnp.pad(task.velocities, ((0, 0), (0, 4), (0, 4)), mode="edge")
    padded = task.replace(
        problem=problem.replace(model=VelocityModel(np.asarray(velocity[0]), 0.1)),
        velocities=velocity,
        scattered=jnp.pad(
            task.scattered, ((0, 0), (0, 4), (0, 4)), constant_values=100.0
        ),
    )
    _, continued = objective(params, padded, KEY)
    np.testing.assert_allclose(continued["error"], scalars["error"], rtol=1e-3)


@pytest.mark.parametrize("shape", [(11, 8), (7, 5, 9)])
@pytest.mark.parametrize("stride", [1, 3])
def test_coarse_nodes_point_at_their_nodes(shape, stride):
    spacing = (0.1, 0.2, 0.3)[: len(shape)]
    origin = (1.0, -2.0, 0.5)[: len(shape)]
    model = VelocityModel(np.full(shape, 2.0), spacing, origin)
    problem = make_problem(model, 3.0, model.lower)
    every, starts = model.grid_points(), set()
    for seed in range(6):
        nodes, index = objectives._coarse_nodes(
            jax.random.key(seed), problem, stride
        )
        assert len(index) == np.prod([n // stride for n in shape])
        assert len(set(index.tolist())) == len(index)
        np.testing.assert_allclose(nodes, every[np.asarray(index)], atol=1e-5)
        starts.add(int(index[0]))
    assert (len(starts) > 1) == (stride > 1)


def test_output_and_features_decay_in_the_layer(problem):
    model, params = pinn()
    points = jnp.array([[0.5, 0.5], [1.4, 0.5], [-0.4, -0.4]])
    envelope = np.asarray(problems.envelope_at(problem, points))
    args = ({"params": params}, points, jnp.array([0.4]), jnp.array(3.0))
    for function, plain in (
        (objectives.output_function, model.apply(*args)),
        (objectives.feature_function, model.apply(*args, method="features")),
    ):
        value = function(model, params, problem)(points)
        np.testing.assert_allclose(value, envelope[:, None] * plain, atol=1e-6)
    assert envelope[0] == 1 and np.all(envelope[1:] < 0.5)


def test_the_network_is_given_its_source_and_frequency(problem):
    """Columns of the source's horizontal position; Hz, not rad/s."""
    seen = {}

    class Spy:
        def apply(self, variables, points, source, frequency, method=None):
            seen.update(source=source, frequency=frequency)
            return jnp.zeros((len(points), 2))

    objectives.output_function(Spy(), {}, problem)(jnp.zeros((1, 2)))
    np.testing.assert_allclose(seen["source"], [0.4])
    np.testing.assert_allclose(seen["frequency"], 3.0, rtol=1e-6)


def test_objectives_are_for_three_dimensions_too():
    problem = make_problem(gradient_model(3), FREQUENCY, (0.4, 0.5, 0.1))
    task = single_task(problem)
    known = task.replace(scattered=jnp.zeros((1, 11, 11, 11), jnp.complex64))
    for model, params in (pinn(ndim=3), lrpinn(ndim=3)):
        for objective in (
            objectives.paper_objective(model, 60),
            objectives.residual_objective(model, 60),
            objectives.galerkin_objective(model, (6, 6, 6)),
        ):
            loss, _ = jax.eval_shape(objective, params, known, KEY)
            assert loss.shape == () and loss.dtype == jnp.float32
