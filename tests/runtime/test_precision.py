"""Matrix products are exact on devices that round them by default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from meta_lrpinn import models
from meta_lrpinn.learning import objectives, output_layer
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

HIGHEST = (jax.lax.Precision.HIGHEST,) * 2


def products(function, *args):
    """Precisions of all matrix products in what a function traces to."""

    def of(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in core.jaxprs_in_params(equation.params):
                yield from of(inner)

    return list(of(jax.make_jaxpr(function)(*args).jaxpr))


@pytest.fixture(scope="module")
def problem():
    model = VelocityModel(np.full((6, 6), 2.0) + np.arange(6)[:, None] / 10, 0.1)
    problem = make_problem(model, 4.0, (0.3, 0.1), thickness=0.3)
    return jax.tree.map(jnp.asarray, problem)


@pytest.fixture(scope="module")
def network():
    model = models.make_meta_lrpinn(width=8, depth=2, rank=3)
    return model, models.initial_parameters(model, jax.random.key(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda model: objectives.paper_objective(model, 20),
        lambda model: objectives.own_output_objective(model, 16),
        lambda model: objectives.projection_objective(model, 20),
    ],
)
def test_objectives_and_their_gradients(make, network, problem):
    model, params = network
    task = single_task(problem).replace(
        points=jnp.zeros((20, 2)), scattered=jnp.ones((1, 20), jnp.complex64)
    )
    objective = make(model)
    found = products(
        lambda p: jax.grad(lambda q: objective(q, task, jax.random.key(0))[0])(p), params
    )
    assert len(found) > 10 and set(found) == {HIGHEST}


def test_learned_features(network, problem):
    chunks = output_layer._in_chunks(problem, (8, 8), (2, 2), 4)
    found = products(
        lambda p: output_layer._galerkin(*network, chunks, p, (1.0, 0.5), False),
        problem,
    )
    assert found and set(found) == {HIGHEST}
