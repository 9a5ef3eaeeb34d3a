"""Objectives: values against plain NumPy, gradients on every parameter."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import models
from meta_lrpinn.learning import evaluation, objectives, output_layer, task_sets
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.linear import weak_form
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

KEY = jax.random.key(3)
FREQUENCY, SOURCE = 3.0, (0.4, 0.1)


def gradient_model(ndim=2):
    depth = np.linspace(1.5, 2.5, 11).reshape((11,) + (1,) * (ndim - 1))
    return VelocityModel(np.array(np.broadcast_to(depth, (11,) * ndim)), 0.1)


def lrpinn(**changes):
    sizes = {"width": 24, "depth": 2, "rank": 5, "first_scale": 6.0, **changes}
    model = models.make_meta_lrpinn(**sizes)
    return model, models.initial_parameters(model, jax.random.key(0))


def pinn(**changes):
    model = models.PINN(**{"width": 40, "depth": 1, "first_scale": 6.0, **changes})
    return model, models.initial_parameters(model, jax.random.key(0))


@pytest.fixture(scope="module")
def problem():
    return make_problem(
        gradient_model(), FREQUENCY, SOURCE, thickness=0.5, layer_fraction=1.0
    )


@pytest.fixture(scope="module")
def task(problem):
    """One velocity with its known wavefield at points of the model and its layer."""
    (known,) = task_sets.with_scattered([single_task(problem)], 400, seed=0)
    return jax.tree.map(jnp.asarray, known)


def two_velocities(task):
    faster = 1.2 * task.velocities[0]
    return task.replace(
        velocities=jnp.stack([task.velocities[0], faster]),
        background_velocities=task.background_velocities[0] * jnp.array([1.0, 1.2]),
        scattered=jnp.concatenate([task.scattered, task.scattered]),
    )


MAKERS = {
    "paper": lambda model: objectives.paper_objective(model, 60),
    "own_output": lambda model: objectives.own_output_objective(model, 100),
    "projection": lambda model: objectives.projection_objective(model, 200, (8,)),
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
    chex.assert_shape(loss, ())
    assert np.isfinite(loss)
    assert all(np.isfinite(value) for value in scalars.values())
    for path, leaf in jax.tree.leaves_with_path(gradient):
        where = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), where
        # Where the wavefield is the network's output, the output layer is used; bases
        # are orthonormal at the start, but the residual moves them too.
        is_eliminated = "'last'" in where and name not in ("paper", "own_output")
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
    unit = objectives.unit_problem(inside)
    source = np.asarray(problems.scattering_source_at(unit, points))
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
    np.testing.assert_allclose(parts["source"], 0.05 * np.sqrt(np.mean(weight)), rtol=1e-3)
    assert parts["orthogonality"] < 1e-5
    np.testing.assert_allclose(loss, 0.1 * sum(parts.values()), rtol=1e-6)


def test_paper_objective_without_penalty_or_bases(problem):
    model, params = pinn()
    objective = objectives.paper_objective(model, 60, source_penalty=0.0)
    _, parts = jax.eval_shape(objective, params, single_task(problem), KEY)
    assert set(parts) == {"pde"}


def without_output(params):
    """Parameters of a network whose output is zero."""
    last = jax.tree.map(jnp.zeros_like, params["network"]["last"])
    return {**params, "network": {**params["network"], "last": last}}


def test_own_output_objective_does_not_depend_on_scales():
    """Zero output costs one, whatever the frequency and the amplitude."""
    model, params = lrpinn()
    objective = jax.jit(objectives.own_output_objective(model, 100))

    def task(frequency, amplitude):
        return single_task(
            make_problem(gradient_model(), frequency, SOURCE, amplitude=amplitude)
        )

    for frequency in (2.0, 10.0):
        given, _ = objective(params, task(frequency, 1.0), KEY)
        assert abs(given - 1) > 1e-3
        for amplitude in (1.0, 1.925j, -1e-4 + 3e-4j):
            scaled, _ = objective(params, task(frequency, amplitude), KEY)
            assert scaled == given, (frequency, amplitude)
            loss, _ = objective(without_output(params), task(frequency, amplitude), KEY)
            np.testing.assert_allclose(loss, 1.0, rtol=1e-6)


@pytest.mark.parametrize("make", [lrpinn, pinn])
def test_own_output_objective_is_the_relative_residual(problem, make):
    """With (1/s)∂((1/s)∂u) written out, of the decaying output, on the shifted grid."""
    with jax.enable_x64(True):
        model, params = make(width=12, depth=1)
        params = evaluation._double(params)
        unit = jax.tree.map(jnp.asarray, objectives.unit_problem(problem))
        shift = jax.random.uniform(KEY, (2,))
        points = np.asarray(weak_form.quadrature_points(unit, (6, 6), shift))

        def field(x):
            value = objectives.output_function(model, params, unit)(x[None])[0]
            return jax.lax.complex(value[0], value[1])

        def operator(x):
            total = 0.0
            for axis in np.eye(2):

                def along(function, axis=axis):
                    def derivative(x):
                        slope = jax.jvp(function, (x,), (jnp.asarray(axis),))[1]
                        s = absorbing.stretch(unit.layer, x[None], unit.omega)[0]
                        return slope / jnp.sum(s * axis)

                    return derivative

                total += along(along(field))(x)
            slowness = 1 / unit.model.at(x[None])[0] ** 2
            return total + unit.omega**2 * slowness * field(x)

        source = np.asarray(problems.scattering_source_at(unit, points))
        remainder = np.asarray(jax.jit(jax.vmap(operator))(points)) - source
        expected = np.linalg.norm(remainder) / np.linalg.norm(source)
        objective = objectives.own_output_objective(model, 36)
        task = evaluation._double(single_task(problem))
        loss, scalars = jax.jit(objective)(params, task, KEY)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    assert float(scalars["residual"]) == float(loss)
    layer = np.any((points < 0) | (points > 1), axis=1)
    assert 10 < np.sum(layer) < 36  # both the model and its layer are seen


def test_own_output_gradient_against_finite_differences(problem):
    with jax.enable_x64(True):
        model, params = lrpinn(width=8, depth=1, rank=3)
        params = evaluation._double(params)
        # Not the bases' loss, which has a cusp where they are orthonormal, as here.
        objective = objectives.own_output_objective(model, 64)
        task = evaluation._double(single_task(problem))
        loss = jax.jit(lambda params: objective(params, task, KEY)[0])
        gradient = jax.jit(jax.grad(loss))(params)
        rng, step = np.random.default_rng(0), 1e-6
        for _ in range(3):
            way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
            there, back = (
                loss(jax.tree.map(lambda p, w, s=s: p + s * step * w, params, way))
                for s in (1, -1)
            )
            along = sum(
                np.vdot(g, w)
                for g, w in zip(*map(jax.tree.leaves, (gradient, way)), strict=True)
            )
            np.testing.assert_allclose((there - back) / (2 * step), along, rtol=1e-6)


def test_own_output_objective_of_a_model_without_contrast():
    """Its δu is zero, and so is the loss of zero output; nothing is divided by zero."""
    model, params = lrpinn()
    task = single_task(make_problem(VelocityModel(np.full((9, 9), 2.0), 0.1), 4.0, SOURCE))
    function = jax.jit(
        jax.value_and_grad(objectives.own_output_objective(model, 100), has_aux=True)
    )
    (loss, _), _ = function(without_output(params), task, KEY)
    assert loss < 1.0
    (loss, _), gradient = function(params, task, KEY)
    assert np.isfinite(loss) and loss > 1.0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("number", [6, 36, 601, 48 * 48, 72 * 72, 47 * 47])
def test_points_are_evaluated_in_equal_parts(number):
    part = objectives.points_at_a_time(number)
    assert number % part == 0 and 1 <= part <= 600


def test_own_output_error_is_relative_l2_in_the_model(task):
    model, params = lrpinn()
    outputs = objectives.output_function(model, params, task.problem)(task.points)
    field = np.asarray(task.problem.amplitude) * (outputs[:, 0] + 1j * outputs[:, 1])
    inside = np.all((task.points >= 0) & (task.points <= 1), axis=1)
    assert 50 < np.sum(inside) < len(inside)
    expected = relative_l2(field[inside], task.scattered[0][inside])
    error = objectives.own_output_error(model, params, task)
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    zero = objectives.own_output_error(model, without_output(params), task)
    np.testing.assert_allclose(zero, 1.0, rtol=1e-6)


@pytest.fixture(scope="module")
def double(task):
    """A dense network and the task in double precision."""
    model, params = pinn()
    with jax.enable_x64(True):
        return model, evaluation._double(params), evaluation._double(task)


def known_fields(model, params, task, key, number):
    """Features (n, w) and fields (n, g) that a projection objective compares."""
    chosen = jax.random.choice(key, task.points.shape[0], (number,), replace=False)
    features = objectives.feature_function(model, params, task.problem)
    return (
        np.asarray(features(task.points[chosen])),
        np.asarray(task.scattered[:, chosen]).T,
    )


def test_projection_objective_against_least_squares(double):
    """The distance that NumPy's own least squares leaves, for every leading part."""
    model, params, task = double
    with jax.enable_x64(True):
        objective = objectives.projection_objective(model, 300, (10, 25, 99))
        loss, scalars = jax.device_get(jax.jit(objective)(params, task, KEY))
        features, known = known_fields(model, params, task, KEY, 300)
    expected = []
    for size in (10, 25, 40):
        weights = np.linalg.lstsq(features[:, :size], known, rcond=None)[0]
        expected.append(relative_l2(features[:, :size] @ weights, known))
    assert set(scalars) == {"error", "error_10", "error_25"}  # 99 are not there
    got = [scalars["error_10"], scalars["error_25"], scalars["error"]]
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert got == sorted(got, reverse=True) and 1e-3 < got[-1] < 0.9
    np.testing.assert_allclose(loss, np.mean(np.log(np.array(got) + 0.01)), rtol=1e-6)


def with_plane_wave(task):
    """A second field, larger and of its own shape, beside that of the task."""
    wave = 30 * jnp.exp(-1j * task.points @ jnp.array([4.0, -3.0]))
    known = two_velocities(task)
    return known.replace(scattered=known.scattered.at[1].set(wave))


def test_each_field_is_projected_by_itself(double):
    """Relative to its own size; the loss is the mean of the logarithms."""
    model, params, task = double
    with jax.enable_x64(True):
        task = with_plane_wave(task)
        objective = objectives.projection_objective(model, 300, (12,))
        loss, scalars = jax.device_get(jax.jit(objective)(params, task, KEY))
        features, known = known_fields(model, params, task, KEY, 300)
    expected = np.empty((2, 2))
    for row, size in enumerate((12, 40)):
        part = features[:, :size]
        fitted = part @ np.linalg.lstsq(part, known, rcond=None)[0]
        expected[row] = [relative_l2(fitted[:, g], known[:, g]) for g in range(2)]
    assert not np.allclose(expected[:, 0], expected[:, 1], rtol=0.1)
    got = [scalars["error_12"], scalars["error"]]
    np.testing.assert_allclose(got, expected.mean(axis=1), rtol=2e-3)
    np.testing.assert_allclose(loss, np.mean(np.log(expected + 0.01)), atol=2e-3)


def test_more_features_are_never_worse(task):
    """In single precision too, where these all but depend on each other."""
    model, params = pinn(width=120, first_scale=1.0)
    sizes = (1, 5, 20, 50, 90)
    objective = objectives.projection_objective(model, 400, sizes)
    _, scalars = jax.jit(objective)(params, task, KEY)
    features, _ = known_fields(model, params, task, KEY, 400)
    assert np.linalg.cond(features) > 1e6
    errors = [*(scalars[f"error_{size}"] for size in sizes), scalars["error"]]
    assert np.all(np.diff(errors) < 1e-4)
    assert 0 < errors[-1] < 0.5 * errors[0] and errors[0] <= 1


class Mixed:
    """A network whose features are those of another times a matrix."""

    def __init__(self, model, matrix):
        self.model, self.matrix = model, matrix

    def apply(self, *arguments, **options):
        return self.model.apply(*arguments, **options) @ self.matrix


@pytest.mark.parametrize(
    ("mixing", "keeps_parts"), [("scales", True), ("triangular", True), ("all", False)]
)
def test_projection_depends_on_what_is_spanned_only(double, mixing, keeps_parts):
    """By all features, and by a leading part as far as the mixing leaves its span."""
    model, params, task = double
    rng = np.random.default_rng(1)
    matrix = {
        "scales": np.diag(10 ** rng.uniform(-3, 3, 40)),
        "triangular": np.eye(40) + np.triu(rng.uniform(-0.1, 0.1, (40, 40)), 1),
        "all": np.linalg.qr(rng.normal(size=(40, 40)))[0],
    }[mixing]
    with jax.enable_x64(True):
        plain, mixed = (
            jax.device_get(
                jax.jit(objectives.projection_objective(one, 300, (10,)))(
                    params, task, KEY
                )[1]
            )
            for one in (model, Mixed(model, matrix))
        )
    np.testing.assert_allclose(mixed["error"], plain["error"], rtol=2e-3)
    change = abs(mixed["error_10"] / plain["error_10"] - 1)
    assert change < 1e-3 if keeps_parts else change > 0.01


def test_projection_objective_sees_what_lies_in_the_span(double):
    model, params, task = double
    with jax.enable_x64(True):
        features = objectives.feature_function(model, params, task.problem)
        weights = jnp.linspace(-1, 1, 20) + 1j * jnp.linspace(2, 0, 20)
        spanned = task.replace(scattered=(features(task.points)[:, :20] @ weights)[None])
        objective = objectives.projection_objective(model, 300, (10, 20))
        _, scalars = jax.device_get(jax.jit(objective)(params, spanned, KEY))
    assert scalars["error"] < 1e-3 and scalars["error_20"] < 1e-3
    assert scalars["error_10"] > 0.02


def test_projection_gradient_against_finite_differences(double):
    """Although the weights are held: they are at their minimum."""
    model, params, task = double
    with jax.enable_x64(True):
        objective = jax.jit(objectives.projection_objective(model, 300, (10,)))
        gradient = jax.grad(lambda p: objective(p, task, KEY)[0])(params)
        direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)), params)
        direction = jax.tree.map(lambda d, x: d.reshape(x.shape), direction, params)
        step = 1e-5
        above, below = (
            objective(
                jax.tree.map(lambda p, d: p + sign * step * d, params, direction),
                task,
                KEY,
            )[0]
            for sign in (1, -1)
        )
        slope = sum(
            float(jnp.sum(g * d))
            for g, d in zip(
                jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
            )
        )
    np.testing.assert_allclose(slope, float(above - below) / (2 * step), rtol=2e-3)


def galerkin_error(model, number):
    """A function of (params, task), in double precision."""
    error_of = jax.jit(
        lambda *network: output_layer.galerkin_error(model, *network, (number, number))
    )

    def in_double(params, task):
        with jax.enable_x64(True):
            return float(error_of(*evaluation._double((params, task))))

    return in_double


def test_galerkin_error_is_that_of_the_solution(problem, task):
    """With a fine quadrature: relative L2 by the way `solve` goes."""
    model, params = pinn(width=150)
    found = galerkin_error(model, 30)(params, task.replace(problem=problem))
    weights = output_layer.solve(model, params, problem, double=True)
    field = output_layer.FeatureField(model, params, problem, weights, double=True)
    points = np.asarray(task.points)
    inside = np.all((points >= 0) & (points <= 1), axis=1)
    assert 50 < np.sum(inside) < len(points)
    error = relative_l2(field(points[inside]), np.asarray(task.scattered[0])[inside])
    assert 0.01 < error < 0.7
    np.testing.assert_allclose(found, error, rtol=0.03)


def test_galerkin_error_does_not_see_fields_in_the_layer(task):
    model, params = pinn()
    error_of = galerkin_error(model, 16)
    error = error_of(params, task)
    outside = jnp.any((task.points < 0) | (task.points > 1), axis=1)
    other = task.replace(scattered=jnp.where(outside, 100.0, task.scattered))
    np.testing.assert_allclose(error_of(params, other), error, rtol=1e-6)
    inner = task.replace(scattered=jnp.where(outside, task.scattered, 100.0))
    assert abs(error_of(params, inner) - error) > 0.02


def test_galerkin_error_does_not_see_a_continued_grid(task):
    """Nodes beyond the model, where the layer is, leave the error as it is."""
    model, params = pinn()
    error_of = galerkin_error(model, 16)
    velocity = jnp.pad(task.velocities, ((0, 0), (0, 4), (0, 4)), mode="edge")
    padded = task.replace(
        problem=task.problem.replace(model=VelocityModel(velocity[0], 0.1)),
        velocities=velocity,
    )
    np.testing.assert_allclose(error_of(params, padded), error_of(params, task), rtol=1e-3)


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
    known = task.replace(
        points=jnp.zeros((90, 3)), scattered=jnp.zeros((1, 90), jnp.complex64)
    )
    for model, params in (pinn(ndim=3), lrpinn(ndim=3)):
        for objective in (
            objectives.paper_objective(model, 60),
            objectives.own_output_objective(model, 64),
            objectives.projection_objective(model, 60),
        ):
            loss, _ = jax.eval_shape(objective, params, known, KEY)
            chex.assert_shape(loss, ())
            assert loss.dtype == jnp.float32


def test_projection_draws_no_more_points_than_are_known(double):
    model, params, task = double
    objective = objectives.projection_objective(model, task.points.shape[0] + 1)
    with pytest.raises(ValueError, match="fewer than the"):
        objective(params, task, KEY)
