"""Reference wavefields by compact finite differences, to a tolerance.

The scheme is in `stencils`, its grid and absorbing layer in `grids`, the operator in
`factorised`. A tolerance refines the grid and then betters the layer, and the estimate
of the error has a part for each.
"""

import dataclasses
import time

import chex
import numpy as np

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import grids
from meta_lrpinn.reference.factorised import (
    FiniteDifferenceSolver,
    factorise,
    make_layer,
)

# The last level of the layer, which reaches 27 times as far as the first. A guard, not
# tuned: a tolerance that needs more is not reached.
_LARGEST_LEVEL = 3
# Errors of models with steps fall like h to this power: measured on half-spaces, a guide
# and a layer of one node, 3.5 to 1.8. The estimate is then 0.6 to 2.3 times the error.
_ORDER_AT_STEPS = 2.5
# Nodes side by side whose m differ by more than this factor hold a step. Not tuned: where
# it is too small, the estimates of smooth models are too high.
_STEP = 1.25


@dataclasses.dataclass(frozen=True)
class RefinedField:
    """δu of several sources by finite differences."""

    scattered: np.ndarray  # on the model's grid, (n_sources, nz, [ny,] nx), complex128
    evaluate: "GridField"  # points (n, ndim) [km] → (n_sources, n)
    unknowns: int
    history: tuple[dict, ...]  # a record for each grid
    # (n_sources,) Richardson's for the last grid plus the change by the better layer;
    # None without a tolerance
    error_estimates: np.ndarray | None
    converged: bool | None  # whether the tolerance was reached; likewise


@dataclasses.dataclass(frozen=True)
class GridField:
    """Fields of a grid as a function of points; can be pickled without factors."""

    solver: FiniteDifferenceSolver
    fields: tuple[np.ndarray, ...]  # δu of each source on the solver's own grid
    record: dict  # for the history

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        return np.stack([self.solver.interpolate(field, points) for field in self.fields])

    def on_model_grid(self) -> np.ndarray:
        """δu on the model's grid, (n_sources, nz, [ny,] nx)."""
        return np.stack([self.solver.on_model_grid(field) for field in self.fields])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """Which grids, in which layers; by default one grid, by the wavelength.

    With a tolerance the grid is refined, 1, 2, 3, ..., until δu on the model's grid
    changes by less than it, relative L2 of every source; then the layer is bettered until
    that changes δu by less than half of it.
    """

    refinement: int | None = None  # cells per cell of the model, of the first grid
    tolerance: float | None = None
    # Where refinement stops even if the tolerance is not met; `converged` is then False
    # and the estimates are above the tolerance.
    maximum_refinement: int = 8
    thickness: float | None = None  # of a layer of equal steps [km]; None: a graded one
    reflection: float | None = None  # amplitude that the layer reflects; see `make_layer`
    order: int = 4  # or 2

    def first_refinement(self, model: VelocityModel, frequency: float) -> int:
        """Cells of the first grid per cell of the model."""
        points = None
        if self.tolerance is not None:
            points = grids.FIRST_POINTS_PER_WAVELENGTH
        return self.refinement or grids.refinement_for(model, frequency, points)

    def check(self, model: VelocityModel, frequency: float) -> None:
        """Refuses, before anything is built, what `refined_field` could not begin.

        Raises:
            ValueError: if an option is out of its range, or the factors of the first grid
                would not fit into the machine's memory.
        """
        first = self.first_refinement(model, frequency)
        layer = make_layer(model, frequency, first, self.thickness, self.reflection)
        grids.check_size(model, frequency, first, layer)


def refined_field(
    model: VelocityModel,
    frequency: float,
    sources: np.ndarray,
    amplitude: complex,
    background_velocities: np.ndarray,
    scheme: Scheme,
    weights: np.ndarray | None = None,
) -> RefinedField:
    """Scattered wavefields by finite differences, in double precision on the host.

    The sources share one factorisation. In 3D its memory grows like n⁴ on a grid of n³
    nodes and its time like n⁶, layer included; what would not fit into the machine's
    memory is refused before anything is built.

    Args:
        model: Velocity model.
        frequency: f [Hz].
        sources: Sources (n_sources, ndim) [km], in the model.
        amplitude: A of the background field.
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        scheme: Grids and layers.
        weights: (n_sources,) of sources that are fired together, which have one field;
            by default each has its own.

    Raises:
        ValueError: if an argument is out of its range, or the factors would not fit into
            the machine's memory.
    """
    chex.assert_shape(sources, (len(background_velocities), model.ndim))
    started = time.perf_counter()
    first = scheme.first_refinement(model, frequency)
    smallest = model.minimum / (frequency * max(model.spacing))

    def solved(factor, level):
        options = first, scheme.thickness, scheme.reflection, level
        layer = make_layer(model, frequency, *options)
        solver = factorise(
            model, frequency, refinement=factor, layer=layer, order=scheme.order
        )
        if weights is None:
            pairs = zip(sources, background_velocities, strict=True)
            fields = [solver.solve(source, amplitude, v0) for source, v0 in pairs]
        else:
            shot = sources, weights, amplitude, background_velocities
            fields = [solver.solve_together(*shot)]
        record = {
            "refinement": factor,
            "layer": level,
            "points_per_wavelength": factor * smallest,
            "unknowns": solver.unknowns,
            "elapsed": time.perf_counter() - started,
        }
        return GridField(solver, tuple(fields), record)

    solution = solved(first, 0)
    history, errors, converged = [solution.record], None, None
    if scheme.tolerance is not None:
        solution, history, errors, converged = _refined(
            solved,
            solution,
            max(first + 1, scheme.maximum_refinement),
            scheme.tolerance,
            _order_of_errors(model, scheme.order),
        )
    solver = solution.solver.without_factors()
    return RefinedField(
        scattered=solution.on_model_grid(),
        evaluate=dataclasses.replace(solution, solver=solver),
        unknowns=solver.unknowns,
        history=tuple(history),
        error_estimates=errors,
        converged=converged,
    )


def _refined(solved, solution, last, tolerance, order):
    """Refines the grid, then betters the layer, until neither changes much.

    Args:
        solved: (refinement, level of the layer) → `GridField`.
        solution: The first one, at level 0.
        last: Largest refinement.
        tolerance: Largest change.
        order: Of the errors.

    Returns:
        The last solution, the history, the estimates (n_sources,), and whether the
        tolerance was reached.

    Raises:
        ValueError: not even a second grid fits into the machine's memory.
    """
    history, stopped = [solution.record], None
    errors = np.full(len(solution.fields), np.inf)
    for factor in range(solution.record["refinement"] + 1, last + 1):
        coarse, level = solution, solution.record["layer"]
        try:
            solution = solved(factor, level)
        except ValueError as error:
            if len(history) == 1:
                raise
            stopped = str(error)
            break
        change = _changes(solution, coarse)
        history.append({**solution.record, "change": float(change.max())})
        is_fine = change.max() < tolerance
        errors = change
        if not (is_fine or factor == last):
            continue
        # On the coarser grid, where a better layer costs least.
        while True:
            better = solved(factor - 1, level + 1)
            by_layer = _changes(better, coarse)
            history[-1]["layer_change"] = float(by_layer.max())
            coarse, level = better, level + 1
            if by_layer.max() < tolerance / 2 or level > _LARGEST_LEVEL:
                break
        if level > 1 + solution.record["layer"]:
            solution = solved(factor, level - 1)
            history.append({**solution.record, "change": float(change.max())})
        is_absorbed = by_layer.max() < tolerance / 2
        if is_fine and is_absorbed:
            richardson = change / ((factor / (factor - 1)) ** order - 1)
            history[-1] |= {"converged": True}
            return solution, history, richardson + by_layer, True
        errors = change + by_layer
        break
    # Neither Richardson's factor nor anything below the tolerance is to be trusted here.
    history[-1] |= {"converged": False} | ({} if stopped is None else {"reason": stopped})
    return solution, history, np.maximum(errors, (1 + 1e-9) * tolerance), False


def _order_of_errors(model: VelocityModel, scheme_order: int) -> float:
    """The power of the grid's step that the error falls with; steps lower it."""
    logarithm = np.log(np.abs(np.asarray(model.squared_slowness, complex)))
    jumps = [np.abs(np.diff(logarithm, axis=axis)).max() for axis in range(model.ndim)]
    has_steps = max(jumps) > np.log(_STEP)
    return min(scheme_order, _ORDER_AT_STEPS) if has_steps else scheme_order


def _changes(solution: GridField, previous: GridField) -> np.ndarray:
    """Relative change of each source's field, (n_sources,).

    A homogeneous model scatters nothing, which does not change.
    """
    pairs = zip(previous.on_model_grid(), solution.on_model_grid(), strict=True)
    return np.array([relative_l2(old, new) if np.any(new) else 0.0 for old, new in pairs])
