"""Approximate inverse of the weak form by finite differences on a coarse grid.

Waves that travel far see the whole model, and no model that is separable. What is left of
them is solved for on a grid of a few points per shortest wavelength, with the stencils of
`linear.stencils` and sparse factors, in the same absorbing layer as the plane waves:

    P = B⁻¹ Φᴴ L⁻¹ Ψᵀ Φ B⁻¹.

B is the mass matrix of the waves (a product over the axes), Φ their values on the grid,
Ψ its hat functions and L its operator. It need not resolve what varies between its points:
squared slowness is smoothed, and short waves are left to the separable inverse.
"""

import dataclasses
import math

import numpy as np
import scipy.ndimage
import scipy.sparse.linalg
import threadpoolctl

from meta_lrpinn.linear import interpolation, stencils
from meta_lrpinn.linear.lattice.operator import (
    Discretisation,
    WeakForm,
    contract,
    waves_at,
)
from meta_lrpinn.physics import absorbing

# Points per shortest wavelength.
POINTS = 5.0
# Standard deviation of the smoothing, in steps of the grid.
_SMOOTHING = 1 / 3


@dataclasses.dataclass(frozen=True)
class CoarseInverse:
    """P, for many right-hand sides."""

    there: tuple[np.ndarray, ...]  # (grid, waves) by axis, to loads
    back: tuple[np.ndarray, ...]  # (waves, grid) by axis, from the solution
    elimination: np.ndarray  # (unknowns,) their order in the factors
    factors: scipy.sparse.linalg.SuperLU

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """P times right-hand sides (c, *lattice.shape), complex."""
        loads = contract(columns.astype(np.complex64), self.there, first=1)
        shape = loads.shape
        loads = loads.reshape(len(loads), -1).T
        solution = np.empty_like(loads)
        with threadpoolctl.threadpool_limits(1):
            solution[self.elimination] = self.factors.solve(loads[self.elimination])
        solution = np.ascontiguousarray(solution.T).reshape(shape)
        return contract(solution, self.back, first=1).astype(columns.dtype)


def cells(discretisation: Discretisation, points: float = POINTS) -> tuple[int, ...]:
    """Cells of the grid along each axis of the box, coordinate order."""
    problem = discretisation.problem
    step = 2 * np.pi * problem.model.minimum / discretisation.omega / points
    sides = np.asarray(problem.layer.upper) - np.asarray(problem.layer.lower)
    return tuple(max(2, math.ceil(side / step)) for side in sides)


def grid_shape(discretisation: Discretisation) -> tuple[int, ...]:
    """Unknowns along each axis, coordinate order."""
    problem = discretisation.problem
    sides = np.asarray(problem.layer.upper) - np.asarray(problem.layer.lower)
    thickness = float(problem.layer.thickness)
    return tuple(
        count - 1 + 2 * math.ceil(thickness / side * count - 1e-9)
        for count, side in zip(cells(discretisation), sides, strict=True)
    )


def coarse_inverse(form: WeakForm) -> CoarseInverse:
    """Makes the grid and the factors of its operator.

    Args:
        form: The weak form that is to be inverted.

    Raises:
        ValueError: if memory has no room for the factors.
    """
    discretisation = form.discretisation
    problem, omega = discretisation.problem, discretisation.omega
    model = problem.model
    axes = [
        _grid_axis(discretisation, axis, count)
        for axis, count in enumerate(cells(discretisation))
    ]
    widths = [
        _SMOOTHING * own.step / step
        for own, step in zip(axes, model.spacing[::-1], strict=True)
    ]
    smooth = _smoothed(form.slowness, widths)

    def slowness_at(positions):
        values = smooth
        for axis, places in enumerate(positions):
            matrix = interpolation.along(model, model.ndim - 1 - axis, places)
            values = interpolation.applied(matrix, values, axis)
        return values

    operator = stencils.laplacian(axes)
    operator = operator + omega**2 * stencils.weighted_mass(
        slowness_at([axis.quadrature for axis in axes]), axes
    )
    wavenumber = omega * np.sqrt(slowness_at([axis.positions for axis in axes]))
    operator += stencils.dispersion_correction(axes, wavenumber)
    matrix = stencils.sparse_matrix(operator.astype(np.complex64))
    elimination = stencils.dissection(tuple(len(axis.positions) for axis in axes))
    there, back = zip(
        *(_transfer(discretisation, d, axis) for d, axis in enumerate(axes)), strict=True
    )
    return CoarseInverse(
        there=there,
        back=back,
        elimination=elimination,
        factors=stencils.factors(matrix[elimination][:, elimination].tocsc()),
    )


def _smoothed(slowness: np.ndarray, widths: list[float]) -> np.ndarray:
    def filtered(values):
        return scipy.ndimage.gaussian_filter(values, widths, mode="nearest", truncate=3.0)

    if np.iscomplexobj(slowness):
        return filtered(np.real(slowness)) + 1j * filtered(np.imag(slowness))
    return filtered(slowness)


def _grid_axis(discretisation: Discretisation, axis: int, count: int) -> stencils.Axis:
    """Grid lines of an axis: equal steps over the box, and as many as the layer takes."""
    layer = discretisation.problem.layer
    lower, upper = float(layer.lower[axis]), float(layer.upper[axis])
    thickness, step = float(layer.thickness), (upper - lower) / count
    margin = math.ceil(thickness / step - 1e-9)
    positions = lower + step * np.arange(-margin, count + margin + 1)
    stretched = positions.astype(complex)
    if margin:
        points = np.tile(np.asarray(layer.lower, float), (len(positions), 1))
        points[:, axis] = positions
        offset = absorbing.stretched_offset(layer, points, 0.0, discretisation.omega)
        stretched = offset[:, axis]
    return stencils.make_axis(positions, stretched, 4, step)


def _transfer(
    discretisation: Discretisation, axis: int, grid: stencils.Axis
) -> tuple[np.ndarray, np.ndarray]:
    """ΨᵀΦB⁻¹, (grid, waves), and B⁻¹Φᴴ, (waves, grid), of one axis."""
    problem, lattice = discretisation.problem, discretisation.lattice
    mass = discretisation.axes[axis].mass
    values = waves_at(problem, lattice, axis, grid.quadrature).T  # (points, waves)
    there = np.einsum("nq,nqm->nm", grid.test, values[grid.window])
    there = np.linalg.solve(mass.T, there.T).T
    step = np.gradient(grid.nodes)
    back = np.linalg.solve(
        mass, waves_at(problem, lattice, axis, grid.positions).conj() * step
    )
    return there.astype(np.complex64), back.astype(np.complex64)
