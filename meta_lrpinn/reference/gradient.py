"""Finite-difference data as a function of the squared slowness, with their adjoint.

On one grid in one layer the discrete equation K(m) x = b(m) gives the data
d = R (x + u_s − u₀), with u_s the background of the squared slowness m_s at the source. The
adjoint state, Kᵀ λ = Rᵀ d̄, comes by the same factors, and

    Σ d̄ ∂d/∂m = λᵀ (∂b/∂m − ∂K/∂m x) + d̄ᵀ R ∂u_s/∂m,

each term as it stands in `factorised`: mass and source at the quadrature points, the
correction of the dispersion at the nodes, u_s by the velocity at the source.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy.ndimage
import scipy.special

from meta_lrpinn.linear import interpolation, stencils
from meta_lrpinn.linear.interpolation import squared_slowness_on
from meta_lrpinn.physics import absorbing, background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import grids
from meta_lrpinn.reference.factorised import FiniteDifferenceSolver, factorise, offsets
from meta_lrpinn.runtime import host


def data_function(
    grid: VelocityModel,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray,
    amplitude: complex,
    background_velocities: np.ndarray,
    *,
    refinement: int,
    layer: absorbing.AbsorbingLayer | grids.GradedLayer,
    order: int = 4,
) -> Callable[[jax.Array], jax.Array]:
    """Data on one grid, to be traced by JAX and differentiated in reverse.

    Args:
        grid: A model on the grid of the velocities.
        frequency: f [Hz].
        sources: Source positions (n_sources, ndim) [km].
        receivers: Receiver positions (n_receivers, ndim) [km].
        amplitude: A of the background field.
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        refinement: Cells per cell of the model.
        layer: The absorbing layer.
        order: Of the scheme, 4 or 2.

    Returns:
        Squared slowness at the model's nodes, (nz, nx) or (nz, ny, nx) [s²/km²] → δu
        (n_sources, n_receivers), complex. It runs on the host, under `jit` as well.
    """
    sources, receivers = np.asarray(sources, float), np.asarray(receivers, float)
    pairs = list(zip(sources, background_velocities, strict=True))

    def factorised(slowness):
        root, quality = np.sqrt(slowness), None
        if np.iscomplexobj(root):
            quality = -0.5 * np.real(root) / np.imag(root)
        model = VelocityModel(1 / np.real(root), grid.spacing, grid.origin, quality)
        options = {"refinement": refinement, "layer": layer, "order": order}
        return factorise(model, frequency, **options)

    def forward(solver):
        fields = np.stack([solver.solve(source, amplitude, v0) for source, v0 in pairs])
        return _at_receivers(fields, _sampling(solver, receivers)), fields

    def backward(solver, fields, cotangent):
        sampling = _sampling(solver, receivers)
        at_points = np.zeros(solver.squared_slowness.shape, complex)
        at_nodes = np.zeros(solver.shape, complex)
        total = np.zeros(grid.shape, complex)
        for (source, v0), field, row in zip(pairs, fields, cotangent, strict=True):
            spread = _spread(row, sampling)
            incident = _Incident(solver, source, amplitude)
            state = field - solver.shift(source, amplitude, incident.velocity, v0)
            adjoint = solver.inverted(spread, transposed=True)
            tested = stencils.project_transposed(adjoint, solver.axes)
            mass, correction = _of_operator(solver, adjoint, state)
            at_points += mass - solver.omega**2 * tested * incident.at_points
            at_nodes += correction
            total += incident.hats * (
                np.sum(tested * incident.load_slope)
                + np.sum(spread * incident.slope_at_nodes)
            )
        axes = solver.axes
        total += _to_model(grid, [axis.quadrature for axis in axes], at_points)
        return total + _to_model(grid, [axis.positions for axis in axes], at_nodes)

    shape = grids.grid_shape(grid, refinement, layer)
    shapes = (len(sources), len(receivers)), (len(sources), *shape)
    return host.differentiable(factorised, forward, backward, shapes)


class _Incident:
    """u_s of the velocity at a source, and how it changes with m_s, as arrays."""

    def __init__(self, solver: FiniteDifferenceSolver, source: np.ndarray, amplitude):
        position = source[::-1, None]
        slowness = squared_slowness_on(solver.model, position).item()
        self.velocity = slowness**-0.5
        # The share of each of the model's nodes in m_s.
        self.hats = stencils.outer(
            [
                interpolation.along(solver.model, axis, coordinate).toarray()[0]
                for axis, coordinate in enumerate(position)
            ]
        )
        wavenumber = solver.omega / self.velocity

        def with_slope(lines):  # u_s on a grid of lines, and its derivative by m_s
            offset = offsets(lines, source)
            field = background.point_source(offset, wavenumber, amplitude)
            smallest = background.SMALLEST_PHASE / abs(wavenumber)
            distance = background.distance_of(offset, smallest)
            by_wavenumber = -1j * distance * field
            if offset.shape[-1] == 2:
                phase = wavenumber * distance
                by_wavenumber = -amplitude * distance * scipy.special.hankel2(1, phase)
            return field, by_wavenumber * solver.omega * self.velocity / 2

        self.at_points, slope = with_slope([axis.stretched for axis in solver.axes])
        contrast = solver.squared_slowness - slowness
        self.load_slope = solver.omega**2 * (self.at_points - contrast * slope)
        _, self.slope_at_nodes = with_slope([axis.nodes for axis in solver.axes])


def _sampling(solver: FiniteDifferenceSolver, receivers: np.ndarray) -> list[np.ndarray]:
    """Weights of the nodes of each axis at each receiver, (n_receivers, n).

    Those of the cubic splines of `FiniteDifferenceSolver.interpolate`.
    """
    matrices = []
    numbers = solver.node_numbers(receivers)
    for axis, number in zip(solver.axes, numbers, strict=True):
        columns = [
            scipy.ndimage.map_coordinates(unit, [number], order=3, mode="nearest")
            for unit in np.eye(len(axis.positions))
        ]
        matrices.append(np.stack(columns, axis=1))
    return matrices


def _at_receivers(fields: np.ndarray, sampling: Sequence[np.ndarray]) -> np.ndarray:
    """Fields (c, n_1, …) at receivers, (c, r)."""
    values = np.einsum("cn...,rn->cr...", fields, sampling[0])
    for weights in sampling[1:]:
        values = np.einsum("crn...,rn->cr...", values, weights)
    return values


def _spread(row: np.ndarray, sampling: Sequence[np.ndarray]) -> np.ndarray:
    """The transpose of `_at_receivers` for one source, (r,) → (n_1, …)."""
    first, *others = sampling
    values = row[:, None] * first
    for weights in others:
        values = np.einsum("r...,rn->r...n", values, weights)
    return values.sum(axis=0)


def _of_operator(
    solver: FiniteDifferenceSolver, adjoint: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """−λᵀ ∂K/∂m x, at the quadrature points and at the nodes."""
    axes, factor, ndim = solver.axes, -(solver.omega**2), len(solver.axes)
    at_points = factor * stencils.weighted_mass_slope(adjoint, state, axes)
    if not solver.is_corrected:
        return at_points, np.zeros(solver.shape)
    slowness = squared_slowness_on(solver.model, [axis.positions for axis in axes])
    wavenumber = solver.omega * np.sqrt(slowness)
    slope = stencils.dispersion_correction(axes, wavenumber, slope=True)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(state, 1), (3,) * ndim)
    slope = slope.transpose(*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2))
    product = np.sum(slope * windows, axis=tuple(range(ndim, 2 * ndim)))
    return at_points, factor * adjoint * product


def _to_model(
    model: VelocityModel, positions: Sequence[np.ndarray], values: np.ndarray
) -> np.ndarray:
    """The transpose of the interpolation, to the nodes of the model."""
    for axis, coordinates in enumerate(positions):
        matrix = interpolation.along(model, axis, coordinates).T.tocsr()
        values = interpolation.applied(matrix, values, axis)
    return values
