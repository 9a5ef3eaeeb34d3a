"""Which plane waves a problem needs, and where its integrals are sampled."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from flax import struct

from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import Array

# Right-hand side, solution and search directions of so many waves take about 1 GiB.
_MAXIMUM_WAVES = 2_000_000
# Quadrature points per shortest wavelength, where neither cells nor steps ask for more.
_POINTS_PER_WAVELENGTH = 15
# The same over κ: products of two waves are twice as short as these.
_POINTS_PER_RATIO = 5
# Distance of the quadrature points of the check, over that of the solution.
_CHECK_SPACING = 1.25
# The check has one in so many of the waves.
_FEWER_WAVES = 1.5
# Gauss points of an interval in the layer, where everything is smooth.
_LAYER_GAUSS_POINTS = 6
# Largest ratio of velocities across a cell that 1, 2, 3 Gauss points integrate: m is
# then right to 2e-4 of what it is in the cell.
_CONTRASTS = (1.03, 1.2, 2.0)


class Lattice(struct.PyTreeNode):
    """Plane waves exp(i k·(x − lower)), k = 2π index / period, of a box of indices."""

    nodes: tuple[Array, ...]  # quadrature points by axis, km from lower
    node_weights: tuple[Array, ...]  # their weights [km]
    check_nodes: tuple[Array, ...]  # those of another, coarser rule
    check_weights: tuple[Array, ...]
    # (ndim,) largest index along each axis
    extent: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of waves along each axis, coordinate order."""
        return tuple(2 * size + 1 for size in self.extent)

    @property
    def number(self) -> int:
        """Number of plane waves N."""
        return math.prod(self.shape)

    def modes(self, axis: int) -> np.ndarray:
        """Indices along one axis, in the order of the weights."""
        return np.arange(-self.extent[axis], self.extent[axis] + 1)

    @property
    def indices(self) -> np.ndarray:
        """Indices of all waves, (N, ndim) int, in the order of raveled weights."""
        modes = [self.modes(axis) for axis in range(len(self.extent))]
        return np.stack(np.meshgrid(*modes, indexing="ij"), -1).reshape(self.number, -1)

    @property
    def quadrature_shape(self) -> tuple[int, ...]:
        """Quadrature points along each axis, coordinate order."""
        return tuple(len(axis) for axis in self.nodes)

    @property
    def product_shape(self) -> tuple[int, ...]:
        """FFT lengths that hold all differences of two waves, twice the extent."""
        lengths = (scipy.fft.next_fast_len(4 * size + 1) for size in self.extent)
        return tuple(lengths)  # pyright: ignore[reportReturnType], as SciPy has no types

    def for_check(self) -> "Lattice":
        """Without the shortest waves, on the coarser quadrature."""
        return self.replace(
            nodes=self.check_nodes,
            node_weights=self.check_weights,
            extent=_fewer(self.extent),
        )


def _fewer(extent: Sequence[int]) -> tuple[int, ...]:
    """Extent of the box of the check."""
    part = _FEWER_WAVES ** (-1 / len(extent))
    return tuple(max(1, round(part * size)) for size in extent)


def period_of(problem: HelmholtzProblem) -> Array:
    """Size of the model with its layer, (ndim,) [km]: the period of the lattice."""
    return problem.upper - problem.lower


def make_lattice(
    problem: HelmholtzProblem,
    wavenumber_ratio: float = 2.4,
    points_per_wavelength: float = _POINTS_PER_WAVELENGTH,
    velocities: Sequence[np.ndarray] = (),
) -> Lattice:
    """Lattice that resolves every wave of a problem.

    Args:
        problem: The problem, with concrete values.
        wavenumber_ratio: κ, largest wavenumber along each axis over that to be resolved,
            ω/v_min of the slowest wave (in a model smaller than that, of its size). Below
            1 the field is not resolved; the error falls fast from there.
        points_per_wavelength: Quadrature points per wavelength of the slowest wave, at
            least; a large κ, cells of the model and steps within them may ask for more.
        velocities: Others on the grid of the model [km/s], whose steps the quadrature is to
            integrate as well.

    Returns:
        The lattice: about V (κ ω/π v_min)^ndim waves, V the area or volume with the layer.

    Raises:
        ValueError: if the wavenumber ratio is not positive, or the waves are too many.
    """
    if not wavenumber_ratio > 0:
        raise ValueError(f"wavenumber ratio must be positive, got {wavenumber_ratio}")
    _check_size(problem, wavenumber_ratio)
    wavenumber = resolved_wavenumber(problem)
    period = np.asarray(period_of(problem))
    sizes = np.floor(wavenumber_ratio * wavenumber * period / (2 * np.pi)).astype(int)
    extent = tuple(int(size) for size in np.maximum(sizes, 1))
    points = max(points_per_wavelength, _POINTS_PER_RATIO * wavenumber_ratio)
    spacing = 2 * np.pi / wavenumber / points
    steps = _step_points([problem.model.complex_velocity, *velocities])
    nodes, weights = zip(*quadrature_rules(problem, spacing, steps), strict=True)
    coarser = quadrature_rules(problem, _CHECK_SPACING * spacing, steps, fewer=1)
    check_nodes, check_weights = zip(*coarser, strict=True)
    return Lattice(
        nodes=nodes,
        node_weights=weights,
        check_nodes=check_nodes,
        check_weights=check_weights,
        extent=extent,
    )


def resolved_wavenumber(problem: HelmholtzProblem) -> float:
    """Wavenumber that κ multiplies (see `absorbing.resolved_wavenumber`) [rad/km]."""
    return absorbing.resolved_wavenumber(
        problem.model.lower,
        problem.model.upper,
        float(problem.omega),
        problem.model.minimum,
    )


def _check_size(problem: HelmholtzProblem, wavenumber_ratio: float) -> None:
    """Refuses a lattice that no memory holds, before any array of it is made."""
    size = np.asarray(problem.upper, float) - np.asarray(problem.lower, float)
    number = np.prod(size * wavenumber_ratio * resolved_wavenumber(problem) / np.pi)
    if not number <= _MAXIMUM_WAVES:
        model = problem.model
        extent = " x ".join(f"{side:.4g}" for side in model.upper - model.lower)
        wavelength = 2 * np.pi * model.minimum / float(problem.omega)
        raise ValueError(
            f"a model of {extent} km with waves of {wavelength:.4g} km needs "
            f"{number:.3g} plane waves, more than {_MAXIMUM_WAVES:,}; choose a smaller "
            "window or a lower frequency (is the spacing in metres?)"
        )


def quadrature_rules(
    problem: HelmholtzProblem,
    spacing: float,
    steps: Sequence[np.ndarray],
    fewer: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Composite Gauss rules along each axis, for coefficients of the model between nodes.

    The squared slowness is multilinear between the nodes of the model. An interval of
    the rule is therefore a cell of the model, or a part of the layer; nothing in it has a
    kink, and what a step does to the wavefield does not depend on where samples lie.

    Args:
        problem: The problem, with concrete values.
        spacing: Distance of points that the waves need [km].
        steps: Points that steps need, see `_step_points`.
        fewer: Points left out in cells with a step.

    Returns:
        For each axis, coordinate order, points (G,), km from `problem.lower`, and their
        weights (G,) [km].
    """
    contrasts = [np.maximum(count - fewer, 1) for count in steps[::-1]]
    lower, upper = np.asarray(problem.lower), np.asarray(problem.upper)
    box = np.asarray(problem.layer.lower), np.asarray(problem.layer.upper)
    rules = []
    for axis, step in enumerate(problem.model.spacing[::-1]):
        inside = problem.model.axes()[::-1][axis]
        first, last = (corner[axis] for corner in box)
        inside = inside[(inside > first + 0.01 * step) & (inside < last - 0.01 * step)]
        breaks = np.concatenate([[first], inside, [last]])
        before = _divided(lower[axis], first, _LAYER_GAUSS_POINTS * spacing)
        after = _divided(last, upper[axis], _LAYER_GAUSS_POINTS * spacing)
        counts = _points_in_cells(np.diff(breaks), spacing)
        if len(counts) == len(contrasts[axis]):
            counts = np.maximum(counts, contrasts[axis])
        else:  # the layer begins inside the model or beyond it
            counts = np.maximum(counts, np.max(contrasts[axis]))
        edges = np.concatenate([before[:-1], breaks, after[1:]])
        layer = [np.full(len(part) - 1, _LAYER_GAUSS_POINTS) for part in (before, after)]
        counts = np.concatenate([layer[0], counts, layer[1]])
        points, weights = _composite(edges - lower[axis], counts)
        rules.append((points, weights))
    return rules


def _divided(start: float, end: float, longest: float) -> np.ndarray:
    """Edges of equal intervals between two positions; one edge where they coincide."""
    if not end > start:
        return np.array([start])
    return np.linspace(start, end, math.ceil((end - start) / longest) + 1)


def _points_in_cells(lengths: np.ndarray, spacing: float) -> np.ndarray:
    """Gauss points that waves need in cells (c,), at least two: midpoints alone lose the
    exactness of the regular grid where the layer's intervals begin."""
    return np.maximum(np.ceil(lengths / spacing - 0.01).astype(int), 2)


def _step_points(velocities: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Gauss points that steps of any of the velocities need, by array axis, (cells,)."""
    # In double precision, complex where there is attenuation.
    arrays = [np.asarray(velocity) for velocity in velocities]
    logarithms = [np.log(array.astype(np.result_type(array, float))) for array in arrays]
    counts = []
    for axis in range(logarithms[0].ndim):
        others = tuple(d for d in range(logarithms[0].ndim) if d != axis)
        largest = np.max(
            [
                np.max(np.abs(np.diff(logarithm, axis=axis)), axis=others)
                for logarithm in logarithms
            ],
            axis=0,
        )
        counts.append(1 + np.searchsorted(np.log(_CONTRASTS), largest))
    return counts


def _composite(edges: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, weights = [], []
    for start, length, count in zip(edges[:-1], np.diff(edges), counts, strict=True):
        x, w = _gauss(int(count))
        points.append(start + length * x)
        weights.append(length * w)
    return np.concatenate(points), np.concatenate(weights)


@functools.lru_cache
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre points and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, w / 2
