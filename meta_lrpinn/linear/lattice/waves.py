"""Which plane waves a problem needs, and where its integrals are sampled.

A smooth model needs waves a little shorter than those that travel in it. What a rough one
scatters into shorter waves still follows from its spectrum. In the Born approximation
(Born and Wolf 1999, §13.1) the wave of wave vector q, scattered by m_q from a wave that is
much longer, is ω² m_q / (q² − k²); of these the share beyond the lattice is missing.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from flax import struct

from meta_lrpinn.linear.interpolation import ROUNDING, squared_slowness
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime import host
from meta_lrpinn.runtime.precision import Array

# Right-hand side, solution and search directions of so many waves take about 1 GiB.
_MAXIMUM_WAVES = 2_000_000
# Quadrature points per shortest wavelength, where neither cells nor steps ask for more. Not
# tuned; what they leave is part of the estimate.
_POINTS_PER_WAVELENGTH = 15
# The same over κ: products of two waves are twice as short as these.
_POINTS_PER_RATIO = 5
# The check has quadrature points at so many times the distance, and one in so many of the
# waves: experiments.calibration measures the estimate with these.
_CHECK_SPACING, _FEWER_WAVES = 1.25, 1.5
# Gauss points of an interval in the layer, where everything is smooth; not tuned.
_LAYER_GAUSS_POINTS = 6
# Largest ratio of velocities across a cell that 1, 2, 3 Gauss points integrate: m is
# then right to 2e-4 of what it is in the cell.
_CONTRASTS = (1.03, 1.2, 2.0)
# Wavenumber ratio of models that are not rough: errors near 0.2 % in 2D.
_DEFAULT = {2: 2.4, 3: 1.9}
# Share of the scattered field that the default may miss, as long as so many times the
# waves are enough: beyond that the estimate and a tolerance have to tell. In 2D a layer of
# 2 km/s and one node in 4 km/s needs four times for 0.5 %.
_DEFAULT_MISSING, _MORE_WAVES = {2: 0.003, 3: 0.01}, {2: 4.0, 3: 1.8}
# The same where there is a tolerance, the share being in parts of the tolerance.
_MISSING_OVER_TOLERANCE, _MOST_WAVES = 0.5, {2: 25.0, 3: 8.0}
_STEP = 0.1  # of the search for a ratio


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
    period = np.asarray(problem.size)
    sizes = np.floor(wavenumber_ratio * wavenumber * period / (2 * np.pi)).astype(int)
    extent = tuple(int(size) for size in np.maximum(sizes, 1))
    points = max(points_per_wavelength, _POINTS_PER_RATIO * wavenumber_ratio)
    spacing = 2 * np.pi / wavenumber / points
    steps = _step_points([problem.model.complex_velocity, *velocities])
    rules = quadrature_rules(problem, spacing, steps)
    coarser = quadrature_rules(problem, _CHECK_SPACING * spacing, steps, fewer=1)
    return Lattice(*zip(*rules, strict=True), *zip(*coarser, strict=True), extent=extent)


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
    number = np.prod(
        np.asarray(problem.size) * wavenumber_ratio * resolved_wavenumber(problem) / np.pi
    )
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
        # At least two: midpoints alone lose the exactness of the regular grid where the
        # layer's intervals begin.
        counts = np.maximum(np.ceil(np.diff(breaks) / spacing - 0.01).astype(int), 2)
        if len(counts) == len(contrasts[axis]):
            counts = np.maximum(counts, contrasts[axis])
        else:  # the layer begins inside the model or beyond it
            counts = np.maximum(counts, np.max(contrasts[axis]))
        edges = np.concatenate([before[:-1], breaks, after[1:]])
        layer = [np.full(len(part) - 1, _LAYER_GAUSS_POINTS) for part in (before, after)]
        counts = np.concatenate([layer[0], counts, layer[1]])
        rules.append(_composite(edges - lower[axis], counts))
    return rules


def _divided(start: float, end: float, longest: float) -> np.ndarray:
    """Edges of equal intervals between two positions; one edge where they coincide."""
    if not end > start:
        return np.array([start])
    return np.linspace(start, end, math.ceil((end - start) / longest) + 1)


def _step_points(velocities: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Gauss points that steps of any of the velocities need, by array axis, (cells,)."""
    logarithms = np.log([host.in_double(velocity) for velocity in velocities])
    counts = []
    for axis in range(1, logarithms.ndim):
        others = tuple(d for d in range(logarithms.ndim) if d != axis)
        largest = np.max(np.abs(np.diff(logarithms, axis=axis)), axis=others)
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


def default_wavenumber_ratio(problem: HelmholtzProblem) -> float:
    """Wavenumber ratio κ of a problem, larger for a rough model."""
    ndim = problem.ndim
    return _enough(problem, _DEFAULT[ndim], _DEFAULT_MISSING[ndim], _MORE_WAVES[ndim])


def wavenumber_ratio_for_tolerance(problem: HelmholtzProblem, tolerance: float) -> float:
    """Wavenumber ratio κ to begin with for a relative error; larger for a rough model."""
    # Measured on layered models.
    tolerances, ratios = [-4, -3, -2.5, -2, -1], [3.6, 2.8, 1.9, 1.5, 1.2]
    least = float(np.interp(np.log10(tolerance), tolerances, ratios))
    missing = _MISSING_OVER_TOLERANCE * tolerance
    return _enough(problem, least, missing, _MOST_WAVES[problem.ndim])


def _enough(
    problem: HelmholtzProblem, least: float, missing: float, more_waves: float
) -> float:
    """Smallest ratio from `least` on that misses so little, else the largest allowed."""
    most = least * more_waves ** (1 / problem.ndim)
    ratios = np.append(np.arange(least, most, _STEP), most)
    enough = missing_share(problem, ratios) <= missing
    return float(ratios[np.argmax(enough)] if np.any(enough) else most)


def wavenumber_ratio_for(problem: HelmholtzProblem, number: int) -> float:
    """Wavenumber ratio κ that gives about `number` plane waves (see `make_lattice`)."""
    volume = float(np.prod(np.asarray(problem.size)))
    return np.pi * (number / volume) ** (1 / problem.ndim) / resolved_wavenumber(problem)


def missing_share(problem: HelmholtzProblem, ratios: np.ndarray) -> np.ndarray:
    """Share of the scattered field beyond lattices, in the Born approximation.

    Args:
        problem: The problem, with concrete values.
        ratios: Wavenumber ratios κ (n,).

    Returns:
        (n,), of the relative L2 norm.
    """
    model, omega = problem.model, float(problem.omega)
    slowness = squared_slowness(model)
    contrast = np.abs(slowness - slowness.flat[0])
    if np.max(contrast) <= ROUNDING * np.max(np.abs(slowness)):
        return np.zeros(len(ratios))
    # Cosines: the even continuation of a model has no step at its edges.
    amplitude = np.asarray(scipy.fft.dctn(slowness, norm="ortho"))
    amplitude.flat[0] = 0.0
    axes = [
        np.pi * np.arange(count) / (count * step)
        for count, step in zip(model.shape, model.spacing, strict=True)
    ]
    mesh = np.meshgrid(*axes, indexing="ij")
    for q, step in zip(mesh, model.spacing, strict=True):
        amplitude *= np.sinc(q * step / (2 * np.pi)) ** 2  # linear between nodes
    wavenumber = np.sqrt(sum(q**2 for q in mesh))
    travelling = omega * np.sqrt(np.abs(np.mean(slowness)))
    power = np.abs(amplitude / np.maximum(wavenumber, travelling) ** 2) ** 2
    limits = np.asarray(ratios) * resolved_wavenumber(problem)
    largest = np.max(mesh, axis=0)
    beyond = [np.sum(power[largest > limit]) for limit in limits]
    return np.sqrt(np.array(beyond) / np.sum(power))
