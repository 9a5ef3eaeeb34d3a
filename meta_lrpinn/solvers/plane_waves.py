"""Plane waves on a lattice: the default solver. The numerics are in `linear`."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tqdm

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics.problem import REFLECTION, HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.solvers.protocol import (
    Bounds,
    Distance,
    Field,
    Prepared,
    Setup,
    Solved,
    at_receivers,
    no_gradient,
    of_velocity,
)
from meta_lrpinn.solvers.settings import PlaneWaves
from meta_lrpinn.wavefield import Statistics

# Factor in the number of waves from one solve to the next. Two such steps usually halve the
# estimate; where they leave more than this part of it, more waves do not help. Not tuned.
_GROWTH, _STALLED = 1.5, 0.8
# What returns from the default layer, relative to the field, and how the reflection at
# normal incidence falls with it: waves that graze the layer return more.
_DEFAULT_RETURN, _REFLECTION_POWER = 4e-3, 2
# Largest residual of the iterations where a tolerance is asked for, and how far the
# residual stays below the tolerance: the error that it leaves is up to five times as large.
_LARGEST_RESIDUAL, _ERROR_OVER_RESIDUAL = 2.5e-4, 20.0
# With a tolerance so many waves are the end, which bounds the time: minutes at sharp steps.
_MOST_WAVES = 300_000
# Vectors that a right-hand side and its iterations take, at most, and the part of that
# memory which many sources take at least: 4,000 in 1,681 waves took 0.6 of it.
_VECTORS, _LEAST_PART = 30, 0.5
# Waves are added until the estimate is this fraction of the tolerance, since it can be
# little more than half of the error.
_AIM = 0.5
# Residual of the iterations for data and gradient, the square root of machine epsilon:
# what iterations leave is not smooth.
_RESIDUAL = float(np.finfo(float).eps) ** 0.5


def prepare(settings: PlaneWaves, setup: Setup) -> Prepared:
    """Plane waves on one lattice for all velocities within the bounds.

    With a tolerance every velocity has a lattice of its own: the layer and the residual of
    the iterations follow from the tolerance, and waves are added until the estimate of
    every source is below half of it, as long as that brings the estimates down and there
    are at most 300,000. Converged is what has its estimate below the tolerance.

    Raises:
        ValueError: if the problem needs more waves than can be solved for.
    """
    basis = _first_basis(settings, setup, setup.bounds)
    solve = functools.partial(_solve, settings, setup, basis)
    return Prepared(setup, solve, data_function(setup, basis.problem, basis.lattice))


def data_function(
    setup: Setup, problem: HelmholtzProblem, lattice: lattices.Lattice
) -> Callable[[jax.Array], jax.Array]:
    """`Prepared.data` of waves on a lattice."""
    if setup.receivers is None:
        return no_gradient
    velocities = setup.background_velocities(setup.grid)
    where = setup.sources, velocities, setup.receivers
    return of_velocity(setup, lattices.data_function(problem, lattice, *where, _RESIDUAL))


@dataclasses.dataclass(frozen=True)
class _Basis:
    """Waves for all velocities within bounds."""

    problem: HelmholtzProblem  # of the smallest velocities, in a layer for the largest
    lattice: lattices.Lattice
    ratio: float  # largest wavenumber over that of the slowest wave

    @functools.cached_property
    def prepared(self) -> lattices.Prepared:
        """All that does not depend on the velocity."""
        return lattices.prepare(self.problem, self.lattice)

    def field(self, model: VelocityModel, weights: np.ndarray) -> Field:
        """The wavefield of weights (n_sources, *lattice.shape) in a model."""
        problem = self.problem.replace(model=model)
        return functools.partial(lattices.evaluate, problem, self.lattice, weights)


def _first_basis(settings: PlaneWaves, setup: Setup, bounds: Bounds) -> _Basis:
    """Waves to begin with, in the layer that the tolerance asks for."""
    tolerance, options = settings.tolerance, {}
    if tolerance is not None and setup.conditions.reflection is None:
        finer = min(tolerance / _DEFAULT_RETURN, 1.0)
        options["reflection"] = REFLECTION * finer**_REFLECTION_POWER
    # Neither layer nor lattice depends on the source.
    problem = setup.problem(bounds.highest, setup.sources[0], **options)
    problem = problem.replace(model=bounds.lowest)
    if settings.unknowns is not None:
        ratio = lattices.wavenumber_ratio_for(problem, settings.unknowns)
    else:
        ratio = lattices.default_wavenumber_ratio(problem)
        if tolerance is not None:
            most = max(ratio, lattices.wavenumber_ratio_for(problem, _MOST_WAVES))
            ratio = min(lattices.wavenumber_ratio_for_tolerance(problem, tolerance), most)
    lattice = lattices.make_lattice(problem, ratio, velocities=bounds.steepest())
    return _Basis(problem, lattice, ratio)


def _growing(basis: _Basis) -> Iterator[_Basis]:
    """Ever more waves, as long as they can be afforded."""
    yield basis
    problem, ratio = basis.problem, basis.ratio
    largest = lattices.wavenumber_ratio_for(problem, _MOST_WAVES)
    while (ratio := ratio * _GROWTH ** (1 / problem.ndim)) <= largest:
        yield _Basis(problem, lattices.make_lattice(problem, ratio), ratio)


def _solve(
    settings: PlaneWaves,
    setup: Setup,
    basis: _Basis,
    model: VelocityModel,
    distance: Distance | None = None,
) -> Solved:
    """All sources in one velocity."""
    tolerance = settings.tolerance
    if tolerance is not None and not setup.bounds.are_of_one_model:
        basis = _first_basis(settings, setup, Bounds(model, model))
    history, best = [], None
    with tqdm.tqdm(disable=not setup.conditions.progress, unit="solve") as bar:
        for waves in _growing(basis):
            solution = _solved(waves, model, setup, tolerance)
            number, largest = waves.lattice.number, float(solution.error_estimate.max())
            record = {"unknowns": number, "error_estimate": largest}
            if distance is not None:
                record["relative_l2"] = distance(solution.fields)
            history.append(record)
            bar.update()
            bar.set_postfix(unknowns=number, estimate=f"{largest:.2g}")
            if best is None or largest < best[0]:
                best = largest, waves, solution
            if tolerance is None or largest <= _AIM * tolerance or _has_stalled(history):
                break
    assert best is not None
    _, waves, solution = best
    fields, evaluate, estimates = solution.fields, None, solution.error_estimate
    if solution.weights is not None:
        evaluate = waves.field(model, solution.weights)
        fields = at_receivers(setup, evaluate, fields)
    converged = solution.converged
    if tolerance is not None:
        converged = converged & (estimates <= tolerance)
    elif np.all(converged):  # all iterations ended, and no more is asked for
        converged = None
    return Solved(
        fields=fields,
        error_estimates=estimates,
        converged=converged,
        evaluate=evaluate,
        stats=Statistics(
            unknowns=waves.lattice.number,
            iterations=int(solution.iterations),
            residual=float(solution.residual.max()),
        ),
        history=tuple(history),
    )


def _has_stalled(history: list[dict[str, float]]) -> bool:
    """Whether two more steps in the number of waves have brought little."""
    estimates = [record["error_estimate"] for record in history]
    return len(estimates) > 2 and min(estimates[-2:]) > _STALLED * estimates[-3]


def _solved(
    basis: _Basis, model: VelocityModel, setup: Setup, tolerance: float | None
) -> Any:
    """The `Solution` of all sources.

    Where a memory is set, as many sources at a time as it holds; their fields are then
    where they are asked for, and their weights are dropped.
    """
    options: dict[str, Any] = {}
    if tolerance is not None:
        options["tolerance"] = min(_LARGEST_RESIDUAL, tolerance / _ERROR_OVER_RESIDUAL)
    velocities = setup.background_velocities(model)
    batch = _sources_per_batch(basis.lattice, setup)
    if setup.conditions.weights is not None:  # one right-hand side
        options["weights"], batch = setup.conditions.weights, len(setup.sources)
    parts = []
    for start in range(0, len(setup.sources), batch):
        part = slice(start, start + batch)
        solution = basis.prepared.solve(
            model, setup.sources[part], velocities[part], **options
        )
        if setup.conditions.memory is not None:
            field = basis.field(model, solution.weights)
            fields = at_receivers(setup, field, solution.fields)
            solution = solution.replace(fields=fields, weights=None)
        parts.append(solution)
    if len(parts) == 1:
        return parts[0]
    joined = jax.tree.map(lambda *leaves: np.concatenate(np.atleast_1d(*leaves)), *parts)
    return joined.replace(iterations=joined.iterations.max())


def _sources_per_batch(lattice: lattices.Lattice, setup: Setup) -> int:
    """All of them where no memory is set, as long as the machine's holds them.

    Raises:
        ValueError: if it does not.
    """
    number, memory = len(setup.sources), setup.conditions.memory
    number = number if setup.conditions.weights is None else 1
    points, receivers = int(np.prod(setup.grid.shape)), setup.receivers
    if memory is not None and receivers is not None:
        points = len(receivers)
    # Right-hand side, solution and the vectors of the iterations, and two fields.
    bytes_of_source = 16 * (_VECTORS * lattice.number + 2 * points)
    if memory is not None:
        return int(np.clip(memory * 2**30 // bytes_of_source, 1, number))
    check_memory(
        _LEAST_PART * number * bytes_of_source,
        f"{number:,} sources in {lattice.number:,} plane waves",
        "solve for fewer at a time, or by run_survey",
    )
    return number
