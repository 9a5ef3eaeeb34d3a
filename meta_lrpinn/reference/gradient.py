"""Finite-difference data as a function of the squared slowness, with their adjoint.

On one grid in one layer the discrete equation K(m) x = b(m) gives the data
d = R (x + u_s − u₀), with u_s the background of the squared slowness m_s at the source. The
adjoint state, Kᵀ λ = Rᵀ d̄, comes by the same factors, and

    Σ d̄ ∂d/∂m = λᵀ (∂b/∂m − ∂K/∂m x) + d̄ᵀ R ∂u_s/∂m,

each term as it stands in `factorised`: mass and source at the quadrature points, the
correction of the dispersion at the nodes, u_s by the velocity at the source.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy.ndimage
import scipy.special
import threadpoolctl

from meta_lrpinn.linear import interpolation, stencils
from meta_lrpinn.linear.interpolation import squared_slowness_on
from meta_lrpinn.physics import absorbing, background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import grids
from meta_lrpinn.reference.factorised import FiniteDifferenceSolver, factorise
from meta_lrpinn.reference.grids import GradedLayer
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
    layer: absorbing.AbsorbingLayer | GradedLayer,
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
    states = _States(
        grid=grid,
        frequency=frequency,
        sources=np.asarray(sources, float),
        receivers=np.asarray(receivers, float),
        amplitude=amplitude,
        background_velocities=np.asarray(background_velocities),
        options={"refinement": refinement, "layer": layer, "order": order},
    )
    shapes = (len(sources), len(receivers)), (len(sources), *states.shape)
    return host.differentiable(states.forward, states.backward, shapes)


@dataclasses.dataclass(frozen=True)
class _States:
    """Wavefields and their adjoint states; arguments as of `data_function`."""

    grid: VelocityModel
    frequency: float
    sources: np.ndarray
    receivers: np.ndarray
    amplitude: complex
    background_velocities: np.ndarray
    options: dict
    latest: dict[bytes, FiniteDifferenceSolver] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the solver's own grid."""
        return grids.grid_shape(
            self.grid, self.options["refinement"], self.options["layer"]
        )

    def solver(self, slowness: np.ndarray) -> FiniteDifferenceSolver:
        """That of a squared slowness, kept: the adjoint of the same comes next."""
        key = slowness.tobytes()
        if key not in self.latest:
            self.latest.clear()
            root = np.sqrt(host.in_double(slowness))
            quality = None
            if np.iscomplexobj(root):
                quality = -0.5 * np.real(root) / np.imag(root)
            model = VelocityModel(
                1 / np.real(root), self.grid.spacing, self.grid.origin, quality
            )
            self.latest[key] = factorise(model, self.frequency, **self.options)
        return self.latest[key]

    def forward(self, slowness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Data (n_sources, n_receivers), and δu on the solver's grid (n_sources, …)."""
        solver = self.solver(slowness)
        pairs = zip(self.sources, self.background_velocities, strict=True)
        fields = np.stack([solver.solve(place, self.amplitude, v0) for place, v0 in pairs])
        return _contracted(fields, _sampling(solver, self.receivers)), fields

    def backward(
        self, slowness: np.ndarray, fields: np.ndarray, cotangent: np.ndarray
    ) -> np.ndarray:
        """Cotangent of the squared slowness, real where that is."""
        solver = self.solver(slowness)
        sampling = _sampling(solver, self.receivers)
        quadrature = np.zeros(solver.squared_slowness.shape, complex)
        nodes = np.zeros(solver.shape, complex)
        total = np.zeros(self.grid.shape, complex)
        for source, v0, field, row in zip(
            self.sources,
            self.background_velocities,
            host.in_double(fields),
            host.in_double(cotangent),
            strict=True,
        ):
            spread = _spread(row, sampling)
            own = _Background(solver, source, self.amplitude)
            state = field - solver.shift(source, self.amplitude, own.velocity, v0)
            adjoint = _transposed(solver, spread)
            tested = _tested(adjoint, solver.axes)
            at_points, at_nodes = _of_operator(solver, adjoint, state)
            quadrature += at_points - own.omega**2 * tested * own.at_points
            nodes += at_nodes
            total += own.hats * (
                np.sum(tested * own.load_slope) + np.sum(spread * own.slope_at_nodes)
            )
        model = solver.model
        total += _to_model(model, [axis.quadrature for axis in solver.axes], quadrature)
        total += _to_model(model, [axis.positions for axis in solver.axes], nodes)
        return total if np.iscomplexobj(slowness) else np.real(total)


class _Background:
    """u_s of the velocity at a source, and how it changes with m_s, as arrays."""

    def __init__(self, solver: FiniteDifferenceSolver, source: np.ndarray, amplitude):
        self.omega = 2 * np.pi * solver.frequency
        place = np.asarray(source, float)[::-1, None]
        slowness = squared_slowness_on(solver.model, place).item()
        self.velocity = slowness**-0.5
        # The share of each of the model's nodes in m_s.
        self.hats = stencils.outer(
            [
                interpolation.along(solver.model, axis, position).toarray()[0]
                for axis, position in enumerate(place)
            ]
        )
        options = self.omega, self.velocity, amplitude

        def both(axes_of):
            offsets = np.meshgrid(
                *(axes_of(a) - x for a, x in zip(solver.axes, place, strict=True)),
                indexing="ij",
            )
            return _with_slope(np.stack(offsets[::-1], axis=-1), *options)

        self.at_points, slope = both(lambda axis: axis.stretched)
        contrast = solver.squared_slowness - slowness
        self.load_slope = self.omega**2 * (self.at_points - contrast * slope)
        self.slope_at_nodes = both(lambda axis: axis.nodes)[1]


def _with_slope(
    offset: np.ndarray, omega: float, velocity: complex, amplitude: complex
) -> tuple[np.ndarray, np.ndarray]:
    """u_s at offsets (..., ndim) from its source, and its derivative by m_s, (...)."""
    wavenumber, ndim = omega / velocity, offset.shape[-1]
    field = background.point_source(offset, wavenumber, amplitude)
    distance = background.distance_of(offset, background.SMALLEST_PHASE / abs(wavenumber))
    by_wavenumber = -1j * distance * field
    if ndim == 2:
        phase = wavenumber * distance
        by_wavenumber = -amplitude * distance * scipy.special.hankel2(1, phase)
    return field, by_wavenumber * omega * velocity / 2


def _sampling(solver: FiniteDifferenceSolver, receivers: np.ndarray) -> list[np.ndarray]:
    """Weights of the nodes of each axis at each receiver, (n_receivers, n).

    Those of the cubic splines of `FiniteDifferenceSolver.interpolate`.
    """
    matrices = []
    for axis, margin, column in zip(
        solver.axes, solver.margins, receivers.T[::-1], strict=True
    ):
        place = (column - axis.positions[margin]) / axis.step + margin
        nodes = [
            scipy.ndimage.map_coordinates(one, [place], order=3, mode="nearest")
            for one in np.eye(len(axis.positions))
        ]
        matrices.append(np.stack(nodes, axis=1))
    return matrices


def _contracted(fields: np.ndarray, sampling: Sequence[np.ndarray]) -> np.ndarray:
    """Fields (c, n_1, …) at receivers, (c, r)."""
    values = np.einsum("cn...,rn->cr...", fields, sampling[0])
    for weights in sampling[1:]:
        values = np.einsum("crn...,rn->cr...", values, weights)
    return values


def _spread(row: np.ndarray, sampling: Sequence[np.ndarray]) -> np.ndarray:
    """The transpose of `_contracted` for one source, (r,) → (n_1, …)."""
    first, *others = sampling
    values = row[:, None] * first
    for weights in others:
        values = np.einsum("r...,rn->r...n", values, weights)
    return values.sum(axis=0)


def _transposed(solver: FiniteDifferenceSolver, spread: np.ndarray) -> np.ndarray:
    """λ of Kᵀ λ = spread, of the solver's shape."""
    assert solver.factors is not None
    adjoint, order = np.empty(solver.unknowns, complex), solver.elimination
    with threadpoolctl.threadpool_limits(1):
        adjoint[order] = solver.factors.solve(spread.ravel()[order], trans="T")
    return adjoint.reshape(solver.shape)


def _scattered(values: np.ndarray, axes: Sequence[stencils.Axis]) -> np.ndarray:
    """Sums what nodes give their quadrature points, (n_1, 4, …) → (q_1, …)."""
    for axis in axes:
        points = np.zeros((len(axis.quadrature), *values.shape[2:]), complex)
        for column, window in enumerate(axis.window.T):
            points[window] += values[:, column]  # a node is in no column twice
        values = np.moveaxis(points, 0, -1)
    return values


def _tested(adjoint: np.ndarray, axes: Sequence[stencils.Axis]) -> np.ndarray:
    """Σ_n λ_n φ_n with its weight at the quadrature points, (q_1, …)."""
    for axis in axes:
        tests = axis.test[(..., *(None,) * (adjoint.ndim - 1))]
        adjoint = _scattered(tests * adjoint[:, None], [axis])
    return adjoint


def _of_operator(
    solver: FiniteDifferenceSolver, adjoint: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """−λᵀ ∂K/∂m x, at the quadrature points and at the nodes."""
    axes, omega = solver.axes, 2 * np.pi * solver.frequency
    ndim = len(axes)
    values = state
    for axis in axes:
        padded = np.pad(values, [(1, 1)] + [(0, 0)] * (values.ndim - 1))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=0)
        values = np.einsum("nqj,n...j->...nq", axis.trial, windows)
    tests = stencils.outer([axis.test for axis in axes])
    at_points = adjoint[(slice(None), None) * ndim] * tests * values
    at_points = -(omega**2) * _scattered(at_points, axes)
    if not solver.is_corrected:
        return at_points, np.zeros(solver.shape)
    # A polynomial of second degree in k², whose slope is therefore a difference.
    slowness = squared_slowness_on(solver.model, [axis.positions for axis in axes])
    wavenumber = omega * np.sqrt(slowness)
    slope = stencils.dispersion_correction(axes, np.sqrt(2) * wavenumber)
    slope = slope - stencils.dispersion_correction(axes, 0 * wavenumber)
    slope /= 2 * wavenumber[(slice(None), None) * ndim] ** 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(state, 1), (3,) * ndim)
    slope = slope.transpose(*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2))
    product = np.sum(slope * windows, axis=tuple(range(ndim, 2 * ndim)))
    return at_points, -(omega**2) * adjoint * product


def _to_model(
    model: VelocityModel, positions: Sequence[np.ndarray], values: np.ndarray
) -> np.ndarray:
    """The transpose of the interpolation, to the nodes of the model."""
    for axis, places in enumerate(positions):
        matrix = interpolation.along(model, axis, places).T.tocsr()
        values = interpolation.applied(matrix, values, axis)
    return values
