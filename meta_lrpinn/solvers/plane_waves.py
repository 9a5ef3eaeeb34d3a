"""Plane waves on a lattice: the default solver. The numerics are in `linear`."""

import dataclasses

import numpy as np
import tqdm

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.memory import check_memory
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import PlaneWaves
from meta_lrpinn.wavefield import Statistics

# Factor in the number of waves from one solve to the next, and the fall of the estimate
# over two such steps, which would be 2 or more, below which more waves do not help.
_GROWTH, _STALLED = 1.5, 0.8
# What returns from the default layer, relative to the field, and how the reflection at
# normal incidence falls with it: waves that graze the layer return more.
_DEFAULT_RETURN, _REFLECTION_POWER = 4e-3, 2
# Largest residual of the iterations where a tolerance is asked for, and how far the
# residual stays below the tolerance: the error that it leaves is up to five times as large.
_LARGEST_RESIDUAL, _ERROR_OVER_RESIDUAL = 2.5e-4, 20.0
# With a tolerance so many waves are the end, which bounds the time: minutes at sharp steps.
_MOST_WAVES = 300_000
# What many sources take at least, over `bytes_of_source`: 4,000 in 1,681 waves took 0.6.
_LEAST_PART = 0.5
# Waves are added until the estimate is this fraction of the tolerance, since it can be
# little more than half of the error.
_AIM = 0.5


@dataclasses.dataclass(frozen=True)
class PlaneWaveField:
    """The wavefield of a lattice's weights, as a function of points; can be pickled."""

    problem: HelmholtzProblem
    lattice: lattices.Lattice
    weights: np.ndarray  # (n_sources, *lattice.shape) complex

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        return lattices.evaluate(self.problem, self.lattice, self.weights, points)


def solve(request: Request, settings: PlaneWaves) -> Solution:
    """Solves for all sources of a request at once, on one lattice.

    With a tolerance the layer and the residual of the iterations follow from it, and
    waves are added until the estimate of every source is below half of it, as long as
    that brings the estimates down and there are at most 300,000. Converged is what has its
    estimates below the tolerance.

    Raises:
        ValueError: if the problem needs more waves than can be solved for.
    """
    tolerance = settings.tolerance
    problem = _problem(request, tolerance)
    ratio = _first_ratio(problem, settings)
    largest_ratio = lattices.wavenumber_ratio_for(problem, _MOST_WAVES)
    history, best = [], None
    with tqdm.tqdm(disable=not request.progress, unit="solve") as bar:
        while True:
            lattice = lattices.make_lattice(problem, ratio)
            _check_room(lattice, request)
            found = _solved(problem, lattice, request, tolerance)
            largest = float(np.asarray(found.error_estimate).max())
            record = {"unknowns": lattice.number, "error_estimate": largest}
            if request.truth is not None:
                record["relative_l2"] = request.error(found.fields)
            history.append(record)
            bar.update()
            bar.set_postfix(unknowns=lattice.number, estimate=f"{largest:.2g}")
            if best is None or largest < best[0]:
                best = largest, lattice, found
            if tolerance is None or largest <= _AIM * tolerance or _has_stalled(history):
                break
            ratio *= _GROWTH ** (1 / problem.ndim)
            if ratio > largest_ratio:
                break  # what is there is the best that can be afforded
    largest, lattice, found = best
    return Solution(
        fields=np.asarray(found.fields),
        evaluate=PlaneWaveField(problem, lattice, np.asarray(found.weights)),
        stats=Statistics(
            unknowns=lattice.number,
            iterations=int(found.iterations),
            residual=float(np.asarray(found.residual).max()),
        ),
        history=tuple(history),
        error_estimates=np.asarray(found.error_estimate),
        converged=_has_converged(found, tolerance),
    )


def _first_ratio(problem: HelmholtzProblem, settings: PlaneWaves) -> float:
    """Wavenumber ratio to begin with."""
    if settings.unknowns is not None:
        return lattices.wavenumber_ratio_for(problem, settings.unknowns)
    default = lattices.default_wavenumber_ratio(problem)
    if settings.tolerance is None:
        return default
    ratio = lattices.wavenumber_ratio_for_tolerance(problem, settings.tolerance)
    return min(ratio, max(default, lattices.wavenumber_ratio_for(problem, _MOST_WAVES)))


def _problem(request: Request, tolerance: float | None) -> HelmholtzProblem:
    """The problem of the first source, in a layer that the tolerance asks for."""
    if tolerance is not None and request.reflection is None:
        finer = min(tolerance / _DEFAULT_RETURN, 1.0)
        reflection = problems.REFLECTION * finer**_REFLECTION_POWER
        request = dataclasses.replace(request, reflection=reflection)
    first = slice(0, 1)  # the layer does not depend on the source
    return dataclasses.replace(
        request,
        sources=request.sources[first],
        background_velocities=request.background_velocities[first],
    ).problems()[0]


def bytes_of_source(lattice: lattices.Lattice, points: int) -> int:
    """Memory that one more right-hand side takes.

    Right-hand side, solution and the vectors of the iterations, and two fields, 16 bytes
    a number.

    Args:
        lattice: The waves.
        points: Numbers of a field.
    """
    return 16 * (30 * lattice.number + 2 * points)


def _check_room(lattice: lattices.Lattice, request: Request) -> None:
    shape = request.model.shape
    check_memory(
        _LEAST_PART * len(request.sources) * bytes_of_source(lattice, int(np.prod(shape))),
        f"{len(request.sources):,} sources in {lattice.number:,} plane waves",
        "solve for fewer at a time, or by run_survey",
    )


def _solved(
    problem: HelmholtzProblem,
    lattice: lattices.Lattice,
    request: Request,
    tolerance: float | None,
) -> lattices.Solution:
    options = {}
    if tolerance is not None:
        options["tolerance"] = min(_LARGEST_RESIDUAL, tolerance / _ERROR_OVER_RESIDUAL)
    return lattices.solve(
        problem, lattice, request.sources, request.background_velocities, **options
    )


def _has_converged(found: lattices.Solution, tolerance: float | None) -> bool | None:
    """False wherever iterations ended early; else whether a tolerance was reached."""
    if not np.all(found.converged):
        return False
    return None if tolerance is None else bool(np.all(found.error_estimate <= tolerance))


def _has_stalled(history: list[dict[str, float]]) -> bool:
    """Whether two more steps in the number of waves have brought little."""
    estimates = [record["error_estimate"] for record in history]
    return len(estimates) > 2 and min(estimates[-2:]) > _STALLED * estimates[-3]
