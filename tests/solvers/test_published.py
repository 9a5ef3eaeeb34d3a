"""What training learns is what meta-testing starts from, in published form and in ours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import adaptation, configs, objectives, output_layer
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import derivatives, residual
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

FREQUENCY, SOURCE, KEY = 3.0, (0.3, 0.1), jax.random.key(2)
OF_OWN_OUTPUT = [
    name
    for name, preset in configs.PRESETS.items()
    if not preset.objective.learns_from_wavefields
]


@pytest.fixture(scope="module")
def model():
    depth = np.linspace(1.6, 2.4, 11)[:, None]
    return VelocityModel(np.array(np.broadcast_to(depth, (11, 11))), 0.08)


@pytest.fixture(scope="module")
def network(model):
    """One whose output solves the problem of amplitude one in the weak form."""
    module = models.PINN(width=200, depth=1, first_scale=6.0)
    params = models.initial_parameters(module, jax.random.key(0))
    unit = make_problem(model, FREQUENCY, SOURCE, amplitude=1.0, layer_fraction=1.0)
    weights = output_layer.solve(module, params, unit, double=True)
    params = output_layer.replace(params, jnp.asarray(weights, jnp.complex64))
    return ml.Network(module, params)


def best_multiple(network, problem):
    """The multiple of the network's output with the least residual in a problem.

    Complex, by NumPy, from the definition of the residual at many points.
    """
    points = problems.sample_points(jax.random.key(9), problem, 4000)
    output = objectives.output_function(network.module, network.params, problem)
    sampled = derivatives.derivatives(output, points)
    at_points = problems.collocate(problem, points)
    laplacian = residual.stretched_laplacian(
        residual.as_complex(sampled.gradient),
        residual.as_complex(sampled.second),
        at_points.stretch,
        at_points.stretch_slope,
    )
    mass = at_points.omega**2 * at_points.squared_slowness
    applied = np.asarray(laplacian + mass * residual.as_complex(sampled.value))
    source = np.asarray(at_points.scattering_source)
    return np.vdot(applied, source) / np.vdot(applied, applied)


def times(network, factor):
    """The network with its output, which has no bias, times a complex number."""
    kernel = models.output_kernel(network.params)
    weights = factor * (kernel[:, 0] + 1j * kernel[:, 1])
    return network.with_parameters(output_layer.replace(network.params, weights))


def trained(network, objective, task):
    """The multiple of the output that an objective is least for, by a Newton step."""

    def squared(factor):
        multiple = times(network, factor[0] + 1j * factor[1])
        return objective(multiple.params, task, KEY)[0] ** 2

    zero = jnp.zeros(2)
    gradient, curvature = jax.jit(
        lambda x: (jax.grad(squared)(x), jax.hessian(squared)(x))
    )(zero)
    real, imaginary = -jnp.linalg.solve(curvature, gradient)
    return times(network, complex(real, imaginary))


@pytest.mark.parametrize("amplitude", [None, 1.925j])
@pytest.mark.parametrize("name", OF_OWN_OUTPUT)
def test_meta_testing_starts_from_the_output_that_is_trained(
    name, amplitude, network, model
):
    """Whatever the amplitude of the tasks, and that of the problem to be solved."""
    preset = configs.PRESETS[name]
    objective = objectives.make_objective(
        dataclasses.replace(preset.objective, points=900, source_penalty=0.0),
        network.module,
    )
    layer = {} if preset.tasks.absorbing else {"thickness": 0.0}
    problem = make_problem(
        model, FREQUENCY, SOURCE, amplitude=amplitude, layer_fraction=1.0, **layer
    )
    problem = jax.tree.map(jnp.asarray, problem)
    multiple = trained(network, objective, single_task(problem))

    settings = ml.GradientTraining(multiple, optimiser=ml.AdamW(steps=0))
    field = ml.solve(model, FREQUENCY, SOURCE, settings, amplitude=amplitude, **layer)
    points = jnp.asarray(model.grid_points())
    output = objectives.output_function(network.module, network.params, problem)(points)
    expected = best_multiple(network, problem) * residual.as_complex(output)
    assert relative_l2(field.scattered.ravel(), expected) < 0.2


# Meta-testing as published --------------------------------------------------------------


def small_network(seed=0):
    module = models.make_meta_lrpinn(width=20, depth=1, rank=5, first_scale=6.0)
    params = models.initial_parameters(module, jax.random.key(seed))
    return ml.Network(module, params).prune(FREQUENCY)


def seen_by(monkeypatch, model, settings, **options):
    """What the adaptation of a solve is given, and its optimiser."""
    seen = {}

    def make_optimiser(*arguments, **named):
        seen["made"] = (*arguments, named)
        return optax.sgd(0.0)

    def finetune(objective, params, task, **named):
        seen.update(named, objective=objective, task=task)
        return params, ()

    monkeypatch.setattr(adaptation, "make_optimiser", make_optimiser)
    monkeypatch.setattr(adaptation, "finetune", finetune)
    ml.solve(model, FREQUENCY, SOURCE, settings, **options)
    return seen


def test_one_word_is_meta_testing_as_published(model, monkeypatch):
    """AdamW at 1e-3 with decay, halved on the way, not clipped; fixed points; no layer."""
    network = small_network()
    settings = ml.GradientTraining(network, loss="published")
    seen = seen_by(monkeypatch, model, settings)
    *arguments, named = seen["made"]
    assert arguments == ["adamw", 1e-3, "halved", 200]
    assert (named["weight_decay"], named["clip_norm"]) == (4e-5, None)
    assert seen["fixed_points"] is True
    assert float(seen["task"].problem.layer.thickness) == 0.0
    key = jax.random.key(0)
    _, parts = seen["objective"](network.params, seen["task"], key)
    assert set(parts) == {"pde", "source", "orthogonality"} and parts["source"] > 0


def test_what_is_asked_for_replaces_the_published(model, monkeypatch):
    optimiser = ml.AdamW(
        steps=3, learning_rate=0.5, weight_decay=0.0, schedule="cosine", fixed_points=False
    )
    settings = ml.GradientTraining(
        small_network(), loss="published", optimiser=optimiser, source_penalty=0.0
    )
    seen = seen_by(monkeypatch, model, settings, thickness=0.2)
    *arguments, named = seen["made"]
    assert arguments == ["adamw", 0.5, "cosine", 3] and named["weight_decay"] == 0.0
    assert seen["fixed_points"] is False
    np.testing.assert_allclose(seen["task"].problem.layer.thickness, 0.2)
    key = jax.random.key(0)
    _, parts = seen["objective"](settings.network.params, seen["task"], key)
    assert "source" not in parts


def test_our_form_is_another_and_takes_the_same_options(model, monkeypatch):
    network = small_network()
    seen = seen_by(monkeypatch, model, ml.GradientTraining(network))
    *arguments, named = seen["made"]
    assert arguments == ["adamw", 2e-3, "cosine", 200]
    assert (named["weight_decay"], named["clip_norm"]) == (0.0, 1.0)
    assert seen["fixed_points"] is False
    assert float(seen["task"].problem.layer.thickness) > 0
    # The schedule does not depend on the loss.
    optimiser = ml.AdamW(schedule="halved", weight_decay=1e-2, fixed_points=True)
    seen = seen_by(monkeypatch, model, ml.GradientTraining(network, optimiser=optimiser))
    *arguments, named = seen["made"]
    assert arguments == ["adamw", 2e-3, "halved", 300] and named["weight_decay"] == 1e-2
    assert seen["fixed_points"] is True


@pytest.mark.parametrize("thickness", [None, 0.0])
def test_published_meta_testing_solves(model, thickness):
    """Steps with the source's penalty and without a layer lower the published loss."""
    settings = ml.GradientTraining(
        small_network(),
        loss="published",
        source_penalty=1.0,
        optimiser=ml.AdamW(steps=30, points=200, report_every=10),
    )
    field = ml.solve(model, FREQUENCY, SOURCE, settings, thickness=thickness)
    assert np.all(np.isfinite(field.scattered)) and np.any(field.scattered != 0)
    losses = [row["held_out"] for row in field.history]
    assert [row["step"] for row in field.history] == [0, 10, 20, 30]
    assert min(losses[1:]) < losses[0]
    assert {"pde", "source", "orthogonality"} <= field.history[-1].keys()
