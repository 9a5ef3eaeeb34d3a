"""Finite differences as a solver like the others; the numerics are in `reference`."""

import numpy as np

from meta_lrpinn import reference
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import FiniteDifferences


def solve(request: Request, settings: FiniteDifferences) -> Solution:
    """Solves for all sources of a request, which share the factors.

    Raises:
        ValueError: if the problem is too large, or an option is out of its range.
    """
    field = reference.reference_wavefield(
        request.model,
        request.frequency,
        request.sources,
        amplitude=request.amplitude,
        background_velocity=request.background_velocities,
        refinement=settings.refinement,
        tolerance=settings.tolerance,
        maximum_refinement=settings.maximum_refinement,
        thickness=request.thickness,
        scheme_order=settings.scheme_order,
        **({} if request.reflection is None else {"reflection": request.reflection}),
    )
    history = field.history
    if request.truth is not None:
        # The last solution is the one returned; those before are gone.
        last = {**history[-1], "relative_l2": request.error(field.scattered)}
        history = (*history[:-1], last)
    return Solution(
        fields=np.asarray(field.scattered),
        evaluate=field.evaluate,
        stats=field.stats,
        history=history,
        error_estimates=field.error_estimates,
        converged=field.converged,
    )
