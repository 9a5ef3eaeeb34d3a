"""Reference wavefields by compact finite differences, to a tolerance.

The scheme is in `stencils`, its grid and absorbing layer in `grids`, the operator in
`factorised`. A tolerance refines the grid and then betters the layer, and the estimate
of the error has a part for each.
"""

import dataclasses
import time

import numpy as np

from meta_lrpinn.linear import stencils
from meta_lrpinn.linear.interpolation import squared_slowness_on
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic, grids
from meta_lrpinn.reference.factorised import (
    FiniteDifferenceSolver,
    check_arguments,
    factorise,
    make_layer,
)
from meta_lrpinn.wavefield import Statistics, Wavefield

# Where bettering the layer ends: it then reaches 27 times as far as the first.
_LARGEST_LEVEL = 3
# Errors of models with steps fall like h to this power: measured on half-spaces, a guide
# and a layer of one node, 3.5 to 1.8. The estimate is then 0.6 to 2.3 times the error.
_ORDER_AT_STEPS = 2.5
# A change of m from node to node that is a step, over the smaller.
_STEP = 1.25


def reference_wavefield(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    *,
    amplitude: complex | None = None,
    background_velocity: float | np.ndarray | None = None,
    refinement: int | None = None,
    tolerance: float | None = None,
    maximum_refinement: int = 8,
    thickness: float | None = None,
    reflection: float | None = None,
    scheme_order: int = 4,
) -> Wavefield:
    """Scattered wavefield by finite differences, in double precision on the host.

    Several sources share one factorisation. In 3D its memory grows like n⁴ on a grid of
    n³ nodes and its time like n⁶, layer included; what would not fit into the machine's
    memory is refused before anything is built.

    Args:
        model: Velocity model.
        frequency: f [Hz].
        source: Source (ndim,) or sources (n_sources, ndim) [km].
        amplitude: A of the background field; by default i/4 in 2D and −1/(4π) in 3D,
            which makes u the fundamental solution.
        background_velocity: v₀ [km/s], one or one per source; by default the velocity
            at the source.
        refinement: Cells per cell of the model; by default from the wavelength.
        tolerance: Where given, the grid is refined, 1, 2, 3, ... (from `refinement`,
            if that is given too), until δu on the model grid changes by less than
            this, relative L2 of every source; then the layer is bettered until that
            changes δu by less than half of it.
        maximum_refinement: Where refinement stops even if the tolerance is not met;
            `converged` is then False and `error_estimate` above the tolerance.
        thickness: Thickness of a layer of equal steps [km]; by default the layer is
            graded, by geometry and wavelength. Where a tolerance decides, the first.
        reflection: Amplitude that the layer reflects; see `factorise`.
        scheme_order: 4 or 2.

    Returns:
        The wavefield, complex128; `history` has a record for each grid. Given a
        tolerance, `error_estimates` are Richardson's for the last grid plus the change
        by the better layer.

    Raises:
        ValueError: if an argument is out of its range, a source lies outside the model, or
            the factors would not fit into the machine's memory.
    """
    started = time.perf_counter()
    check_arguments(frequency, refinement, thickness, scheme_order, tolerance)
    sources, amplitude, velocities = _sources(model, source, amplitude, background_velocity)
    points = None if tolerance is None else grids.FIRST_POINTS_PER_WAVELENGTH
    first = refinement or grids.refinement_for(model, frequency, points)
    smallest = model.minimum / (frequency * max(model.spacing))

    def solved(factor, level):
        layer = make_layer(model, frequency, first, thickness, reflection, level)
        solver = factorise(
            model, frequency, refinement=factor, layer=layer, order=scheme_order
        )
        pairs = zip(sources, velocities, strict=True)
        fields = [solver.solve(place, amplitude, v0) for place, v0 in pairs]
        record = {
            "refinement": factor,
            "layer": level,
            "points_per_wavelength": factor * smallest,
            "unknowns": solver.unknowns,
            "elapsed": time.perf_counter() - started,
        }
        return _Solution(solver, fields, record)

    solution = solved(first, 0)
    history, errors, converged = [solution.record], None, None
    if tolerance is not None:
        solution, history, errors, converged = _refined(
            solved,
            solution,
            max(first + 1, maximum_refinement),
            tolerance,
            _order_of_errors(model, scheme_order),
        )
    own = 0 if np.ndim(source) == 1 else slice(None)
    return Wavefield(
        model=model,
        frequency=float(frequency),
        source=np.asarray(source, float),
        scattered=solution.on_model_grid()[own],
        background=background_on_grid(
            model, frequency, source, amplitude, background_velocity
        ),
        amplitude=amplitude,
        background_velocity=velocities[own],
        solver="finite_differences",
        settings=None,
        elapsed=time.perf_counter() - started,
        history=tuple(history),
        error_estimates=None if errors is None else errors.reshape(np.shape(source)[:-1]),
        converged=converged,
        stats=Statistics(unknowns=solution.solver.unknowns),
        evaluate=_GridField(solution.solver.without_factors(), tuple(solution.fields)),
    )


@dataclasses.dataclass(frozen=True)
class _GridField:
    """Fields of a grid as a function of points; can be pickled."""

    solver: FiniteDifferenceSolver
    fields: tuple[np.ndarray, ...]  # δu of each source on the solver's own grid

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        return np.stack([self.solver.interpolate(field, points) for field in self.fields])


@dataclasses.dataclass(frozen=True)
class _Solution:
    """Fields of all sources on one grid with one layer."""

    solver: FiniteDifferenceSolver
    fields: list[np.ndarray]  # δu of each source on the solver's own grid
    record: dict  # for the history

    def on_model_grid(self) -> np.ndarray:
        return np.stack([self.solver.on_model_grid(field) for field in self.fields])


def _refined(solved, solution, last, tolerance, order):
    """Refines the grid, then betters the layer, until neither changes much.

    Args:
        solved: (refinement, level of the layer) → `_Solution`.
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


def _changes(solution: _Solution, previous: _Solution) -> np.ndarray:
    """Relative change of each source's field, (n_sources,).

    A homogeneous model scatters nothing, which does not change.
    """
    return np.array(
        [
            relative_l2(before, now) if np.any(now) else 0.0
            for before, now in zip(
                previous.on_model_grid(), solution.on_model_grid(), strict=True
            )
        ]
    )


def background_on_grid(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    amplitude: complex | None = None,
    background_velocity: float | np.ndarray | None = None,
) -> np.ndarray:
    """Background wavefield u₀ on the model's grid, in double precision.

    Args:
        model: Velocity model.
        frequency: f [Hz].
        source: Source (ndim,) or sources (n_sources, ndim) [km].
        amplitude: A; by default that of the fundamental solution.
        background_velocity: v₀ [km/s]; by default the velocity at the source.

    Returns:
        Complex ([n_sources,] nz, [ny,] nx). At a source that is a grid node, where u₀
        is infinite, its value at a billionth of 1/k.

    Raises:
        ValueError: if an argument is out of its range, or a source outside the model.
    """
    check_arguments(frequency, None, None, stencils.ORDERS[0])
    sources, amplitude, velocities = _sources(model, source, amplitude, background_velocity)
    points = model.grid_points()
    fields = [
        analytic.point_source(points - place, 2 * np.pi * frequency / v0, amplitude)
        for place, v0 in zip(sources, velocities, strict=True)
    ]
    fields = np.reshape(fields, (len(fields), *model.shape))
    return fields[0] if np.ndim(source) == 1 else fields


def _sources(
    model: VelocityModel,
    source: np.ndarray,
    amplitude: complex | None,
    background_velocity: float | np.ndarray | None,
) -> tuple[np.ndarray, complex, np.ndarray]:
    """Sources (n_sources, ndim), amplitude and v₀ (n_sources,), all checked."""
    model.check_contains(source)
    sources = np.atleast_2d(np.asarray(source, float))
    if len(sources) == 0:
        raise ValueError("at least one source is needed")
    if amplitude is None:
        amplitude = background.default_amplitude(model.ndim)
    if background_velocity is None:
        velocities = np.array(
            [
                squared_slowness_on(model, place[::-1, None]).item() ** -0.5
                for place in sources
            ]
        )
    else:
        velocities = np.asarray(background_velocity)
        velocities = velocities.astype(np.result_type(velocities.dtype, float))
        if velocities.shape not in ((), (len(sources),)):
            raise ValueError(
                "background velocity must be one number or one per source, got shape "
                f"{velocities.shape}"
            )
        velocities = np.broadcast_to(velocities, (len(sources),))
    if not np.all(np.isfinite(velocities) & (np.real(velocities) > 0)):
        raise ValueError(
            f"background velocity must be positive, got {background_velocity} km/s"
        )
    return sources, complex(amplitude), velocities
