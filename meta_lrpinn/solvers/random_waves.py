"""Random plane waves, all in one matrix: the simplest exact solve over features."""

import numpy as np

from meta_lrpinn import models
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers import exact
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import RandomWaves
from meta_lrpinn.wavefield import Statistics

# Largest wavenumber over that of the slowest wave, by which their number is chosen.
_WAVENUMBER_RATIO = 1.4
# Wave vectors fill the ball up to this, over the wavenumber of the slowest wave.
_LARGEST = 1.15


def number_of_waves(problem: HelmholtzProblem, settings: RandomWaves) -> int:
    """How many waves the settings ask for, or the problem by default.

    Raises:
        ValueError: if the memory does not hold their matrix.
    """
    number = settings.unknowns
    if number is None:
        number = lattices.waves_in_ball(problem, _WAVENUMBER_RATIO)
    check_memory(
        (16.0 if settings.precision == "double" else 8.0) * number**2,
        f"matrices of {number:,} random waves",
        "choose fewer, a smaller window, a lower frequency, or the solver plane_waves",
    )
    return number


def solve(request: Request, settings: RandomWaves) -> Solution:
    """Solves in the weak form over the waves that the seed draws."""
    posed = request.problems()
    number = number_of_waves(posed[0], settings)
    largest = _LARGEST * 2 * np.pi * request.frequency / request.model.minimum
    params = models.plane_wave_parameters(
        request.keys.waves, number, largest, request.model.ndim
    )
    waves = models.PlaneWaves(ndim=request.model.ndim, number=number)
    is_double = settings.precision == "double"
    stats, outcomes = Statistics(unknowns=number), []
    for index, problem in enumerate(posed):
        field = exact.solve_output("galerkin", Network(waves, params), problem, is_double)
        outcomes.append(
            exact.outcome(field, problem, exact.distance_of(request, index), (), stats)
        )
    return exact.join(outcomes)
