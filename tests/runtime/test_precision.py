"""Exact products on devices that round them, and double precision beside a TPU."""

import pathlib

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
from meta_lrpinn.runtime.precision import double_precision

# Not a word about devices: what is exact finds the host by itself.
EXACT_SOLVES = """
import chex
import jax
import numpy as np
import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import configs, evaluation, networks

model = ml.VelocityModel(np.full((11, 11), 2.0) + np.arange(11)[:, None] / 10, 0.1)
module = models.make_meta_lrpinn(width=8, depth=2, rank=3)
network = networks.random_network(module, 0)
params = jax.device_put(network.params, jax.devices()[0])
network = network.with_parameters(params)
source = (0.3, 0.1)
features = ml.NetworkFeatures(network)
adapted = ml.GradientTraining(
    network, optimiser=ml.AdamW(steps=1, points=16), output_start="solved", polish=True
)
for settings in (features, adapted):
    chex.assert_tree_all_finite(ml.solve(model, 4.0, source, settings).scattered)
survey = ml.solve_survey([model, model], [4.0], [source], features)
chex.assert_tree_all_finite(survey.scattered)
size = {"smallest_size": 21, "largest_size": 21, "spacing": 0.1}
tasks = configs.TaskDistribution(absorbing=True, **size)
evaluate = evaluation.galerkin_evaluation(tasks, module)
assert evaluate(params, 0)["error"] > 0
"""
REFUSED = """
import jax, jax.numpy as jnp
from meta_lrpinn.runtime.precision import double_precision

with double_precision():
    assert jnp.sin(jnp.ones(2, complex)).devices() == {jax.devices("cpu")[0]}
assert jnp.sin(jnp.ones(2)).devices() == {jax.devices()[0]}
with jax.enable_x64(True):
    try:
        jnp.sin(jnp.ones(2, complex))
    except RuntimeError as error:
        assert "double precision" in str(error)
    else:
        raise AssertionError("the pretended TPU took double precision")
"""

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


@pytest.mark.parametrize("script", [REFUSED, EXACT_SOLVES])
def test_double_precision_beside_a_tpu(script, beside_a_tpu, tmp_path):
    beside_a_tpu(script, tmp_path)


def test_double_precision_elsewhere():
    with double_precision():
        assert jnp.ones(2).dtype == np.float64
        assert jax.config.jax_default_device is None
        with double_precision(False):
            assert jnp.ones(2).dtype == np.float32
    assert jnp.ones(2).dtype == np.float32


def test_double_precision_is_asked_for_in_one_place():
    """Elsewhere nothing would send it to the host."""
    package = pathlib.Path(models.__file__).parents[1]
    found = [path for path in package.rglob("*.py") if "enable_x64" in path.read_text()]
    assert [path.relative_to(package).as_posix() for path in found] == [
        "runtime/precision.py"
    ]
