"""What is meant to run on an accelerator lowers for it, without one at hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from meta_lrpinn import models
from meta_lrpinn.learning import (
    adaptation,
    devices,
    objectives,
    output_layer,
    task_sets,
    training,
)
from meta_lrpinn.learning.configs import (
    MAML,
    InnerSteps,
    MultiStepMAML,
    Reptile,
    TrainingConfig,
)
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

PLATFORMS = ["cuda", "tpu"]


@pytest.fixture(scope="module")
def problem():
    model = VelocityModel(np.full((6, 6), 2.0) + np.arange(6)[:, None] / 10, 0.1)
    problem = make_problem(model, 4.0, (0.3, 0.1), layer_fraction=1.0)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf), problem)


@pytest.fixture(scope="module")
def network():
    model = models.make_meta_lrpinn(width=8, depth=2, rank=3)
    return model, models.initial_parameters(model, jax.random.key(0))


def task_of(problem):
    """With a known wavefield, for the objectives that look at one."""
    return task_sets.single_task(problem).replace(
        points=jnp.full((20, 2), 0.2), scattered=jnp.ones((1, 20), jnp.complex64)
    )


def check(program, *arguments):
    """Every platform at once; what none of them has raises."""
    exported = export.export(program, platforms=PLATFORMS)(*arguments)
    assert exported.platforms == ("cuda", "tpu")


@pytest.mark.parametrize(
    "algorithm",
    [
        MAML(inner=InnerSteps()),
        MAML(inner=InnerSteps(), first_order=False),
        MultiStepMAML(inner=InnerSteps(steps=2)),
        Reptile(inner=InnerSteps(steps=2)),
        Reptile(inner=InnerSteps(steps=2, optimiser="soap")),
    ],
)
def test_meta_training(problem, network, algorithm):
    model, params = network
    config = TrainingConfig(algorithm=algorithm, tasks_per_batch=2, task_axis="map")
    objective = objectives.paper_objective(model, 12)
    update = training.make_update(config, objective, devices.task_mesh(jax.devices()[:1]))
    one = task_of(problem)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)
    check(update, training.initial_state(config, params), batch, batch)


@pytest.mark.parametrize("name", ["adamw", "soap"])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: objectives.paper_objective(model, 12),
        lambda model: objectives.own_output_objective(model, 16),
    ],
)
def test_adaptation(problem, network, make, name):
    model, params = network
    optimiser = adaptation.make_optimiser(name, 1e-3, "cosine", 10)
    objective, task = make(model), task_of(problem)

    def steps(params, task, key):
        state = params, optimiser.init(params)
        advance = adaptation.advance.__wrapped__
        return advance(objective, optimiser, False, state, task, key, 0, 3)

    check(jax.jit(steps), params, task, jax.random.key(0))


def test_learned_features(problem, network):
    model, params = network
    chunks = output_layer._in_chunks(problem, (8, 8), (2, 2), 4)

    def solved(params, chunks, problem):
        return output_layer._galerkin.__wrapped__(
            model, params, chunks, problem, (1.0,), False
        )

    check(jax.jit(solved), params, chunks, problem)
