"""Finite differences as a solver like the others; the numerics are in `reference`."""

from collections.abc import Callable

import jax
import numpy as np

from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import factorised, finite_difference, gradient, grids
from meta_lrpinn.solvers.protocol import (
    Distance,
    Prepared,
    Setup,
    Solved,
    at_receivers,
    no_gradient,
    of_velocity,
)
from meta_lrpinn.solvers.settings import FiniteDifferences
from meta_lrpinn.wavefield import Statistics


def prepare(settings: FiniteDifferences, setup: Setup) -> Prepared:
    """Finite differences for velocities, each of which has factors of its own.

    Raises:
        ValueError: if the problem is too large, or an option is out of its range.
    """
    scheme, conditions = _scheme(settings, setup), setup.conditions
    scheme.check(setup.grid, setup.frequency)

    def solve(model: VelocityModel, distance: Distance | None = None) -> Solved:
        refined = finite_difference.refined_field(
            model,
            setup.frequency,
            setup.sources,
            setup.amplitude,
            setup.background_velocities(model),
            scheme,
            conditions.weights,
        )
        history = refined.history
        if distance is not None:  # of the last record, since other fields are gone
            last = {**history[-1], "relative_l2": distance(refined.scattered)}
            history = (*history[:-1], last)
        estimates, converged = refined.error_estimates, None
        if refined.converged is not None and estimates is not None:
            # Where one source misses the tolerance, others may have reached it.
            converged = np.asarray(refined.converged | (estimates <= settings.tolerance))
        return Solved(
            fields=at_receivers(setup, refined.evaluate, refined.scattered),
            error_estimates=estimates,
            converged=converged,
            evaluate=refined.evaluate,
            stats=Statistics(unknowns=refined.unknowns),
            history=history,
        )

    return Prepared(setup, solve, _data(settings, setup))


def _data(settings: FiniteDifferences, setup: Setup) -> Callable[[jax.Array], jax.Array]:
    """On one grid, which resolves the smallest velocity, in a layer for the largest."""
    if setup.receivers is None:
        return no_gradient
    refinement = settings.refinement
    if refinement is None:
        refinement = grids.refinement_for(setup.grid, setup.frequency)
    layer = factorised.make_layer(
        setup.bounds.highest,
        setup.frequency,
        refinement,
        setup.conditions.thickness,
        setup.conditions.reflection,
    )
    data = gradient.data_function(
        setup.grid,
        setup.frequency,
        setup.sources,
        setup.receivers,
        setup.amplitude,
        setup.background_velocities(setup.grid),
        refinement=refinement,
        layer=layer,
        order=settings.scheme_order,
    )
    return of_velocity(setup, data)


def _scheme(settings: FiniteDifferences, setup: Setup) -> finite_difference.Scheme:
    return finite_difference.Scheme(
        refinement=settings.refinement,
        tolerance=settings.tolerance,
        maximum_refinement=settings.maximum_refinement,
        thickness=setup.conditions.thickness,
        reflection=setup.conditions.reflection,
        order=settings.scheme_order,
    )
