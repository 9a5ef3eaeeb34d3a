"""The lattice of plane waves, its box and its quadrature: sizes, checked before arrays.

The box holds the model and its layer in a whole number of quadrature cells, and the
model's nodes lie on faces of cells, so that Gauss's rule never meets the kinks of a
velocity that is multilinear between its nodes: a sharp step is integrated as it is, not
as samples of it.
"""

import dataclasses
import math
from functools import partial

import chex
import jax
import numpy as np
import scipy.fft

from meta_lrpinn.physics import absorbing
from meta_lrpinn.problem import HelmholtzProblem

# Quadrature points per shortest wavelength, two in a cell.
_POINTS_PER_WAVELENGTH = 15
# Cells so fine, over the shortest wavelength, need one point each: a step within one is
# then off by a tenth of a cell at most. Finer ones are taken together.
_ONE_POINT, _FINEST = 60, 100
# Waves up to this wavenumber ratio are always solved for directly: with fewer the
# iterations become many.
_LEAST_DENSE = 1.1
# Iterations expected, and how much faster factors go than FFTs, per operation.
_ITERATIONS, _FACTOR_SPEED = 10, 10
# A field in a model much smaller than a wavelength varies over the model: so much of the
# model's size then counts as the wavelength. Measured for wavelengths of 2.5 to 12.5 times
# the model: 0.05 %, where 1 gives 0.5 %.
_LONG_WAVE = 0.7
# The second solution that the estimate of the error is from, over the first.
_CHECK_RATIO, _CHECK_THICKNESS, _CHECK_DAMPING = 0.8, 0.8, 0.85
# The matrix of this many waves takes 2.3 GiB, and its factors as much again.
_MAXIMUM_DENSE = 12_000
# The directions of the iterations take 1.5 KiB a wave, the weights 0.2 KiB a point.
_MAXIMUM_WAVES = 1_000_000
_MAXIMUM_POINTS = 8_000_000


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["indices", "lower", "period", "check"],
    meta_fields=["dense", "extent", "cells", "points"],
)
@dataclasses.dataclass(frozen=True)
class Lattice:
    """Plane waves exp(i k·(x − lower)) on the reciprocal lattice of a box."""

    indices: jax.Array  # (N, ndim) int, k = 2π indices / period, longest waves first
    lower: jax.Array  # (ndim,) km, first corner of the box
    period: jax.Array  # (ndim,) km, size of the box
    dense: int  # n, how many of the waves are solved for directly
    extent: tuple[int, ...]  # (ndim,) largest index along each axis
    cells: tuple[int, ...]  # (ndim,) quadrature cells, coordinate order
    points: int  # Gauss points in a cell along each axis
    check: "Check | None" = None  # what to compare a solution with

    @property
    def number(self) -> int:
        """Number of plane waves N."""
        return self.indices.shape[0]


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Check:
    """Another layer and a smaller lattice for it: a second solution to compare with."""

    layer: absorbing.AbsorbingLayer
    envelope_velocity: jax.Array  # () km/s
    lattice: Lattice


def shortest_wavelength(problem: HelmholtzProblem) -> float:
    """Wavelength that a lattice has to resolve, km, of a concrete problem.

    That of the slowest velocity, or 0.7 of the model's size where that is smaller.
    """
    extent = np.asarray(problem.model.upper) - np.asarray(problem.model.lower)
    size = float(np.exp(np.mean(np.log(extent))))
    wavelength = 2 * np.pi * problem.model.minimum / float(problem.omega)
    return min(wavelength, _LONG_WAVE * size)


def make_lattice(
    problem: HelmholtzProblem,
    wavenumber_ratio: float = 2.4,
    points_per_wavelength: float = _POINTS_PER_WAVELENGTH,
    dense: float | None = None,
    sources: int = 1,
    check: bool = True,
) -> Lattice:
    """Lattice that resolves every wave of a problem.

    Args:
        problem: The problem, with concrete values.
        wavenumber_ratio: κ, largest wavenumber over that of the shortest wavelength.
            Below 1 the field is not resolved; the error falls fast from there.
        points_per_wavelength: Quadrature points per shortest wavelength; never fewer
            than one in a cell of the model, nor than the waves need.
        dense: Wavenumber ratio of the waves that are solved for directly; default: 1.1,
            or all where so many sources make a larger matrix the cheaper way.
        sources: Number of sources that will be solved for together.
        check: Whether `solve` shall estimate the error by a second solution.

    Returns:
        The lattice: about A (κ/λ)² π waves in 2D, A the area with the layer, and
        V (κ/λ)³ 4π/3 in 3D.

    Raises:
        ValueError: the wavenumber ratio is not positive, or the lattice would be too
            large, which is found before any array of its size is made.
    """
    if not wavenumber_ratio > 0:
        raise ValueError(f"wavenumber ratio must be positive, got {wavenumber_ratio}")
    wavelength = shortest_wavelength(problem)
    _check_number(problem, wavenumber_ratio / wavelength)
    # Differences of two waves reach twice the largest wavenumber, hence the second bound.
    cells_per_wavelength = max(points_per_wavelength / 2, 4 * wavenumber_ratio + 1)
    lower, period, cells, points = _box(problem, wavelength, cells_per_wavelength)
    largest = 2 * np.pi * wavenumber_ratio / wavelength
    extent = np.floor(largest * period / (2 * np.pi)).astype(int)
    axes = [np.arange(-size, size + 1) for size in extent]
    indices = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1)
    norm = np.linalg.norm(2 * np.pi * indices / period, axis=-1)
    inside = np.flatnonzero(norm <= largest)
    # Longest waves first, so that a smaller lattice is a leading block.
    order = inside[np.argsort(norm[inside], kind="stable")]
    number = {
        ratio: int(np.sum(norm[order] <= ratio * largest / wavenumber_ratio))
        for ratio in (_LEAST_DENSE, wavenumber_ratio, dense or 0.0)
    }
    if dense is None:
        iterating = _ITERATIONS * sources * 2 * (problem.ndim + 1)
        transform = 5 * math.prod(cells) * math.log2(math.prod(cells))
        factoring = 8 / 3 * len(order) ** 3 / _FACTOR_SPEED
        everything = factoring < iterating * transform and len(order) <= _MAXIMUM_DENSE
        dense = wavenumber_ratio if everything else _LEAST_DENSE
    if number[dense] > _MAXIMUM_DENSE:
        raise ValueError(_too_large(problem, number[dense], "long plane waves"))
    return Lattice(
        indices=indices[order].astype(np.int32),
        lower=lower,
        period=period,
        dense=number[dense],
        extent=tuple(int(size) for size in extent),
        cells=cells,
        points=points,
        check=_make_check(problem, wavenumber_ratio, points_per_wavelength, sources)
        if check
        else None,
    )


def _make_check(
    problem: HelmholtzProblem, ratio: float, points_per_wavelength: float, sources: int
) -> Check:
    """All that can be wrong made worse: waves, quadrature, and both depths of the layer."""
    layer = problem.layer
    layer = layer.replace(
        thickness=_CHECK_THICKNESS * layer.thickness,
        strength=_CHECK_DAMPING / _CHECK_THICKNESS * layer.strength,
    )
    lattice = make_lattice(
        problem.replace(layer=layer),
        _CHECK_RATIO * ratio,
        _CHECK_RATIO * points_per_wavelength,
        sources=sources,
        check=False,
    )
    # The envelope decays as much at the edge of its layer as the other at that of its own.
    velocity = np.asarray(_CHECK_DAMPING * problem.envelope_velocity)
    return Check(layer=layer, envelope_velocity=velocity, lattice=lattice)


def wavenumber_ratio_for_tolerance(tolerance: float) -> float:
    """Margin κ to begin with for a relative error; measured on layered models."""
    return float(np.interp(np.log10(tolerance), [-3, -2.5, -2, -1], [2.8, 1.9, 1.5, 1.2]))


def wavenumber_ratio_for(problem: HelmholtzProblem, number: int) -> float:
    """Margin κ that gives about `number` plane waves (see `make_lattice`)."""
    density = number / _waves_per_unit_ratio(problem)
    return density ** (1 / problem.ndim) * shortest_wavelength(problem)


def _waves_per_unit_ratio(problem: HelmholtzProblem) -> float:
    """Plane waves with |k| ≤ 2π/km, by area or volume of the model with its layer."""
    size = np.asarray(problem.upper) - np.asarray(problem.lower)
    return float(np.prod(size)) * {2: np.pi, 3: 4 * np.pi / 3}[problem.ndim]


def _check_number(problem: HelmholtzProblem, largest: float) -> None:
    """Raise if there are too many waves up to `largest`, 1/km; floats may overflow."""
    with np.errstate(over="ignore"):
        number = _waves_per_unit_ratio(problem) * np.float64(largest) ** problem.ndim
    if not number <= _MAXIMUM_WAVES:
        raise ValueError(_too_large(problem, number, "plane waves"))


def _too_large(problem: HelmholtzProblem, number: float, what: str) -> str:
    extent = np.asarray(problem.model.upper) - np.asarray(problem.model.lower)
    size = " x ".join(f"{length:.4g}" for length in extent)
    frequency = float(problem.omega) / (2 * np.pi)
    return (
        f"a model of {size} km at {frequency:.4g} Hz needs {number:.3g} {what}, too many: "
        "is the spacing in metres? Otherwise take a smaller model, a lower frequency or "
        "a looser tolerance"
    )


def _box(
    problem: HelmholtzProblem, wavelength: float, cells_per_wavelength: float
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], int]:
    """First corner (ndim,), size (ndim,), cells (ndim,) and Gauss points in a cell."""
    spacing = np.asarray(problem.model.spacing[::-1])
    finest = wavelength / _FINEST
    if np.all(spacing < finest):
        width = spacing * np.floor(finest / spacing)
    else:
        width = spacing / np.ceil(spacing * cells_per_wavelength / wavelength)
    points = 1 if np.all(width <= wavelength / _ONE_POINT) else 2
    lower, upper = np.asarray(problem.model.lower), np.asarray(problem.model.upper)
    with np.errstate(over="ignore"):
        within = np.ceil((upper - lower) / width - 1e-6)
        # The layer's thickness, up to rounding: its outer edge matters to nothing.
        beside = np.ceil((lower - np.asarray(problem.lower)) / width - 1e-6)
        total = np.prod(points * (within + 2 * beside))
    if not total <= _MAXIMUM_POINTS:
        raise ValueError(_too_large(problem, total, "quadrature points"))
    cells, margins = [], []
    for inner, margin in zip(within.astype(int), beside.astype(int), strict=True):
        while scipy.fft.next_fast_len(int(inner + 2 * margin)) != inner + 2 * margin:
            margin += 1
        cells.append(int(inner + 2 * margin))
        margins.append(margin)
    return lower - margins * width, width * cells, tuple(cells), points
