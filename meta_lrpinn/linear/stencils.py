"""Compact finite-difference stencils over grids whose lines stand at complex positions.

Along one axis, with φ the hat function of a node, integration by parts gives exactly

    ∫ φ u″ dx̃ = (u₊ − u)/h₊ − (u − u₋)/h₋,

and ∫ φ g dx̃ is a three-point sum where g is interpolated by a parabola (Numerov 1924:
h/12, 10h/12, h/12). Tensor products of the two make a scheme of 9 points in 2D and 27
in 3D and of fourth order, as compact as a second-order one, which keeps the fill of the
sparse factors small. On unequal steps the order stays, as long as the positions are a
smooth function of the node's number.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import threadpoolctl

ORDERS = (2, 4)
_GAUSS_POINTS = 2  # exact for cubics, as a hat function times a parabola is
# A pivot is taken from the diagonal unless it is smaller than this part of its column,
# which keeps the order of elimination. On a part of Marmousi at 6 Hz (10,416 unknowns) the
# factors have 0.63 million entries and leave 1e-13; with 0.1 they have 0.73 million and
# leave 2e-14, with 1 they have 1.8 million, and with 0 they leave 1e-12.
_PIVOT = 1e-3


@dataclasses.dataclass(frozen=True)
class Axis:
    """One grid axis: n unknown nodes, a fixed zero at either end, q = 2n + 2 points."""

    step: float  # km, within the model
    nodes: np.ndarray  # (n,) km, complex, x̃ of the unknowns
    positions: np.ndarray  # (n,) km, real
    quadrature: np.ndarray  # (q,) km, real
    stretched: np.ndarray  # (q,) km, complex, x̃ of the quadrature points
    window: np.ndarray  # (n, 4) which quadrature points the hat function of a node sees
    test: np.ndarray  # (n, 4) their weights times the hat function [km]
    trial: np.ndarray  # (n, 4, 3) parabolas of the three nodes at these points
    second: np.ndarray  # (n, 3) ∫ φ u″ [1/km]
    mass: np.ndarray  # (n, 3) ∫ φ u [km]


def make_axis(
    positions: np.ndarray, stretched: np.ndarray, order: int, interval: float
) -> Axis:
    """Operators along one axis.

    Args:
        positions: Real node positions, (n + 2,) [km]; where the velocity is looked up.
        stretched: Complex node positions, (n + 2,) [km].
        order: 4 or 2.
        interval: Step within the model [km].
    """
    step = np.diff(stretched)
    before, after = step[:-1, None], step[1:, None]
    points, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
    points, weights = (points + 1) / 2, weights / 2

    def inside_cells(nodes):
        return (nodes[:-1, None] + np.diff(nodes)[:, None] * points).ravel()

    offset = np.concatenate([-before * (1 - points), after * points], axis=1)
    test = np.concatenate(
        [before * points * weights, after * (1 - points) * weights], axis=1
    )
    trial = np.stack(
        [
            offset * (offset - after) / (before * (before + after)),
            (offset + before) * (after - offset) / (before * after),
            offset * (offset + before) / (after * (before + after)),
        ],
        axis=-1,
    )
    if order == 2:
        trial = np.zeros_like(trial)
        trial[..., 1] = 1.0
    second = np.concatenate([1 / before, -1 / before - 1 / after, 1 / after], axis=1)
    count = len(positions) - 2
    window = _GAUSS_POINTS * np.arange(count)[:, None] + np.arange(2 * _GAUSS_POINTS)
    return Axis(
        step=interval,
        nodes=stretched[1:-1],
        positions=positions[1:-1],
        quadrature=inside_cells(positions),
        stretched=inside_cells(stretched),
        window=window,
        test=test,
        trial=trial,
        second=second,
        mass=np.einsum("nq,nqj->nj", test, trial),
    )


def project(values: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """∫ φ_i f from f at all quadrature points, (q_1, ..., q_d) → (n_1, ..., n_d)."""
    for axis in axes:
        values = np.einsum("nq,nq...->...n", axis.test, values[axis.window])
    return values


def weighted_mass(values: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """∫ φ_i f u as stencils, (q_1, ..., q_d) → (n_1, 3, ..., n_d, 3)."""
    for axis in axes:
        weights = axis.test[..., None] * axis.trial
        values = np.einsum("nqj,nq...->...nj", weights, values[axis.window])
    return values


def project_transposed(values: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Transpose of `project`, (n_1, ..., n_d) → (q_1, ..., q_d)."""
    for axis in axes:
        tests = axis.test[(..., *(None,) * (values.ndim - 1))]
        values = _summed(tests * values[:, None], axis)
    return values


def weighted_mass_slope(
    adjoint: np.ndarray, values: np.ndarray, axes: Sequence[Axis]
) -> np.ndarray:
    """Derivative of Σ_i λ_i ∫ φ_i f u by f, from λ and u at the nodes, (q_1, ..., q_d)."""
    for axis in axes:
        padded = np.pad(values, [(1, 1)] + [(0, 0)] * (values.ndim - 1))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=0)
        values = np.einsum("nqj,n...j->...nq", axis.trial, windows)
    tests = outer([axis.test for axis in axes])
    values = adjoint[(slice(None), None) * len(axes)] * tests * values
    for axis in axes:
        values = _summed(values, axis)
    return values


def _summed(values: np.ndarray, axis: Axis) -> np.ndarray:
    """Sums of what nodes give their quadrature points, (n, 4, ...) → (..., q)."""
    points = np.zeros((len(axis.quadrature), *values.shape[2:]), complex)
    for column, window in enumerate(axis.window.T):
        points[window] += values[:, column]  # a node is in no column twice
    return np.moveaxis(points, 0, -1)


def outer(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Outer product of several arrays."""
    return functools.reduce(np.multiply.outer, factors)


def laplacian(axes: Sequence[Axis]) -> np.ndarray:
    """∫ φ_i Δu as stencils, (n_1, 3, ..., n_d, 3)."""
    terms = [
        outer([axis.second if d == e else axis.mass for e, axis in enumerate(axes)])
        for d in range(len(axes))
    ]
    return np.sum(terms, axis=0)


def dispersion_correction(
    axes: Sequence[Axis], wavenumber: np.ndarray, *, slope: bool = False
) -> np.ndarray:
    """Leading phase error of the fourth-order scheme, as stencils to be added.

    In a homogeneous medium the scheme solves Δu + k²u = Σ_d (h_d⁴/240) ∂_d⁶ u + ….
    With Σ k_d² = k² the sixth derivatives become products of second ones, which the
    same 9 or 27 points hold (in the way of Singer and Turkel 1998):

        Σ h_d⁴ k_d⁶ = k⁴ Σ h_d⁴ k_d² − (3/2) k² Σ_{d<e} (h_d⁴ + h_e⁴) k_d² k_e²
                      + (Σ h_d⁴) k_x² k_y² k_z²,

    exact for equal spacings. Where k varies this is of fourth order all the same and
    smaller; measured, it divides the error by 2 to 6.

    Args:
        axes: The axes.
        wavenumber: k at the nodes, (n_1, ..., n_d) [rad/km].
        slope: Whether the derivative by k² is wanted instead.

    Returns:
        Stencils (n_1, 3, ..., n_d, 3).
    """
    ndim = len(axes)
    steps = [axis.step**4 / 240 for axis in axes]
    k = wavenumber[(slice(None), None) * ndim]

    def product(*chosen):  # Π k_d² over the chosen axes, as a stencil
        return (-1) ** len(chosen) * outer(
            [axis.second if d in chosen else axis.mass for d, axis in enumerate(axes)]
        )

    square = np.sum([steps[d] * product(d) for d in range(ndim)], axis=0)
    linear = np.sum(
        [
            1.5 * (steps[d] + steps[e]) * product(d, e)
            for d, e in itertools.combinations(range(ndim), 2)
        ],
        axis=0,
    )
    if slope:
        return linear - 2 * k**2 * square
    constant = sum(steps) * product(0, 1, 2) if ndim == 3 else 0.0
    return k**2 * linear - k**4 * square - constant


def helmholtz(
    axes: Sequence[Axis],
    omega: float,
    at_points: np.ndarray,
    at_nodes: np.ndarray | None,
) -> np.ndarray:
    """∫ φ_i (Δu + ω² m u) as stencils, (n_1, 3, ..., n_d, 3).

    Args:
        axes: The axes.
        omega: ω [rad/s].
        at_points: m at the quadrature points, (q_1, ..., q_d) [s²/km²].
        at_nodes: m at the nodes, (n_1, ..., n_d), for the correction of the dispersion;
            None for none.
    """
    operator = laplacian(axes)
    operator = operator + omega**2 * weighted_mass(at_points, axes)
    if at_nodes is not None:
        operator += dispersion_correction(axes, omega * np.sqrt(at_nodes))
    return operator


def sparse_matrix(stencils: np.ndarray) -> scipy.sparse.csc_array:
    """Matrix of stencils (n_1, 3, ..., n_d, 3); neighbours past the edge are zero."""
    shape = stencils.shape[::2]
    ndim = len(shape)
    stencils = stencils.transpose(*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2))
    index = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    padded = np.pad(index, 1, constant_values=-1)
    columns = np.lib.stride_tricks.sliding_window_view(padded, (3,) * ndim)
    rows = np.broadcast_to(index.reshape(shape + (1,) * ndim), columns.shape)
    exists = columns >= 0
    return scipy.sparse.csc_array(
        (stencils[exists], (rows[exists], columns[exists])), shape=(index.size,) * 2
    )


def dissection(shape: tuple[int, ...]) -> np.ndarray:
    """Nested dissection of a grid: both halves first, the line between them last."""
    known: dict[tuple[int, ...], np.ndarray] = {}  # few shapes, each met many times

    def order(shape):
        if shape not in known:
            known[shape] = ordered(shape)
        return known[shape]

    def ordered(shape):
        index = np.arange(np.prod(shape)).reshape(shape)
        if max(shape) <= 4:
            return index.ravel()
        axis = int(np.argmax(shape))
        middle = shape[axis] // 2
        left, line, right = np.split(index, [middle, middle + 1], axis=axis)
        return np.concatenate(
            [
                left.ravel()[order(left.shape)],
                right.ravel()[order(right.shape)],
                line.ravel(),
            ]
        )

    return ordered(shape)


def factor_entries(shape: tuple[int, ...]) -> float:
    """Entries of both sparse factors by nested dissection, estimated from the shape."""
    return _entries(tuple(int(n) for n in shape), (0,) * len(shape))


@functools.lru_cache(maxsize=65536)
def _entries(shape: tuple[int, ...], exposed: tuple[float, ...]) -> float:
    """Entries of a part, those beside lines already set apart around it included."""
    unknowns = float(np.prod(shape, dtype=float))
    around = sum(
        faces * unknowns / length for faces, length in zip(exposed, shape, strict=True)
    )
    if max(shape) <= 4:
        return unknowns**2 + 2 * unknowns * around
    axis = int(np.argmax(shape))
    middle = shape[axis] // 2
    line = unknowns / shape[axis]

    def half(length):
        part = shape[:axis] + (length,) + shape[axis + 1 :]
        faces = 1 + exposed[axis] / 2  # the line's, and on average half of the others
        return _entries(part, exposed[:axis] + (faces,) + exposed[axis + 1 :])

    of_line = line**2 + 2 * line * around
    return of_line + half(middle) + half(shape[axis] - middle - 1)


@dataclasses.dataclass(frozen=True)
class Inverse:
    """Inverse of a matrix of stencils, by its sparse factors."""

    elimination: np.ndarray  # (unknowns,) their order in the factors
    factors: scipy.sparse.linalg.SuperLU

    def __call__(self, columns: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solutions for right-hand sides (unknowns, ...), by the transpose if asked for."""
        solution = np.empty_like(columns)
        # The dense blocks are small: several BLAS threads bring nothing, and where other
        # work shares the cores they cost a factor of up to a hundred.
        with threadpoolctl.threadpool_limits(1):
            solution[self.elimination] = self.factors.solve(
                columns[self.elimination], trans="T" if transposed else "N"
            )
        return solution


def inverse(stencils: np.ndarray) -> Inverse:
    """Factorises the matrix of stencils (n_1, 3, ..., n_d, 3), in their precision.

    Raises:
        ValueError: if memory has no room for the factors.
    """
    matrix = sparse_matrix(stencils)
    elimination = dissection(stencils.shape[::2])
    matrix = matrix[elimination][:, elimination].tocsc()
    with threadpoolctl.threadpool_limits(1):
        try:
            factors = scipy.sparse.linalg.splu(
                matrix,
                permc_spec="NATURAL",
                diag_pivot_thresh=_PIVOT,
                options={"SymmetricMode": True},
            )
        except (MemoryError, SystemError):
            raise ValueError(
                f"the sparse factors of {len(elimination)} unknowns do not fit into the "
                "memory that is free"
            ) from None
    return Inverse(elimination, factors)
