"""Exact solution of the scattered equation in plane waves on a lattice.

The weak form over the stretched domain Ω, in coordinates and with its absorbing layer,

    Σ_j a_j ∫ [ω² m S φ_i φ_j − Σ_d (S/s_d²) ∂_d φ_i ∂_d φ_j] dx
        = −∫ ω² (m − m₀) u₀ S φ_i dx,          S = Π_d s_d,

is complex symmetric, needs first derivatives only, and no condition at the outer edge.
The features are plane waves times the absorbing envelope, φ_j = e(x) exp(i k_j·x), with
wave vectors on the lattice 2π ℤ/P (P the size of Ω) inside the ball |k| ≤ κ ω/v_min.
On a lattice every entry of the matrix is a Fourier coefficient of a smooth weight at
k_i − k_j, so one FFT per weight assembles all of it: n² look-ups instead of n² integrals.

Only waves that can travel somewhere in the model need a matrix. For shorter ones the
operator is elliptic and nearly diagonal. The system of all N waves is therefore solved by
minimal residuals (GCR), each product with the matrix a few FFTs, preconditioned by the
factored block of the n longest waves and by the diagonal of the others: ten iterations
or so, whatever the model.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from meta_lrpinn import problem as problems
from meta_lrpinn.linear import gcr
from meta_lrpinn.linear.weak_form import quadrature_points
from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.precision import full_precision
from meta_lrpinn.problem import HelmholtzProblem

# Quadrature points per shortest wavelength; aliasing needs more than four times κ.
_POINTS_PER_WAVELENGTH = 15
_MAXIMUM_QUADRATURE_POINTS = 2_000_000
# Where the error falls like the third power of the largest wavenumber, as it does in
# rough velocities, the change by the last third of the waves is about the error.
_ENRICHMENT = 1.5
# Waves up to this wavenumber ratio are always solved for directly: with fewer iterations
# become many.
_LEAST_DENSE = 1.1
# Iterations expected, and how much faster factors go than FFTs, per operation.
_ITERATIONS, _FACTOR_SPEED = 10, 10
_RESIDUAL = 2e-3


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["indices"],
    meta_fields=["dense", "extent", "quadrature_shape"],
)
@dataclasses.dataclass(frozen=True)
class Lattice:
    """Plane waves exp(i k·(x − lower)) on the reciprocal lattice of a box."""

    indices: jax.Array  # (N, ndim) int, k = 2π indices / period, longest waves first
    dense: int  # n, how many of them are solved for directly
    extent: tuple[int, ...]  # (ndim,) largest index along each axis
    quadrature_shape: tuple[int, ...]  # (ndim,) midpoints per axis, coordinate order

    @property
    def number(self) -> int:
        """Number of plane waves N."""
        return self.indices.shape[0]


def period_of(problem: HelmholtzProblem) -> jax.Array:
    """Size of the model with its layer, (ndim,), km: the period of the lattice."""
    return problem.upper - problem.lower


def make_lattice(
    problem: HelmholtzProblem,
    wavenumber_ratio: float = 2.4,
    points_per_wavelength: float = _POINTS_PER_WAVELENGTH,
    dense: float | None = None,
    sources: int = 1,
) -> Lattice:
    """Lattice that resolves every wave of a problem.

    Args:
        problem: The problem, with concrete values.
        wavenumber_ratio: κ, largest wavenumber over that of the slowest wave, ω/v_min.
            Below 1 the field is not resolved; the error falls fast from there.
        points_per_wavelength: Quadrature points per shortest wavelength; never fewer
            than the model's own grid has.
        dense: Margin of the waves that are solved for directly; default: 1.1, or all
            where so many sources make a larger matrix the cheaper way.
        sources: Number of sources that will be solved for together.

    Returns:
        The lattice: about A (κ ω/v_min)²/4π waves in 2D, A the area with the layer, and
        V (κ ω/v_min)³/6π² in 3D.

    Raises:
        ValueError: the wavenumber ratio is not positive.
    """
    if not wavenumber_ratio > 0:
        raise ValueError(f"wavenumber ratio must be positive, got {wavenumber_ratio}")
    period = np.asarray(period_of(problem))
    wavenumber = float(problem.omega) / problem.model.minimum
    largest = wavenumber_ratio * wavenumber
    extent = np.floor(largest * period / (2 * np.pi)).astype(int)
    axes = [np.arange(-size, size + 1) for size in extent]
    indices = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1)
    norm = np.linalg.norm(2 * np.pi * indices / period, axis=-1)
    inside = np.flatnonzero(norm <= largest)
    spacing = np.minimum(
        2 * np.pi / wavenumber / points_per_wavelength, problem.model.spacing[::-1]
    )
    finest = (np.prod(period / spacing) / _MAXIMUM_QUADRATURE_POINTS) ** (1 / problem.ndim)
    spacing = spacing * max(1.0, finest)
    count = np.maximum(np.ceil(period / spacing).astype(int), 4 * extent + 2)
    # Longest waves first, so that a smaller lattice is a leading block.
    order = inside[np.argsort(norm[inside], kind="stable")]
    if dense is None:
        iterating = _ITERATIONS * sources * 2 * (problem.ndim + 1)
        transform = 5 * np.prod(count) * np.log2(np.prod(count))
        factoring = 8 / 3 * len(order) ** 3 / _FACTOR_SPEED
        dense = wavenumber_ratio if factoring < iterating * transform else _LEAST_DENSE
    return Lattice(
        indices=indices[order].astype(np.int32),
        dense=int(np.sum(norm[order] <= dense * wavenumber)),
        extent=tuple(int(size) for size in extent),
        quadrature_shape=tuple(scipy.fft.next_fast_len(int(c)) for c in count),
    )


def wavenumber_ratio_for_tolerance(tolerance: float) -> float:
    """Margin κ to begin with for a relative error; measured on layered models."""
    return float(np.interp(np.log10(tolerance), [-3, -2.5, -2, -1], [2.8, 1.9, 1.5, 1.2]))


def wavenumber_ratio_for(problem: HelmholtzProblem, number: int) -> float:
    """Margin κ that gives about `number` plane waves (see `make_lattice`)."""
    wavenumber = float(problem.omega) / problem.model.minimum
    volume = float(np.prod(np.asarray(period_of(problem))))
    ball = {2: np.pi, 3: 4 * np.pi / 3}[problem.ndim]
    density = volume / (2 * np.pi) ** problem.ndim
    return (number / (density * ball)) ** (1 / problem.ndim) / wavenumber


class _Fourier:
    """Integrals ∫ w(x) exp(−i q·(x − lower)) dx at lattice vectors q, by one FFT each."""

    def __init__(self, problem: HelmholtzProblem, shape: tuple[int, ...]):
        self.shape = shape
        period = jnp.asarray(period_of(problem))
        modes = [np.fft.fftfreq(count, 1 / count) for count in shape]
        grids = np.meshgrid(*modes, indexing="ij")
        self.vectors = [2 * np.pi * g / period[d] for d, g in enumerate(grids)]
        # The samples sit at midpoints, half a cell off the corner the FFT assumes.
        shift = sum(g / count for g, count in zip(grids, shape, strict=True))
        self._cell = jnp.prod(period) / math.prod(shape)
        self._shift = jnp.exp(-1j * np.pi * jnp.asarray(shift))

    def __call__(self, weight: jax.Array) -> jax.Array:
        """Transform weight samples (Π shape,) to coefficients of the same layout."""
        samples = weight.reshape(self.shape)
        return jnp.fft.fftn(samples) * self._shift * self._cell


def _wave_vectors(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    return 2 * np.pi * jnp.asarray(lattice.indices) / jnp.asarray(period_of(problem))


def _position(indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Flat position of lattice indices (..., ndim) in the layout of the FFT."""
    position = jnp.zeros(indices.shape[:-1], jnp.int32)
    for axis, count in enumerate(shape):
        position = position * count + indices[..., axis] % count
    return position


@chex.dataclass(frozen=True, mappable_dataclass=False)
class _Coefficients:
    """Fourier coefficients of the weak form's weights, in the layout of an FFT.

    K_ij is mass(k_i − k_j) − Σ_d k_id k_jd stiffness_d(k_i − k_j).
    """

    mass: jax.Array  # quadrature_shape
    stiffness: tuple[jax.Array, ...]  # quadrature_shape each, by axis


def _coefficients_of(problem: HelmholtzProblem, lattice: Lattice) -> _Coefficients:
    points = quadrature_points(problem, lattice.quadrature_shape)
    fourier = _Fourier(problem, lattice.quadrature_shape)
    omega = jnp.asarray(problem.omega)
    stretch = absorbing.stretch(problem.layer, points, omega)
    envelope, slope = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    volume = jnp.prod(stretch, axis=-1) * envelope**2
    # ∂φ = (ik + g) φ with g the envelope's logarithmic gradient, hence
    # ∂φ_i* ∂φ_j = (k_i k_j + i g (k_j − k_i) + g²) φ_i* φ_j, with k_j − k_i = −q.
    mass = fourier(omega**2 * volume / problem.model.at(points) ** 2)
    stiffness = []
    for axis, g in enumerate(slope.T):
        weight = volume / stretch[:, axis] ** 2
        stiffness.append(fourier(weight))
        mass = mass - fourier(weight * g**2)
        mass = mass + 1j * fourier.vectors[axis] * fourier(weight * g)
    return _Coefficients(mass=mass, stiffness=tuple(stiffness))


@full_precision
def assemble(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Galerkin matrix of the waves solved for directly; independent of the source.

    The test functions are the conjugate plane waves, which span the same space.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.

    Returns:
        The leading block of K, (n, n), complex.
    """
    coefficients = _coefficients_of(problem, lattice)
    wave_vectors = _wave_vectors(problem, lattice)[: lattice.dense]
    indices = lattice.indices[: lattice.dense]
    entry = _position(indices[:, None, :] - indices[None, :, :], lattice.quadrature_shape)
    matrix = coefficients.mass.ravel()[entry]
    for k, stiffness in zip(wave_vectors.T, coefficients.stiffness, strict=True):
        matrix = matrix - k[:, None] * k[None, :] * stiffness.ravel()[entry]
    return matrix


def diagonal(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Diagonal of K, (N,), complex."""
    coefficients = _coefficients_of(problem, lattice)
    mean = jnp.stack([stiffness.ravel()[0] for stiffness in coefficients.stiffness])
    wave_vectors = _wave_vectors(problem, lattice)
    return coefficients.mass.ravel()[0] - wave_vectors**2 @ mean


def make_operator(
    problem: HelmholtzProblem, lattice: Lattice
) -> Callable[[jax.Array], jax.Array]:
    """The product with K without K: convolutions, by FFT.

    Only differences k_i − k_j, of at most twice the extent, enter K, so that FFTs of
    little over four times the extent give its product exactly, whatever the quadrature.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.

    Returns:
        Linear function of weights (N, n_sources), complex.
    """
    coefficients = _coefficients_of(problem, lattice)
    shape = tuple(scipy.fft.next_fast_len(4 * size + 1) for size in lattice.extent)
    modes = [np.fft.fftfreq(count, 1 / count).astype(int) for count in shape]
    differences = np.ix_(
        *(m % count for m, count in zip(modes, lattice.quadrature_shape, strict=True))
    )
    position = _position(jnp.asarray(lattice.indices), shape)
    wave_vectors = _wave_vectors(problem, lattice)

    def samples(columns):
        grid = jnp.zeros(math.prod(shape), columns.dtype)
        grid = grid.at[position].set(columns, unique_indices=True)
        return jnp.fft.ifftn(grid.reshape(shape))

    def weight_of(kernel):
        return math.prod(shape) * jnp.fft.ifftn(kernel[differences])

    mass = weight_of(coefficients.mass)
    stiffness = [weight_of(kernel) for kernel in coefficients.stiffness]

    def integrals(values):
        return jnp.fft.fftn(values).ravel()[position]

    def one(columns):
        result = integrals(mass * samples(columns))
        for k, weight in zip(wave_vectors.T, stiffness, strict=True):
            result = result - k * integrals(weight * samples(k * columns))
        return result

    return lambda columns: jax.lax.map(one, columns.T).T


def right_hand_side(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Weak right-hand side of a problem's source, (n,), complex."""
    sources = jnp.asarray(problem.source)[None]
    velocities = jnp.asarray(problem.background_velocity)[None]
    return right_hand_sides(problem, lattice, sources, velocities)[:, 0]


def _make_load(
    problem: HelmholtzProblem, points: jax.Array
) -> Callable[[tuple[jax.Array, jax.Array]], jax.Array]:
    """What the right-hand side integrates at points (p, ndim), times the envelope.

    Returns:
        Function of a source (ndim,) and its background velocity (), complex (p,).
    """
    omega = jnp.asarray(problem.omega)
    stretch = absorbing.stretch(problem.layer, points, omega)
    envelope, _ = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    weight = jnp.prod(stretch, axis=-1) * envelope
    slowness = 1 / problem.model.at(points) ** 2
    stretched = absorbing.stretched_offset(problem.layer, points, 0.0, omega)

    def load(pair):
        source, velocity = pair
        # Single precision in any case: its error, 1e-5, is far below the residual that
        # iterations leave, and it depends on neither the velocity nor the solution.
        field = background.background_field(
            (stretched - source).astype(jnp.complex64),
            (omega / velocity).astype(jnp.float32),
            jnp.asarray(problem.amplitude, jnp.complex64),
        ).astype(stretched.dtype)
        return weight * residual.scattering_source(slowness, 1 / velocity**2, field, omega)

    return load


def right_hand_sides(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
) -> jax.Array:
    """Right-hand sides of several sources, (n, n_sources); see `solve_weights`."""

    load = _make_load(problem, quadrature_points(problem, lattice.quadrature_shape))
    fourier = _Fourier(problem, lattice.quadrature_shape)
    position = _position(jnp.asarray(lattice.indices), lattice.quadrature_shape)
    pairs = (jnp.asarray(sources), jnp.asarray(background_velocities))
    return jax.lax.map(lambda pair: fourier(load(pair)).ravel()[position], pairs).T


@full_precision
def evaluate(
    problem: HelmholtzProblem,
    lattice: Lattice,
    weights: jax.Array,
    points: jax.Array,
    chunk: int = 2048,
) -> jax.Array:
    """Scattered wavefield at any points.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        weights: Complex output weights (n, n_sources).
        points: Coordinates (p, ndim), km.
        chunk: Points evaluated at a time.

    Returns:
        Complex (p, n_sources).
    """
    wave_vectors = _wave_vectors(problem, lattice)

    def at(point):
        phase = wave_vectors @ (point - jnp.asarray(problem.lower))
        envelope = problems.envelope_at(problem, point[None])[0]
        return envelope * (jnp.exp(1j * phase) @ weights)

    return jax.lax.map(at, points, batch_size=chunk)


@full_precision
def evaluate_on_grid(
    problem: HelmholtzProblem, lattice: Lattice, weights: jax.Array
) -> jax.Array:
    """Scattered wavefield on the model's grid, one axis at a time.

    A grid may reach beyond the box into the layer, where the waves decay.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        weights: Complex output weights (n, n_sources).

    Returns:
        Complex (n_sources, nz, nx) or (n_sources, nz, ny, nx).
    """
    extent = lattice.extent
    period, lower = jnp.asarray(period_of(problem)), jnp.asarray(problem.lower)
    position = tuple((lattice.indices + jnp.asarray(extent)).T)
    shape = tuple(2 * size + 1 for size in extent)
    field = jnp.zeros((*shape, weights.shape[-1]), weights.dtype)
    field = field.at[position].set(weights)
    for axis, coordinates in enumerate(problem.model.axes()[::-1]):
        modes = 2 * np.pi * np.arange(-extent[axis], extent[axis] + 1) / period[axis]
        waves = jnp.exp(1j * jnp.outer(coordinates - lower[axis], modes))
        # The envelope is a product over the axes; at the box's corner it is one.
        corner = jnp.asarray(problem.layer.lower)
        line = jnp.tile(corner, (len(coordinates), 1)).at[:, axis].set(coordinates)
        waves = problems.envelope_at(problem, line)[:, None] * waves
        # Contracts the leading axis and appends the grid's, so that the axes rotate.
        field = jnp.tensordot(field, waves, axes=(0, 1))
    # (n_sources, x, [y,] z) to (n_sources, z, [y,] x)
    return jnp.transpose(field, (0, *range(problem.ndim, 0, -1)))


def _make_solver(problem, lattice, tolerance):
    """Factors once; returns (rhs (N, c), kept) → weights (N, c).

    `kept` is the number of waves in use; the weights of the others are zero.
    """
    dense, indices = lattice.dense, jnp.asarray(lattice.indices)
    operator = make_operator(problem, lattice)
    entries = jax.lax.stop_gradient(diagonal(problem, lattice))[:, None]
    factors = jax.scipy.linalg.lu_factor(jax.lax.stop_gradient(assemble(problem, lattice)))

    def mirror(columns):
        shape = lattice.quadrature_shape
        grid = jnp.zeros((math.prod(shape), columns.shape[1]), columns.dtype)
        grid = grid.at[_position(indices, shape)].set(columns, unique_indices=True)
        return grid[_position(-indices, shape)]

    def solver(rhs, kept):
        in_use = jnp.arange(lattice.number)[:, None] < kept

        def matvec(columns):
            return in_use * operator(in_use * columns)

        def precondition(columns):
            longest = jax.scipy.linalg.lu_solve(factors, columns[:dense])
            others = columns[dense:] / entries[dense:]
            return jnp.concatenate([longest, others]) * in_use

        def solve(matvec, columns):
            if kept == dense == lattice.number:  # then that is no approximation
                return precondition(columns)
            return gcr.minimal_residual(matvec, precondition, columns, tolerance)

        def transposed(_, columns):
            # The weak form is symmetric and its test functions are the conjugate waves,
            # so the transpose is K with k and −k exchanged.
            return mirror(solve(matvec, mirror(columns)))

        return jax.lax.custom_linear_solve(matvec, in_use * rhs, solve, transposed)

    return solver


@full_precision
def solve_weights(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    tolerance: float = _RESIDUAL,
) -> jax.Array:
    """Output weights of several sources, the right-hand sides of one system.

    Pure and differentiable: the gradient to the velocity is the adjoint solve with the
    same factors.

    Args:
        problem: Velocity, frequency and layer; its own source is not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim), km.
        background_velocities: v₀ of each source, (n_sources,), km/s.
        tolerance: Relative residual at which iterations end.

    Returns:
        Complex weights (N, n_sources).
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    return _make_solver(problem, lattice, tolerance)(rhs, lattice.number)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Solution:
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (N, n_sources) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    # () relative L2 change by the shortest third of the waves, and what residual is left
    change: jax.Array


@full_precision
def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    tolerance: float = _RESIDUAL,
) -> Solution:
    """Wavefields of several sources on the model's grid, and how far to trust them.

    The first source is solved for a second time without the shortest third of the
    waves, with the same factors; the change by those is the estimate for all sources.

    Args:
        problem, lattice, sources, background_velocities, tolerance: As in
            `solve_weights`.
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    solver = _make_solver(problem, lattice, tolerance)
    weights = solver(rhs, lattice.number)
    coarse = solver(rhs[:, :1], round(lattice.number / _ENRICHMENT))
    fields = evaluate_on_grid(problem, lattice, weights)
    change = evaluate_on_grid(problem, lattice, weights[:, :1] - coarse)[0]
    # A homogeneous model scatters rounding errors, of which no share is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    energy = jnp.mean(jnp.abs(fields[0]) ** 2) + floor**2
    change = jnp.mean(jnp.abs(change) ** 2) / energy
    left = 0.0
    if lattice.dense < lattice.number:
        residual = rhs - make_operator(problem, lattice)(weights)
        left = jnp.max(_energy(residual) / (_energy(rhs) + floor**2))
    return Solution(weights=weights, fields=fields, change=jnp.sqrt(change + left))


def _energy(columns: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(columns) ** 2, axis=0)
