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


def dispersion_correction(axes: Sequence[Axis], wavenumber: np.ndarray) -> np.ndarray:
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

    total = k**4 * np.sum([steps[d] * product(d) for d in range(ndim)], axis=0)
    for d, e in itertools.combinations(range(ndim), 2):
        total -= 1.5 * k**2 * ((steps[d] + steps[e]) * product(d, e))
    if ndim == 3:
        total += sum(steps) * product(0, 1, 2)
    return -total


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
    """A part's own entries, and those beside lines already set apart around it."""
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

    own = line**2 + 2 * line * around
    return own + half(middle) + half(shape[axis] - middle - 1)


def factors(matrix: scipy.sparse.csc_array) -> scipy.sparse.linalg.SuperLU:
    """Sparse factors of a matrix that stands in the order of its elimination.

    Raises:
        ValueError: if memory has no room for them.
    """
    # The dense blocks are small: several BLAS threads bring nothing, and where other
    # work shares the cores they cost a factor of up to a hundred.
    with threadpoolctl.threadpool_limits(1):
        try:
            return scipy.sparse.linalg.splu(
                matrix,
                permc_spec="NATURAL",
                diag_pivot_thresh=1e-3,
                options={"SymmetricMode": True},
            )
        except (MemoryError, SystemError):
            unknowns = len(matrix.indptr) - 1
            raise ValueError(
                f"the sparse factors of {unknowns} unknowns do not fit into the memory "
                "that is free"
            ) from None
