"""Matrix, product and right-hand side of the weak form in plane waves, and evaluation.

All weights but the slowness are products over the axes, of the stretching and the
envelope. With a(q), b(q) the coefficients of e²/s and s e² along one axis,

    K = Σ_d −A_d ⊗ Π_{e≠d} B_e + M,     A = Toeplitz form of ∂φ* ∂φ/s,  B = that of s φ* φ,

and M holds the coefficients of ω² m S e² at k_i − k_j. Integrals are sums over the
tensor grid of `Lattice.nodes`, one axis at a time, by matrix products. Weights are arrays
over the box of waves, `Lattice.shape`, with the source as their first axis.

All of it is NumPy and SciPy on the host: nothing is compiled, whatever the shapes.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import chex
import numpy as np
import scipy.fft
import scipy.sparse

from meta_lrpinn.linear import interpolation
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics import absorbing, background
from meta_lrpinn.physics.problem import HelmholtzProblem

# Complex numbers that are transformed, or integrated over, in one piece: 32 MB.
_TOGETHER = 2**21


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis: G quadrature points, n waves, a model of N nodes."""

    interpolation: scipy.sparse.csr_array  # (G, N), of the squared slowness
    stretched: np.ndarray  # (G,) x̃ of the points [km], complex
    envelope: np.ndarray  # (G,) e
    weights: np.ndarray  # (G,) s times the weight of a point [km], complex
    waves: np.ndarray  # (n, G) e exp(iqx), complex
    stiffness: np.ndarray  # (n, n) ∫ ∂φ_i* ∂φ_j / s dx [1/km]
    mass: np.ndarray  # (n, n) ∫ s φ_i* φ_j dx [km]
    kernel: np.ndarray  # (product length, N), of the product with s e² m, see `WeakForm`

    @property
    def tests(self) -> np.ndarray:
        """φ_i* s times the weight of a point, (n, G) [km]."""
        return self.waves.conj() * self.weights


@dataclasses.dataclass(frozen=True)
class Discretisation:
    """What depends on neither the velocity of a problem nor on its source."""

    problem: HelmholtzProblem
    lattice: Lattice
    axes: tuple[Axis, ...]  # in coordinate order

    @property
    def omega(self) -> float:
        """ω [rad/s]."""
        return float(self.problem.omega)


def discretise(problem: HelmholtzProblem, lattice: Lattice) -> Discretisation:
    """Waves, their integrals and the interpolation along each axis."""
    axes = tuple(_axis_of(problem, lattice, d) for d in range(problem.ndim))
    return Discretisation(problem=problem, lattice=lattice, axes=axes)


def along(problem: HelmholtzProblem, axis: int, coordinates: np.ndarray) -> np.ndarray:
    """Points (G, ndim) with coordinates (G,) on one axis, at the box's corner on others.

    Stretching and envelope of the other axes are one there.
    """
    points = np.tile(np.asarray(problem.layer.lower, float), (len(coordinates), 1))
    points[:, axis] = coordinates
    return points


def phases(
    problem: HelmholtzProblem, axis: int, modes: np.ndarray, coordinates: np.ndarray
) -> np.ndarray:
    """exp(i q (x − lower)) of modes (n,) at coordinates (G,), (n, G)."""
    period, lower = float(problem.size[axis]), float(problem.lower[axis])
    angle = 2 * np.pi / period * (np.asarray(coordinates, float) - lower)
    # Mode step · a + b from two tables of √n rows each: n G exponentials would take longer
    # than all that follows.
    size = np.abs(modes)
    step = math.isqrt(int(np.max(size, initial=0))) + 1
    fine = np.exp(1j * np.outer(np.arange(step), angle))
    coarse = np.exp(1j * np.outer(np.arange(step + 1) * step, angle))
    table = coarse[size // step] * fine[size % step]
    return np.where((modes < 0)[:, None], table.conj(), table)


def waves_at(
    problem: HelmholtzProblem, lattice: Lattice, axis: int, coordinates: np.ndarray
) -> np.ndarray:
    """Enveloped waves of one axis, e exp(iqx), complex (2 extent + 1, len(coordinates))."""
    points = along(problem, axis, coordinates)
    envelope, _ = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    return envelope * phases(problem, axis, lattice.modes(axis), coordinates)


def _axis_of(problem: HelmholtzProblem, lattice: Lattice, axis: int) -> Axis:
    omega, layer = float(problem.omega), problem.layer
    nodes = float(problem.lower[axis]) + np.asarray(lattice.nodes[axis], float)
    points = along(problem, axis, nodes)
    stretch = absorbing.stretch(layer, points, omega)[:, axis]
    envelope, slope = absorbing.envelope(layer, points, problem.envelope_velocity)
    quadrature = np.asarray(lattice.node_weights[axis], float)
    modes = lattice.modes(axis)
    value = envelope * phases(problem, axis, modes, nodes)
    wavenumbers = 2 * np.pi * modes / float(problem.size[axis])
    gradient = (1j * wavenumbers[:, None] + slope[:, axis]) * value
    between = interpolation.along(problem.model, problem.ndim - 1 - axis, nodes)
    length = lattice.product_shape[axis]
    differences = np.fft.fftfreq(length, 1 / length).astype(int)
    moments = phases(problem, axis, -differences, nodes)
    moments *= quadrature * stretch * envelope**2
    return Axis(
        interpolation=between,
        stretched=absorbing.stretched_offset(layer, points, 0.0, omega)[:, axis],
        envelope=envelope,
        weights=quadrature * stretch,
        waves=value,
        stiffness=(gradient.conj() * (quadrature / stretch)) @ gradient.T,
        mass=(value.conj() * (quadrature * stretch)) @ value.T,
        kernel=length * np.asarray(scipy.fft.ifft(moments @ between, axis=0)),
    )


def contract(
    values: np.ndarray, matrices: Sequence[np.ndarray], first: int = 0
) -> np.ndarray:
    """Applies one matrix (m_d, n_d) along each axis of values, from axis `first` on."""
    for axis, matrix in enumerate(matrices, start=first):
        shape = values.shape
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        if after == 1:
            values = values.reshape(before, shape[axis]) @ matrix.T
        else:
            values = matrix @ values.reshape(before, shape[axis], after)
        values = values.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])
    return values


@dataclasses.dataclass(frozen=True)
class WeakForm:
    """K of one velocity."""

    discretisation: Discretisation
    slowness: np.ndarray  # m at the model's nodes, coordinate order [s²/km²]
    kernel: np.ndarray  # product_shape, the inverse transform of the coefficients M

    @functools.cached_property
    def stiffness(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """The terms of K but M, for each the matrices of the axes."""
        axes = self.discretisation.axes
        return tuple(
            tuple(a.stiffness if e == d else a.mass for e, a in enumerate(axes))
            for d in range(len(axes))
        )

    def product(self, weights: np.ndarray) -> np.ndarray:
        """K times weights (c, *lattice.shape), complex: by FFT, and by axis.

        Only differences k_i − k_j, of at most twice the extent, enter K, so that FFTs of
        little over four times the extent give its product exactly, whatever the
        quadrature.
        """
        chex.assert_shape(weights, (None, *self.discretisation.lattice.shape))
        together = max(1, _TOGETHER // self.kernel.size)
        parts = [
            self._scattered(weights[start : start + together])
            for start in range(0, len(weights), together)
        ]
        result = parts[0] if len(parts) == 1 else np.concatenate(parts)
        for matrices in self.stiffness:
            result -= contract(weights, matrices, first=1)
        return result

    def _scattered(self, weights: np.ndarray) -> np.ndarray:
        # A convolution only sees differences of indices, so they may begin at zero.
        shape = self.discretisation.lattice.shape
        axes = range(1, weights.ndim)
        for axis in reversed(axes):
            length = self.kernel.shape[axis - 1]
            weights = np.asarray(scipy.fft.ifft(weights, n=length, axis=axis))
        weights *= self.kernel
        for axis in axes:
            weights = np.asarray(scipy.fft.fft(weights, axis=axis, overwrite_x=True))
            weights = weights[(slice(None),) * axis + (slice(shape[axis - 1]),)]
        return weights


def weak_form(discretisation: Discretisation, slowness: np.ndarray) -> WeakForm:
    """K of the squared slowness at a model's nodes [s²/km²].

    Args:
        discretisation: From `discretise`.
        slowness: (nz, nx) or (nz, ny, nx), complex with attenuation.
    """
    slowness = np.ascontiguousarray(np.transpose(slowness))
    kernel = contract(slowness, [axis.kernel for axis in discretisation.axes])
    kernel *= discretisation.omega**2
    return WeakForm(discretisation=discretisation, slowness=slowness, kernel=kernel)


def slabs(form: WeakForm):
    """Parts of the quadrature grid along its first axis, with m there.

    Yields:
        slice of the points of the first axis, and m (g, G_2, …) [s²/km²].
    """
    first, *others = form.discretisation.axes
    values = form.slowness
    for axis, other in enumerate(others, start=1):
        values = interpolation.applied(other.interpolation, values, axis)
    number = len(first.envelope)
    size = max(1, _TOGETHER // math.prod(values.shape[1:]))
    for start in range(0, number, size):
        part = slice(start, min(start + size, number))
        yield part, interpolation.applied(first.interpolation[part], values, 0)


def background_field(
    discretisation: Discretisation,
    part: slice,
    source: np.ndarray,
    velocity: complex,
    where: Any = ...,
) -> np.ndarray:
    """u₀(r̃) at a part of the quadrature grid (see `slabs`), zero outside `where`.

    Args:
        discretisation: From `discretise`.
        part: Of the points of the first axis.
        source: Source (ndim,) [km].
        velocity: v₀ [km/s].
        where: bool, of the part's shape; everywhere by default.
    """
    squares = [
        (axis.stretched - start) ** 2
        for axis, start in zip(discretisation.axes, source, strict=True)
    ]
    squares[0] = squares[0][part]
    squared = functools.reduce(lambda a, b: a[..., None] + b, squares)
    options = discretisation.omega / velocity, complex(discretisation.problem.amplitude)
    field = np.zeros(squared.shape, complex)
    field[where] = background.field_at_distance(squared[where], *options, len(squares))
    return field


def right_hand_sides(
    form: WeakForm,
    sources: np.ndarray,
    background_velocities: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Right-hand sides of several sources, (n_sources, *lattice.shape), complex.

    Args:
        form: The weak form.
        sources: Source positions (n_sources, ndim) [km].
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        weights: (n_sources,) of sources that are fired together, whose one right-hand
            side is wanted, (1, *lattice.shape).
    """
    chex.assert_shape(sources, (len(background_velocities), form.slowness.ndim))
    discretisation = form.discretisation
    tests = [axis.tests for axis in discretisation.axes]
    rows = len(sources) if weights is None else 1
    result = np.zeros((rows, *discretisation.lattice.shape), complex)
    for part, slowness in slabs(form):
        matrices = [tests[0][:, part], *tests[1:]]
        for index, (source, v0) in enumerate(
            zip(sources, background_velocities, strict=True)
        ):
            contrast = slowness - v0**-2
            # Hankel functions are dear: none where the contrast is rounding only.
            where = np.abs(contrast) > interpolation.ROUNDING * abs(v0**-2)
            field = background_field(discretisation, part, source, v0, where)
            if weights is not None:
                index, contrast = 0, weights[index] * contrast
            values = contract(contrast * field, [matrices[0]])
            result[index] += contract(values, matrices[1:], first=1)
    return -(discretisation.omega**2) * result


def evaluate(
    problem: HelmholtzProblem,
    lattice: Lattice,
    weights: np.ndarray,
    points: np.ndarray,
) -> np.ndarray:
    """Scattered wavefield at any points (p, ndim) [km], complex (n_sources, p).

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        weights: Complex output weights (n_sources, *lattice.shape).
        points: Coordinates [km].
    """
    points = np.asarray(points, float)
    chex.assert_shape([points, weights], [(None, problem.ndim), (None, *lattice.shape)])
    size = max(1, _TOGETHER // (len(weights) * max(lattice.number // lattice.shape[-1], 1)))
    result = np.empty((len(weights), len(points)), complex)
    for start in range(0, len(points), size):
        part = points[start : start + size]
        waves = [
            waves_at(problem, lattice, axis, part[:, axis]) for axis in range(problem.ndim)
        ]
        values = weights @ waves[-1]
        for wave in waves[-2::-1]:
            values = np.einsum("c...np,np->c...p", values, wave)
        result[:, start : start + size] = values
    return result


def evaluation_transposed(
    problem: HelmholtzProblem, lattice: Lattice, values: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Σ_p values_p φ_j(x_p), the transpose of `evaluate`: (c, p) → (c, *lattice.shape)."""
    waves = [
        waves_at(problem, lattice, axis, points[:, axis]) for axis in range(problem.ndim)
    ]
    result = []
    for row in values:
        first = waves[0] * row
        if problem.ndim == 3:
            first = np.einsum("ap,bp->abp", first, waves[1])
        result.append(first @ waves[-1].T)
    return np.stack(result)


def evaluate_on_grid(
    problem: HelmholtzProblem, lattice: Lattice, weights: np.ndarray
) -> np.ndarray:
    """`evaluate` on the model's grid, axis by axis: (n_sources, nz, nx) or in 3D.

    A grid may reach beyond the box into the layer, where the waves decay.
    """
    matrices = [
        waves_at(problem, lattice, axis, coordinates).T
        for axis, coordinates in enumerate(problem.model.axes()[::-1])
    ]
    chex.assert_shape(weights, (None, *lattice.shape))
    fields = contract(weights, matrices, first=1)
    # (n_sources, x, [y,] z) to (n_sources, z, [y,] x)
    return np.ascontiguousarray(np.transpose(fields, (0, *range(problem.ndim, 0, -1))))
