"""Finite differences as a solver like the others; the numerics are in `reference`."""

import functools
from typing import Any

import numpy as np

from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import finite_difference
from meta_lrpinn.solvers.protocol import Prepared, Setup, Solved, Truth, at_receivers
from meta_lrpinn.solvers.settings import FiniteDifferences
from meta_lrpinn.wavefield import Statistics


def prepare(settings: FiniteDifferences, setup: Setup) -> Prepared:
    """Finite differences for velocities, each of which has factors of its own.

    Raises:
        ValueError: if the problem is too large, or an option is out of its range.
    """
    options = _options(settings, setup)
    finite_difference.check_first_grid(setup.grid, setup.frequency, **options)
    return Prepared(setup, functools.partial(_solve, settings, setup))


def _options(settings: FiniteDifferences, setup: Setup) -> dict[str, Any]:
    return {
        "refinement": settings.refinement,
        "tolerance": settings.tolerance,
        "thickness": setup.conditions.thickness,
        "reflection": setup.conditions.reflection,
        "scheme_order": settings.scheme_order,
    }


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
        maximum_refinement=settings.maximum_refinement,
        **_options(settings, setup),
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
