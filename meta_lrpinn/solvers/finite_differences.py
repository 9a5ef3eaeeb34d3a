"""Finite differences as a solver like the others; the numerics are in `reference`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import factorised, finite_difference, gradient, grids
from meta_lrpinn.solvers.protocol import Prepared, Setup, Solved, Truth, at_receivers
from meta_lrpinn.solvers.settings import FiniteDifferences
from meta_lrpinn.wavefield import Statistics


def prepare(settings: FiniteDifferences, setup: Setup) -> Prepared:
    """Finite differences for velocities, each of which has factors of its own.

    Raises:
        ValueError: if the problem is too large, or an option is out of its range.
    """
    _scheme(settings, setup).check(setup.grid, setup.frequency)
    solve = functools.partial(_solve, settings, setup)
    if setup.receivers is None:
        return Prepared(setup, solve)
    return Prepared(setup, solve, _data(settings, setup))


def _data(settings: FiniteDifferences, setup: Setup) -> Callable[[jax.Array], jax.Array]:
    """On one grid, which resolves the smallest velocity, in a layer for the largest."""
    assert setup.receivers is not None
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

    def of_velocity(velocity):
        model = setup.grid.replace_velocity(velocity)
        return data(jnp.asarray(model.squared_slowness))

    return of_velocity


def _scheme(settings: FiniteDifferences, setup: Setup) -> finite_difference.Scheme:
    return finite_difference.Scheme(
        refinement=settings.refinement,
        tolerance=settings.tolerance,
        maximum_refinement=settings.maximum_refinement,
        thickness=setup.conditions.thickness,
        reflection=setup.conditions.reflection,
        order=settings.scheme_order,
    )


def _solve(
    settings: FiniteDifferences,
    setup: Setup,
    model: VelocityModel,
    truth: Truth | None = None,
) -> Solved:
    """All sources in one velocity; of the history the last record has its distance."""
    refined = finite_difference.refined_field(
        model,
        setup.frequency,
        setup.sources,
        setup.amplitude,
        setup.background_velocities(model),
        _scheme(settings, setup),
        setup.conditions.weights,
    )
    history = refined.history
    if truth is not None:
        last = {**history[-1], "relative_l2": truth.distance(refined.scattered)}
        history = (*history[:-1], last)
    estimates, converged = refined.error_estimates, None
    if refined.converged is not None and estimates is not None:
        # Where one source misses the tolerance, others may have reached it.
        converged = refined.converged | (estimates <= settings.tolerance)
    return Solved(
        fields=at_receivers(setup, refined.evaluate, refined.scattered),
        error_estimates=estimates,
        converged=converged if converged is None else np.asarray(converged),
        evaluate=refined.evaluate,
        stats=Statistics(unknowns=refined.unknowns),
        history=history,
    )
