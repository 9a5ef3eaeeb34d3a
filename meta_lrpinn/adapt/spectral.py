"""Exact solution of the scattered equation in plane waves on a lattice.

The weak form over the stretched domain Ω, in coordinates and with its absorbing layer,

    Σ_j a_j ∫ [ω² m S φ_i φ_j − Σ_d (S/s_d²) ∂_d φ_i ∂_d φ_j] dx
        = −∫ ω² (m − m₀) u₀ S φ_i dx,          S = Π_d s_d,

is complex symmetric, needs first derivatives only, and no condition at the outer edge.
The features are plane waves times the absorbing envelope, φ_j = e(x) exp(i k_j·x), with
wave vectors on the lattice 2π ℤ/P (P the size of Ω) inside the ball |k| ≤ κ ω/v_min.
On a lattice every entry of the matrix is a Fourier coefficient of a smooth weight at
k_i − k_j, so one FFT per weight assembles all of it: n² look-ups instead of n² integrals.
"""

import dataclasses
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from meta_lrpinn import problem as problems
from meta_lrpinn.adapt.galerkin import quadrature_points
from meta_lrpinn.physics import absorbing
from meta_lrpinn.problem import HelmholtzProblem

# Quadrature points per shortest wavelength; aliasing needs more than four times κ.
_POINTS_PER_WAVELENGTH = 10
_MAXIMUM_QUADRATURE_POINTS = 2_000_000
_ENRICHMENT = 1.2


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["indices"],
    meta_fields=["extent", "quadrature_shape"],
)
@dataclasses.dataclass(frozen=True)
class Lattice:
    """Plane waves exp(i k·(x − lower)) on the reciprocal lattice of a box."""

    indices: jax.Array  # (n, ndim) int, k = 2π indices / period
    extent: tuple[int, ...]  # (ndim,) largest index along each axis
    quadrature_shape: tuple[int, ...]  # (ndim,) midpoints per axis, coordinate order

    @property
    def number(self) -> int:
        """Number of plane waves n."""
        return self.indices.shape[0]


def period_of(problem: HelmholtzProblem) -> jax.Array:
    """Size of the model with its layer, (ndim,), km: the period of the lattice."""
    return problem.upper - problem.lower


def make_lattice(
    problem: HelmholtzProblem,
    margin: float = 1.4,
    points_per_wavelength: float = _POINTS_PER_WAVELENGTH,
) -> Lattice:
    """Lattice that resolves every wave of a problem.

    Args:
        problem: The problem, with concrete values.
        margin: κ, largest wavenumber over that of the slowest wave, ω/v_min. Below 1
            the field is not resolved; the error falls fast from there.
        points_per_wavelength: Quadrature points per shortest wavelength; never fewer
            than the model's own grid has.

    Returns:
        The lattice: about A (κ ω/v_min)²/4π waves in 2D, A the area with the layer, and
        V (κ ω/v_min)³/6π² in 3D.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    period = np.asarray(period_of(problem))
    wavenumber = float(problem.omega) / problem.model.minimum
    largest = margin * wavenumber
    extent = np.floor(largest * period / (2 * np.pi)).astype(int)
    axes = [np.arange(-size, size + 1) for size in extent]
    indices = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1)
    norm = np.linalg.norm(2 * np.pi * indices / period, axis=-1)
    inside = np.flatnonzero(norm <= largest)
    spacing = np.minimum(
        2 * np.pi / wavenumber / points_per_wavelength, problem.model.spacing[::-1]
    )
    finest = (np.prod(period / spacing) / _MAXIMUM_QUADRATURE_POINTS) ** (
        1 / problem.ndim
    )
    spacing = spacing * max(1.0, finest)
    count = np.maximum(np.ceil(period / spacing).astype(int), 4 * extent + 2)
    return Lattice(
        # Longest waves first, so that a smaller lattice is a leading block.
        indices=indices[inside[np.argsort(norm[inside], kind="stable")]].astype(np.int32),
        extent=tuple(int(size) for size in extent),
        quadrature_shape=tuple(scipy.fft.next_fast_len(int(c)) for c in count),
    )


def margin_for_tolerance(tolerance: float) -> float:
    """Margin κ to begin with for a relative error; measured on layered models."""
    return float(np.interp(np.log10(tolerance), [-3, -2, -1.3, -1], [1.8, 1.45, 1.2, 1.12]))


def margin_for(problem: HelmholtzProblem, number: int) -> float:
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
        cell = jnp.prod(period) / math.prod(shape)
        self._phase = cell * jnp.exp(-1j * np.pi * jnp.asarray(shift))

    def __call__(self, weight: jax.Array) -> jax.Array:
        """Transform weight samples (Π shape,) to coefficients of the same layout."""
        return jnp.fft.fftn(weight.reshape(self.shape)) * self._phase


def _wave_vectors(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    return 2 * np.pi * jnp.asarray(lattice.indices) / jnp.asarray(period_of(problem))


def _position(indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Flat position of lattice indices (..., ndim) in the layout of the FFT."""
    position = jnp.zeros(indices.shape[:-1], jnp.int32)
    for axis, count in enumerate(shape):
        position = position * count + indices[..., axis] % count
    return position


def assemble(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Galerkin matrix of a problem; independent of its source.

    The test functions are the conjugate plane waves, which span the same space.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.

    Returns:
        K, (n, n), complex.
    """
    points = quadrature_points(problem, lattice.quadrature_shape)
    omega = jnp.asarray(problem.omega)
    stretch = absorbing.stretch(problem.layer, points, omega)
    envelope, slope = absorbing.envelope(
        problem.layer, points, problem.envelope_velocity
    )
    volume = jnp.prod(stretch, axis=-1) * envelope**2
    fourier = _Fourier(problem, lattice.quadrature_shape)
    wave_vectors = _wave_vectors(problem, lattice)

    # ∂φ = (ik + g) φ with g the envelope's logarithmic gradient, hence
    # ∂φ_i* ∂φ_j = (k_i k_j + i g (k_j − k_i) + g²) φ_i* φ_j, with k_j − k_i = −q.
    mass = fourier(omega**2 * volume / problem.model.at(points) ** 2)
    stiffness = []
    for axis in range(problem.ndim):
        weight = volume / stretch[:, axis] ** 2
        g = slope[:, axis]
        stiffness.append(fourier(weight))
        mass = mass - fourier(weight * g**2)
        mass = mass + 1j * fourier.vectors[axis] * fourier(weight * g)

    entry = _position(
        lattice.indices[:, None, :] - lattice.indices[None, :, :],
        lattice.quadrature_shape,
    )
    matrix = mass.ravel()[entry]
    for axis in range(problem.ndim):
        k = wave_vectors[:, axis]
        matrix = matrix - k[:, None] * k[None, :] * stiffness[axis].ravel()[entry]
    return matrix


def right_hand_side(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Weak right-hand side of a problem's source, (n,), complex."""
    points = quadrature_points(problem, lattice.quadrature_shape)
    stretch = absorbing.stretch(problem.layer, points, jnp.asarray(problem.omega))
    envelope, _ = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    source = problems.scattering_source_at(problem, points)
    weight = source * jnp.prod(stretch, axis=-1) * envelope
    coefficients = _Fourier(problem, lattice.quadrature_shape)(weight)
    return coefficients.ravel()[_position(lattice.indices, lattice.quadrature_shape)]


def right_hand_sides(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
) -> jax.Array:
    """Right-hand sides of several sources, (n, n_sources); see `solve_weights`."""

    def one(pair):
        source, velocity = pair
        own = problem.replace(source=source, background_velocity=velocity)
        return right_hand_side(own, lattice)

    pairs = (jnp.asarray(sources), jnp.asarray(background_velocities))
    return jax.lax.map(one, pairs).T


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


def solve_weights(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
) -> jax.Array:
    """Exact output weights of several sources, the right-hand sides of one matrix.

    Pure and differentiable: the gradient to the velocity is the adjoint solve with the
    same factors.

    Args:
        problem: Velocity, frequency and layer; its own source is not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim), km.
        background_velocities: v₀ of each source, (n_sources,), km/s.

    Returns:
        Complex weights (n, n_sources).
    """

    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    return jnp.linalg.solve(assemble(problem, lattice), rhs)


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Solution:
    """Output weights, the wavefields they give, and what these are worth."""

    weights: jax.Array  # (n, n_sources) complex
    fields: jax.Array  # (n_sources, nz, nx) or (n_sources, nz, ny, nx), complex
    change: jax.Array  # (n_sources,) relative L2 change by the last 20 % of the waves


def solve(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
) -> Solution:
    """Wavefields of several sources on the model's grid, and how far to trust them.

    Enrichment by 20 % needs no second matrix: the same system with the shortest sixth
    of the waves left out is its leading block.

    Args:
        problem, lattice, sources, background_velocities: As in `solve_weights`.
    """
    rhs = right_hand_sides(problem, lattice, sources, background_velocities)
    matrix = assemble(problem, lattice)
    weights = jnp.linalg.solve(matrix, rhs)
    size = round(lattice.number / _ENRICHMENT)
    coarse = jnp.linalg.solve(matrix[:size, :size], rhs[:size])
    fields = evaluate_on_grid(problem, lattice, weights)
    change = evaluate_on_grid(problem, lattice, weights.at[:size].add(-coarse))
    axes = tuple(range(1, fields.ndim))
    # A homogeneous model scatters rounding errors, of which no share is asked.
    floor = 1e3 * jnp.finfo(weights.real.dtype).eps * jnp.abs(problem.amplitude)
    energy = jnp.mean(jnp.abs(fields) ** 2, axes) + floor**2
    change = jnp.sqrt(jnp.mean(jnp.abs(change) ** 2, axes) / energy)
    return Solution(weights=weights, fields=fields, change=change)
