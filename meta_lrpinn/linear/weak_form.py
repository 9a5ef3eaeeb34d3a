"""Exact solution of the scattered equation over any real features, by quadrature.

The weak form is that of `linear.lattice`; here the features are whatever a network's
last hidden layer makes, times the absorbing envelope, so that the matrix

    K_ij = ∫ [ω² m S φ_i φ_j − Σ_d (S/s_d²) ∂_d φ_i ∂_d φ_j] dx,      S = Π_d s_d,

is summed over quadrature points, chunk by chunk. Test and trial functions are the same
and real, so K is complex symmetric.
"""

import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.physics import derivatives
from meta_lrpinn.physics.problem import (
    Collocation,
    HelmholtzProblem,
    collocate,
    envelope_at,
    scattering_source_at,
)

# Points along each axis of a cell of half the velocity grid's spacing, or less. Measured on
# a layer one node thick: 2.5 % with four, 2.2 % in the limit, 8.4 % with one.
_MEAN_POINTS = 4

Features = Callable[[jax.Array], jax.Array]  # points (n, ndim) → features (n, width)


class FeatureSamples(struct.PyTreeNode):
    """Features and their slopes at quadrature points; shared by all velocities."""

    value: jax.Array  # (n, width)
    gradient: jax.Array  # (n, ndim, width) [1/km]


def with_envelope(features: Features, problem: HelmholtzProblem) -> Features:
    """Features times the absorbing envelope of a problem, which is 1 in the model."""

    def decaying(points):
        return envelope_at(problem, points)[:, None] * features(points)

    return decaying


def quadrature_points(
    problem: HelmholtzProblem, shape: tuple[int, ...], shift: jax.Array | float = 0.5
) -> jax.Array:
    """Regular grid over the model and its layer, one point for each cell.

    Args:
        problem: The problem.
        shape: Points along each axis, coordinate order.
        shift: Position of the point in its cell, 0 to 1; a number or (ndim,).

    Returns:
        Points (Π shape, ndim) [km].
    """
    cells = _product([jnp.arange(count) for count in shape])
    size = jnp.asarray(problem.size)
    return jnp.asarray(problem.lower) + (cells + shift) * size / jnp.asarray(shape)


def _product(axes: Sequence[jax.Array]) -> jax.Array:
    """All combinations of values (n_d,) of ndim axes, (Π n_d, ndim)."""
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def quadrature_shape(
    problem: HelmholtzProblem, points_per_wavelength: float = 6.0, least: int = 1
) -> tuple[int, ...]:
    """Points along each axis, coordinate order, of a concrete problem.

    Args:
        problem: The problem.
        points_per_wavelength: Points per shortest wavelength along each axis.
        least: Smallest number in all; all axes are refined by one factor to reach it.
    """
    wavelength = 2 * np.pi * problem.model.minimum / float(problem.omega)
    size = np.asarray(problem.size)
    counts = np.ceil(size * points_per_wavelength / wavelength)
    finer = max(1.0, (least / np.prod(counts)) ** (1 / problem.ndim))
    return tuple(int(count) for count in np.ceil(finer * counts))


def refinement_of(problem: HelmholtzProblem, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Parts of a quadrature cell along each axis that a concrete problem's velocity needs.

    So many that they are at most half of the velocity grid's spacing, at least two.
    """
    size = np.asarray(problem.size)
    cell = size / np.asarray(shape)
    needed = np.ceil(2 * cell / np.asarray(problem.model.spacing)[::-1])
    return tuple(int(count) for count in np.maximum(needed, 2))


def collocate_grid(
    problem: HelmholtzProblem,
    shape: tuple[int, ...],
    refinement: tuple[int, ...],
    shift: jax.Array | float = 0.5,
) -> Collocation:
    """Coefficients at the points of `quadrature_points`, free of aliasing.

    A velocity is rougher than features are: sampled at points just dense enough for
    products of features, what is finer is mistaken for what is coarser, and the
    solution is off by 6 % where 0.4 % are possible (a random velocity, 3 Hz). Squared
    slowness and source are therefore taken on a finer grid, of which the Fourier
    components are kept that this one can hold; nothing else meets smooth features in the
    integral. On the finer grid squared slowness is a mean over each cell: sampled at
    points, a layer as thin as the velocity grid can hold has another thickness wherever
    it lies between them (off by 8 % for 2.5 %).

    Args:
        problem: The problem.
        shape: Points along each axis, coordinate order.
        refinement: Points of the finer grid in a cell along each axis.
        shift: Position of the point in its cell, 0 to 1; a number or (ndim,).

    Returns:
        The collocation at Π shape points.
    """
    fine = tuple(a * b for a, b in zip(shape, refinement, strict=True))
    points = quadrature_points(problem, fine)
    shift = jnp.broadcast_to(jnp.asarray(shift, points.dtype), (problem.ndim,))

    def filtered(values):
        spectrum = jnp.fft.fftn(values.reshape(fine))
        for axis, (count, parts) in enumerate(zip(shape, refinement, strict=True)):
            modes = np.fft.fftfreq(count, 1 / count).astype(int)
            # From the first fine midpoint to the first coarse point, in cells.
            offset = shift[axis] - 0.5 / parts
            phase = jnp.exp(2j * np.pi * modes * offset / count)
            phase = jnp.where(2 * np.abs(modes) == count, 0, phase) / parts
            along = [1] * problem.ndim
            along[axis] = count
            spectrum = jnp.take(spectrum, modes % (count * parts), axis=axis)
            spectrum = spectrum * phase.reshape(along)
        return jnp.fft.ifftn(spectrum).ravel()

    size = jnp.asarray(problem.size)
    mean = _mean_squared_slowness(problem, points, size / jnp.asarray(fine))
    slowness = filtered(mean)
    coarse = collocate(problem, quadrature_points(problem, shape, shift))
    return coarse.replace(
        squared_slowness=slowness if jnp.iscomplexobj(mean) else jnp.real(slowness),
        scattering_source=filtered(scattering_source_at(problem, points, mean)),
    )


def _mean_squared_slowness(
    problem: HelmholtzProblem, points: jax.Array, cell: jax.Array
) -> jax.Array:
    """Squared slowness averaged over cells (ndim,) [km] around points (n, ndim), (n,)."""
    parts = (jnp.arange(_MEAN_POINTS) + 0.5) / _MEAN_POINTS - 0.5
    offsets = _product([parts * size for size in cell])

    def add(total, offset):
        return total + problem.model.squared_slowness_at(points + offset), None

    zeros = jnp.zeros_like(problem.model.squared_slowness_at(points))
    return jax.lax.scan(add, zeros, offsets)[0] / len(offsets)


def sample_features(features: Features, points: jax.Array) -> FeatureSamples:
    """Values and first derivatives of features at points (n, ndim)."""
    value, gradient = derivatives.first_derivatives(features, points)
    return FeatureSamples(value=value, gradient=gradient)


def stiffness_matrix(
    samples: FeatureSamples, stretch: jax.Array, cell: jax.Array
) -> jax.Array:
    """The part of K without the velocity, −Σ_d ∫ (S/s_d²) ∂_d φ_i ∂_d φ_j dx.

    Args:
        samples: Features at quadrature points, width w.
        stretch: Stretching factors s at the same points, (n, ndim).
        cell: Volume of a quadrature cell [km^ndim].

    Returns:
        (w, w), complex symmetric.
    """
    chex.assert_shape(samples.gradient, (*stretch.shape, None))
    volume = jnp.prod(stretch, axis=-1) * cell
    weights = volume[:, None] / stretch**2
    terms = (
        _weighted_gram(samples.gradient[:, axis], weights[:, axis])
        for axis in range(stretch.shape[1])
    )
    return -functools.reduce(jnp.add, terms)


def mass_matrix(value: jax.Array, collocation: Collocation, cell: jax.Array) -> jax.Array:
    """The part of K with the velocity, ∫ ω² m S φ_i φ_j dx.

    Args:
        value: Features at quadrature points, (n, w).
        collocation: Coefficients at the same points.
        cell: Volume of a quadrature cell [km^ndim].

    Returns:
        (w, w), complex symmetric.
    """
    chex.assert_shape(value, (len(collocation.points), None))
    volume = jnp.prod(collocation.stretch, axis=-1) * cell
    weight = collocation.omega**2 * collocation.squared_slowness * volume
    return _weighted_gram(value, weight)


def load_vector(value: jax.Array, collocation: Collocation, cell: jax.Array) -> jax.Array:
    """Right-hand side −∫ ω² (m − m₀) u₀ S φ_i dx, (w,), complex; arguments as above."""
    chex.assert_shape(value, (len(collocation.points), None))
    volume = jnp.prod(collocation.stretch, axis=-1) * cell
    weighted = volume * collocation.scattering_source
    return jax.lax.complex(value.T @ jnp.real(weighted), value.T @ jnp.imag(weighted))


def whitening(values: jax.Array, cut: float) -> jax.Array:
    """Change of basis to orthonormal combinations of features.

    Args:
        values: Features at points, (n, w), n at least w.
        cut: Singular values of the scaled features, over the largest, below which a
            combination is left out.

    Returns:
        (w, w), by which features are multiplied from the right; columns of zeros stand
        for what is left out.
    """
    tiny = jnp.finfo(values.dtype).tiny
    scale = jax.lax.rsqrt(jnp.sum(values**2, axis=0) + tiny)
    # Not the Gram matrix, which would square the condition number.
    triangle = jnp.linalg.qr(values * scale, mode="r")
    _, singular, right = jnp.linalg.svd(triangle)
    kept = singular > cut * singular[0]
    inverse = jnp.where(kept, 1 / jnp.where(kept, singular, 1), 0)
    return scale[:, None] * right.T * inverse


def solve_weights(
    matrix: jax.Array, rhs: jax.Array, scale: jax.Array, damping: float = 0.0
) -> jax.Array:
    """Output weights a of K a = b, after scaling features to equal norm.

    Call it under `lax.map`, not `vmap`: two batched LAPACK calls at a time can deadlock
    jaxlib 0.10 on machines with two cores.

    Args:
        matrix: K, (w, w), complex.
        rhs: b, (w,) or (w, k), complex.
        scale: What each feature is multiplied by, (w,).
        damping: Imaginary part added to the scaled diagonal; keeps single precision
            stable where features nearly depend on each other.

    Returns:
        a, of the shape of rhs.
    """
    width = len(scale)
    chex.assert_shape([matrix, rhs], [(width, width), (width, ...)])
    scaled = scale[:, None] * matrix * scale
    scaled = scaled + 1j * damping * jnp.eye(width, dtype=matrix.real.dtype)
    scale = scale.reshape(scale.shape + (1,) * (rhs.ndim - 1))
    return scale * jnp.linalg.solve(scaled, scale * rhs)


def _weighted_gram(features: jax.Array, weight: jax.Array) -> jax.Array:
    """Σ_points w φ_i φ_j for real features and a complex weight, as precise as they."""

    def gram(part):
        return features.T @ (part.astype(features.dtype)[:, None] * features)

    real = gram(jnp.real(weight))
    # Half of the time is spared where no point lies in the layer.
    imaginary = jax.lax.cond(
        jnp.any(jnp.imag(weight) != 0),
        gram,
        lambda _: jnp.zeros_like(real),
        jnp.imag(weight),
    )
    return jax.lax.complex(real, imaginary)
