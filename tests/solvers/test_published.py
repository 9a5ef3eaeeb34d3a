"""What training learns is what meta-testing starts from, in published form and in ours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import configs, objectives, output_layer
from meta_lrpinn.learning.tasks import single_task
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

FREQUENCY, SOURCE = 3.0, (0.3, 0.1)
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
def known(model):
    """A network whose own output solves a problem, up to a factor, and the problem."""
    module = models.PINN(width=250, depth=1, first_scale=6.0)
    params = models.initial_parameters(module, jax.random.key(0))
    problem = make_problem(model, FREQUENCY, SOURCE)
    weights = output_layer.solve("galerkin", module, params, problem, double=True)
    return module, params, jnp.asarray(weights, jnp.complex64), problem


def trained(preset, known):
    """The factor of the output with the least residual, by one Newton step."""
    module, params, weights, problem = known
    if not preset.tasks.absorbing:
        layer = problem.layer.replace(thickness=np.zeros(()))
        problem = problem.replace(layer=layer)
    config = dataclasses.replace(preset.objective, points=900, source_penalty=0.0)
    objective = objectives.make_objective(
        dataclasses.replace(config, orthogonality=0.0), module
    )
    task = single_task(jax.tree.map(jnp.asarray, problem))

    def squared(factor):
        """Quadratic in the real and the imaginary part of a factor of the weights."""
        scaled = output_layer.replace(params, (factor[0] + 1j * factor[1]) * weights)
        return objective(scaled, task, jax.random.key(1))[0] ** 2

    zero = jnp.zeros(2)
    gradient, curvature = jax.jit(
        lambda x: (jax.grad(squared)(x), jax.hessian(squared)(x))
    )(zero)
    factor = -jnp.linalg.solve(curvature, gradient)
    assert squared(factor) < 0.1 * squared(zero)
    return output_layer.replace(params, (factor[0] + 1j * factor[1]) * weights)


@pytest.mark.parametrize("amplitude", [None, 1.925j])
@pytest.mark.parametrize("name", OF_OWN_OUTPUT)
def test_meta_testing_starts_from_the_output_that_is_trained(name, amplitude, known, model):
    """Whatever the amplitudes of training and of the problem to be solved."""
    preset = configs.PRESETS[name]
    network = ml.Network(known[0], trained(preset, known))
    settings = ml.GradientTraining(network, adamw=ml.AdamW(steps=0))
    field = ml.solve(model, FREQUENCY, SOURCE, settings, amplitude=amplitude)
    truth = ml.reference_wavefield(
        model, FREQUENCY, SOURCE, refinement=3, amplitude=amplitude
    )
    assert relative_l2(field.scattered, truth.scattered) < 0.15
