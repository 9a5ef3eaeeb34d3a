"""Weights of all plane waves, the wavefields they give, and what these are worth.

The system is solved by generalised conjugate residuals, preconditioned by the inverse for
the nearest separable model. Where that model is too far from the true one, iterations
stall in the waves that travel; from then on each iteration applies an approximate inverse
by finite differences on a coarse grid as well.
"""

import dataclasses
import functools
import math
import warnings

import chex
import numpy as np
from flax import struct

from meta_lrpinn.linear import residuals, stencils
from meta_lrpinn.linear.interpolation import squared_slowness
from meta_lrpinn.linear.lattice.operator import (
    Discretisation,
    WeakForm,
    discretise,
    evaluate_on_grid,
    right_hand_sides,
    weak_form,
)
from meta_lrpinn.linear.lattice.preconditioners import (
    CoarseInverse,
    coarse_inverse,
    grid_shape,
    separable_inverse,
)
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import machine_memory

# The second solution iterates to so many times the residual in a layer of this fraction of
# the strength; its waves and quadrature are those of `Lattice.for_check`. Calibrated with
# the factor of the estimate below.
_CHECK_RESIDUAL, _CHECK_STRENGTH = 2.0, 0.55
RESIDUAL = 2.5e-4  # below the error of the layer, some 0.3 %
# Error over the change between the two solutions, calibrated by experiments.calibration.
_ERROR_OVER_CHANGE = 0.52
# Iterations at most, in all. A guard: with the coarse grid 20 are rarely needed.
_MOST = 300
# Error over what one more correction changes, where iterations ended early: as if it
# removed half of the error. A guard, not tuned.
_ERROR_OVER_REST = 2.0
# Residual over that of the recurrence, by rounding. A guard, not tuned.
_ROUNDED = 1.01
# Iterations without the coarse grid that those with it, and no factors, are worth. Measured
# (one source, processor time): an iteration with it takes 6.3 times as long as one without
# on the layered model at 5 Hz, 2.9, 2.6 and 2.3 times on whole Marmousi at 5, 10 and 20 Hz,
# 16 times on 41³ nodes at 5 Hz; iterations to the end are 3 instead of 6, 6 instead of 28,
# 8 and 15 instead of over 120, 2 instead of 3. So 17 to 34 break even. With 12 Marmousi
# takes 0.08, 0.46 and 3.1 s; with the grid from the first iteration 0.12, 0.55 and 3.8 s.
_FEWEST = 12
# Part of the machine's memory that factors may take; bytes of an entry in single precision
# with its index, and some to spare. Guards, not tuned.
_MEMORY_SHARE, _BYTES_PER_ENTRY = 0.3, 16


@dataclasses.dataclass(frozen=True)
class System:
    """K of one velocity with all that solves it; the parts are made when needed."""

    form: WeakForm

    @functools.cached_property
    def separable(self):
        """The separable inverse."""
        return separable_inverse(self.form)

    @functools.cached_property
    def coarse(self) -> CoarseInverse:
        """The inverse on the coarse grid."""
        return coarse_inverse(self.form)

    def smoothed(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Changes by the separable inverse, and their images."""
        change = self.separable(columns)
        return change, self.form.product(change)

    def corrected(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Changes by the separable inverse and then the coarse grid, and their images."""
        change, image = self.smoothed(columns)
        rest = self.coarse(columns - image)
        image += self.form.product(rest)
        change += rest
        return change, image

    @functools.cached_property
    def patience(self) -> float:
        """Iterations without the coarse grid that its factors are worth."""
        return _patience(self.form.discretisation)

    def solve(self, columns: np.ndarray, tolerance: float) -> residuals.Iterate:
        """K⁻¹ of right-hand sides (c, *lattice.shape).

        Args:
            columns: Right-hand sides, complex.
            tolerance: Residual over the right-hand side at which iterations end.

        Returns:
            The iterate, its residual over the norm of the right-hand side.
        """
        size = residuals.norm(columns)
        scale = np.where(size > 0, size, 1).reshape(-1, *(1,) * (columns.ndim - 1))
        rest = columns / scale  # so that no product of small numbers is lost
        iterate = residuals.solve(
            self.smoothed,
            residuals.Iterate(np.zeros_like(rest), rest, 0),
            tolerance,
            _MOST,
            functools.partial(_is_hopeless, tolerance=tolerance, patience=self.patience),
        )
        if residuals.norm(iterate.residual).max(initial=0) > tolerance:
            most = _MOST - iterate.iterations
            iterate = residuals.solve(self.strongest, iterate, tolerance, most)
        return iterate._replace(solution=iterate.solution * scale)

    @property
    def strongest(self) -> residuals.Improve:
        """`corrected`, where there can be a coarse grid, else `smoothed`."""
        return self.corrected if np.isfinite(self.patience) else self.smoothed

    def correction(self, columns: np.ndarray) -> np.ndarray:
        """About K⁻¹ of what iterations have left."""
        return self.strongest(columns)[0]


def _is_hopeless(norms: list[float], tolerance: float, patience: float) -> bool:
    """Whether over `patience` iterations are to come, at the rate of the last three."""
    if len(norms) < 4:
        return False
    rate = (norms[-1] / norms[-4]) ** (1 / 3)
    if rate >= 1:
        return np.isfinite(patience)
    return np.log(tolerance / norms[-1]) / np.log(rate) > patience


def _patience(discretisation: Discretisation) -> float:
    """Iterations without the coarse grid before it pays; infinite where it cannot be."""
    if float(discretisation.problem.layer.thickness) == 0:
        return math.inf  # the waves are periodic then, the grid is not
    shape = grid_shape(discretisation)
    if math.prod(shape) > 1e7:
        return math.inf
    entries = stencils.factor_entries(shape)
    if entries * _BYTES_PER_ENTRY > _MEMORY_SHARE * machine_memory():
        return math.inf
    lattice = discretisation.lattice
    grid = math.prod(lattice.product_shape)
    iteration = 10 * grid * np.log2(grid) + 40 * lattice.number * sum(lattice.shape)
    # Measured, factors take as long as so many iterations: 36 on the layered model (17 by
    # this rule, small arrays being slow), 13, 12 and 12 on Marmousi at 5, 10 and 20 Hz (10,
    # 13 and 11), 648 on 41³ nodes (704).
    factor, power = {2: (200.0, 0.25), 3: (10.0, 0.5)}[len(shape)]
    factoring = entries * factor * math.prod(shape) ** power
    return _FEWEST + factoring / iteration


class Solution(struct.PyTreeNode):
    """Output weights, the wavefields they give, and what these are worth."""

    weights: np.ndarray  # (n_sources, *lattice.shape) complex
    fields: np.ndarray  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    error_estimate: np.ndarray  # (n_sources,) relative L2 on the grid
    residual: np.ndarray  # (n_sources,) what the iterations left, over the right-hand side
    iterations: int  # of the solution, for the source that took the most
    converged: np.ndarray  # (n_sources,) whether both solutions reached their residual


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Two discretisations, of a solution and its check, for any velocity of a grid."""

    main: Discretisation
    check: Discretisation

    def solve(
        self,
        model: VelocityModel,
        sources: np.ndarray,
        background_velocities: np.ndarray,
        tolerance: float = RESIDUAL,
        weights: np.ndarray | None = None,
    ) -> Solution:
        """Wavefields of several sources on the model's grid, and how far to trust them.

        Every source is solved for a second time with every source of error made larger:
        without the shortest third of the waves, on fewer quadrature points, in a weaker
        layer, and with a larger residual. A part of the change is the estimate.

        Args:
            model: Velocity on the grid of the problem's.
            sources: Source positions (n_sources, ndim) [km].
            background_velocities: v₀ of each source, (n_sources,) [km/s].
            tolerance: Relative residual at which iterations end.
            weights: (n_sources,) of sources that are fired together, which have one
                wavefield; by default each has its own.

        Returns:
            The solution; a warning is given where iterations end above their residual.
        """
        chex.assert_shape(sources, (len(background_velocities), model.ndim))
        case = squared_slowness(model), sources, background_velocities, weights
        solution = _solved(self.main, *case, tolerance)
        other = _solved(self.check, *case, _CHECK_RESIDUAL * tolerance)
        change = _relative(self.main, other.fields - solution.fields, solution.fields)
        return solution.replace(
            error_estimate=np.maximum(_ERROR_OVER_CHANGE * change, solution.error_estimate),
            converged=solution.converged & other.converged,
        )


def _solved(
    discretisation: Discretisation,
    slowness: np.ndarray,
    sources: np.ndarray,
    background_velocities: np.ndarray,
    weights: np.ndarray | None,
    tolerance: float,
) -> Solution:
    """One of the two; its estimate is of what the iterations have left."""
    problem, lattice = discretisation.problem, discretisation.lattice
    system = System(weak_form(discretisation, slowness))
    rhs = right_hand_sides(system.form, sources, background_velocities, weights)
    iterate = system.solve(rhs, tolerance)
    left = rhs - system.form.product(iterate.solution)
    size = residuals.norm(rhs)
    residual = residuals.norm(left) / np.where(size > 0, size, 1)
    fields = evaluate_on_grid(problem, lattice, iterate.solution)
    is_left = residual > _ROUNDED * tolerance
    correction = np.zeros_like(fields)  # what one more iteration would add
    if np.any(is_left):
        change = system.correction(left[is_left])
        correction[is_left] = evaluate_on_grid(problem, lattice, change)
        warnings.warn(
            f"iterations ended at a residual of {residual.max():.2g}, not {tolerance:.2g}",
            stacklevel=2,
        )
    return Solution(
        weights=iterate.solution,
        fields=fields,
        error_estimate=_ERROR_OVER_REST * _relative(discretisation, correction, fields),
        residual=residual,
        iterations=iterate.iterations,
        converged=~is_left,
    )


def _relative(
    discretisation: Discretisation, changes: np.ndarray, fields: np.ndarray
) -> np.ndarray:
    """Relative L2 norm of changes of fields on the grid, (n_sources,)."""
    problem = discretisation.problem
    # A homogeneous model scatters rounding errors, of which no fraction is asked.
    floor = 1e3 * np.finfo(float).eps * abs(complex(problem.amplitude))
    if problem.ndim == 3:  # u₀ is A e^{−ikr}/r
        floor *= discretisation.omega / problem.model.minimum
    return np.sqrt(_energy(changes) / (_energy(fields) + floor**2))


def _energy(fields: np.ndarray) -> np.ndarray:
    """Mean square over the grid, (n_sources,)."""
    return np.mean(np.abs(fields) ** 2, axis=tuple(range(1, fields.ndim)))


def prepare(problem: HelmholtzProblem, lattice: Lattice) -> Prepared:
    """What depends on neither velocity nor source, of a problem and a lattice."""
    layer = problem.layer
    layer = layer.replace(strength=_CHECK_STRENGTH * np.asarray(layer.strength))
    return Prepared(
        main=discretise(problem, lattice),
        check=discretise(problem.replace(layer=layer), lattice.for_check()),
    )


def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: np.ndarray,
    background_velocities: np.ndarray,
    tolerance: float = RESIDUAL,
) -> Solution:
    """`Prepared.solve` of a problem's own velocity; its own source is not used."""
    prepared = prepare(problem, lattice)
    return prepared.solve(problem.model, sources, background_velocities, tolerance)
