"""Exact solves over the last hidden layer of a network."""

import functools

import numpy as np

from meta_lrpinn.learning.networks import Network
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers import network_fields, shared_features
from meta_lrpinn.solvers.protocol import Prepared, Setup, Solve, Solved, Truth
from meta_lrpinn.solvers.settings import NetworkFeatures
from meta_lrpinn.wavefield import Statistics

# GiB for shared features where no memory is set.
_MEMORY = 4.0


def prepare(settings: NetworkFeatures, setup: Setup) -> Prepared:
    """A network's features: of one model solved directly, of several evaluated once.

    Raises:
        ValueError: if there is no such network, or it is of another space dimension.
    """
    network = network_fields.find_network(settings.network, setup)
    if setup.bounds.are_of_one_model:
        return Prepared(setup, functools.partial(_solve, settings, setup, network))
    return Prepared(setup, _sharing(settings, setup, network))


def _solve(
    settings: NetworkFeatures,
    setup: Setup,
    network: Network,
    model: VelocityModel,
    truth: Truth | None = None,
) -> Solved:
    """All sources in one velocity, each in turn."""
    stats = Statistics(unknowns=network.number_of_features, rank=network.ranks, steps=0)
    is_double = settings.precision == "double"
    sources = [
        network_fields.SourceField(
            network_fields.solve_output(network, problem, is_double), stats
        )
        for problem in setup.problems(model, network.layer_fraction)
    ]
    return network_fields.join(setup, model, network, sources, truth)


def _sharing(settings: NetworkFeatures, setup: Setup, network: Network) -> Solve:
    """By features that are evaluated once for each source; see `shared_features`."""
    grid = setup.grid
    receivers = grid.grid_points() if setup.receivers is None else setup.receivers
    shape = grid.shape if setup.receivers is None else (len(receivers),)
    checksum = network.checksum()
    made: dict[int, shared_features.FeatureSolver] = {}

    def solver_of(index: int) -> shared_features.FeatureSolver:
        if index in made:
            return made[index]
        # The layer for a velocity in the middle of all: networks are trained in one for
        # the mean velocity.
        problem = make_problem(
            setup.bounds.middle(),
            setup.frequency,
            setup.sources[index],
            amplitude=setup.amplitude,
            background_velocity=setup.conditions.background_velocity,
            layer_fraction=network.layer_fraction,
            **setup.layer_options,
        ).replace(model=grid)
        solver = shared_features.make_solver(
            network, problem, receivers, settings.precision
        )
        # Those that memory has no room for are made again for every velocity.
        each = shared_features.bytes_of(network, problem, len(receivers))
        memory = setup.conditions.memory or _MEMORY
        if not made or (len(made) + 1) * each <= memory * 2**30:
            made[index] = solver
        return solver

    def solve(model: VelocityModel, truth: Truth | None = None) -> Solved:
        velocities = setup.background_velocities(model)
        solvers = [solver_of(index) for index in range(len(setup.sources))]
        solved = [solver(model, v0) for solver, v0 in zip(solvers, velocities, strict=True)]
        values, errors = zip(*solved, strict=True)
        fields = np.stack(values).reshape(-1, *shape)
        record = {"step": 0, "seconds": 0.0}
        if truth is not None:
            record["relative_l2"] = truth.distance(fields)
        return Solved(
            fields=fields,
            error_estimates=np.array(errors),
            stats=Statistics(unknowns=solvers[-1].unknowns, rank=network.ranks, steps=0),
            history=() if truth is None else (record,),
            initialisation=checksum,
        )

    return solve
