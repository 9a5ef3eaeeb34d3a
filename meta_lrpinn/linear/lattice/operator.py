"""The weak form on a lattice of plane waves: matrix, operator, right-hand side, field."""

import itertools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from meta_lrpinn import problem as problems
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.precision import full_precision
from meta_lrpinn.problem import HelmholtzProblem

# Points in a cell for weights of one coordinate, which cost nothing.
_FINE_POINTS = 4


def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss's points and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


def _modes(lattice: Lattice) -> list[np.ndarray]:
    """Integers of the lattice vectors in an FFT's layout, by axis."""
    return [np.fft.fftfreq(count, 1 / count).astype(int) for count in lattice.cells]


def _along(values: jax.Array, axis: int, ndim: int) -> jax.Array:
    """(n,) as an array that varies along one of ndim axes."""
    return values.reshape([-1 if d == axis else 1 for d in range(ndim)])


def _outer(lines: list[jax.Array]) -> jax.Array:
    """Product of one function of each coordinate, on their grid."""
    return math.prod(_along(line, d, len(lines)) for d, line in enumerate(lines))


def _integrate(lattice: Lattice, samples: Callable[..., jax.Array]) -> jax.Array:
    """∫ w(x) exp(−i q·(x − lower)) dx at the lattice vectors q, by Gauss's rule.

    One Gauss point of all cells is a regular grid, whose sum is an FFT.

    Args:
        lattice: The lattice.
        samples: The weight w on the grid of coordinates (cells_d,) km along each axis.

    Returns:
        Complex (cells), in the layout of an FFT.
    """
    ndim = len(lattice.cells)
    places, weights = _gauss(lattice.points)
    corners = np.array(list(itertools.product(range(lattice.points), repeat=ndim)))
    lower, period = jnp.asarray(lattice.lower), jnp.asarray(lattice.period)
    modes = _modes(lattice)

    def add(total, rule):
        place, weight = rule
        axes, factors = [], []
        for d, count in enumerate(lattice.cells):
            axes.append(lower[d] + (np.arange(count) + place[d]) * period[d] / count)
            phase = jnp.exp(-2j * np.pi * modes[d] * place[d] / count)
            factors.append(weight[d] * phase * period[d] / count)
        return total + _outer(factors) * jnp.fft.fftn(samples(axes)), None

    rules = jnp.asarray(places[corners], period.dtype), jnp.asarray(weights[corners])
    start = jnp.zeros(lattice.cells, jnp.result_type(period.dtype, jnp.complex64))
    return jax.lax.scan(add, start, rules)[0]


def _line_transform(
    lattice: Lattice, axis: int, weight: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """∫ w(x) exp(−i q (x − lower)) dx along one axis, (cells_d,)."""
    count, modes = lattice.cells[axis], _modes(lattice)[axis]
    length = jnp.asarray(lattice.period)[axis]
    total = 0.0
    for place, share in zip(*_gauss(_FINE_POINTS), strict=True):
        x = jnp.asarray(lattice.lower)[axis] + (np.arange(count) + place) * length / count
        phase = np.exp(-2j * np.pi * modes * place / count)
        total = total + share * phase * jnp.fft.fft(weight(x)) * length / count
    return total


def _layer_along(
    problem: HelmholtzProblem, axis: int, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Stretch, envelope and its logarithmic slope along one axis, (n,) each.

    At the box's corner the factors of the other axes are one.
    """
    corner = jnp.asarray(problem.layer.lower)
    line = jnp.tile(corner, (len(x), 1)).at[:, axis].set(x)
    stretch = absorbing.stretch(problem.layer, line, jnp.asarray(problem.omega))
    envelope, slope = absorbing.envelope(problem.layer, line, problem.envelope_velocity)
    return stretch[:, axis], envelope, slope[:, axis]


def _grid_points(axes: list[jax.Array]) -> jax.Array:
    grids = jnp.meshgrid(*axes, indexing="ij")
    return jnp.stack([grid.ravel() for grid in grids], axis=-1)


def _wave_vectors(lattice: Lattice) -> jax.Array:
    return 2 * np.pi * jnp.asarray(lattice.indices) / jnp.asarray(lattice.period)


def position_of(indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Flat position of lattice indices (..., ndim) in the layout of the FFT."""
    position = jnp.zeros(indices.shape[:-1], jnp.int32)
    for axis, count in enumerate(shape):
        position = position * count + indices[..., axis] % count
    return position


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Coefficients:
    """Fourier coefficients of the weak form's weights, in the layout of an FFT.

    K_ij is mass(k_i − k_j) − Σ_d k_id k_jd stiffness_d(k_i − k_j).
    """

    mass: jax.Array  # (cells)
    stiffness: tuple[jax.Array, ...]  # (cells) each, by axis


def coefficients_of(problem: HelmholtzProblem, lattice: Lattice) -> Coefficients:
    """The coefficients; pure, and differentiable in the velocity.

    With e the envelope and g = e′/e along an axis, ∂φ = (ik + g) φ, hence
    ∂φ_i* ∂φ_j = (k_i k_j + i g (k_j − k_i) + g²) φ_i* φ_j, with k_j − k_i = −q. All
    weights but the velocity's are products of functions of one coordinate.
    """
    ndim = problem.ndim

    def line(axis, power, slopes=0):
        """Transform of e² s^power g^slopes."""

        def weight(x):
            stretch, envelope, slope = _layer_along(problem, axis, x)
            return envelope**2 * stretch**power * slope**slopes

        return _line_transform(lattice, axis, weight)

    plain = [line(axis, 1) for axis in range(ndim)]
    stiffness, mass = [], 0.0
    for axis, modes in enumerate(_modes(lattice)):
        q = 2 * np.pi * modes / jnp.asarray(lattice.period)[axis]
        stiffness.append(_outer([*plain[:axis], line(axis, -1), *plain[axis + 1 :]]))
        slopes = 1j * q * line(axis, -1, 1) - line(axis, -1, 2)
        mass = mass + _outer([*plain[:axis], slopes, *plain[axis + 1 :]])

    def volume_times_slowness(axes):
        weight = []
        for axis, x in enumerate(axes):
            stretch, envelope, _ = _layer_along(problem, axis, x)
            weight.append(stretch * envelope**2)
        slowness = 1 / problem.model.at(_grid_points(axes)) ** 2
        return _outer(weight) * slowness.reshape(lattice.cells)

    integral = _integrate(lattice, volume_times_slowness)
    mass = mass + jnp.asarray(problem.omega) ** 2 * integral
    return Coefficients(mass=mass, stiffness=tuple(stiffness))


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
    return matrix_of(coefficients_of(problem, lattice), lattice)


def matrix_of(coefficients: Coefficients, lattice: Lattice) -> jax.Array:
    """`assemble`, from coefficients."""
    wave_vectors = _wave_vectors(lattice)[: lattice.dense]
    indices = lattice.indices[: lattice.dense]
    entry = position_of(indices[:, None, :] - indices[None, :, :], lattice.cells)
    matrix = coefficients.mass.ravel()[entry]
    for k, stiffness in zip(wave_vectors.T, coefficients.stiffness, strict=True):
        matrix = matrix - k[:, None] * k[None, :] * stiffness.ravel()[entry]
    return matrix


def diagonal(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Diagonal of K, (N,), complex."""
    return diagonal_of(coefficients_of(problem, lattice), lattice)


def diagonal_of(coefficients: Coefficients, lattice: Lattice) -> jax.Array:
    """`diagonal`, from coefficients."""
    mean = jnp.stack([stiffness.ravel()[0] for stiffness in coefficients.stiffness])
    return coefficients.mass.ravel()[0] - _wave_vectors(lattice) ** 2 @ mean


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
    return operator_of(coefficients_of(problem, lattice), lattice)


def operator_of(
    coefficients: Coefficients, lattice: Lattice
) -> Callable[[jax.Array], jax.Array]:
    """`make_operator`, from coefficients."""
    shape = tuple(scipy.fft.next_fast_len(4 * size + 1) for size in lattice.extent)
    modes = [np.fft.fftfreq(count, 1 / count).astype(int) for count in shape]
    differences = np.ix_(
        *(m % count for m, count in zip(modes, lattice.cells, strict=True))
    )
    position = position_of(jnp.asarray(lattice.indices), shape)
    wave_vectors = _wave_vectors(lattice)

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
    """Weak right-hand side of a problem's source, (N,), complex."""
    sources = jnp.asarray(problem.source)[None]
    velocities = jnp.asarray(problem.background_velocity)[None]
    return right_hand_sides(problem, lattice, sources, velocities)[:, 0]


def _load_at(
    problem: HelmholtzProblem, axes: list[jax.Array], source: jax.Array, velocity: jax.Array
) -> jax.Array:
    """What the right-hand side integrates, times the envelope, on a grid of axes.

    Args:
        problem: The problem.
        axes: Coordinates along each axis, km.
        source: Position (ndim,), km.
        velocity: Its background velocity (), km/s.
    """
    omega = jnp.asarray(problem.omega)
    weights, offsets = [], []
    for axis, x in enumerate(axes):
        stretch, envelope, _ = _layer_along(problem, axis, x)
        weights.append(stretch * envelope)
        line = jnp.broadcast_to(x[:, None], (len(x), problem.ndim))
        offset = absorbing.stretched_offset(problem.layer, line, source, omega)
        offsets.append(offset[:, axis])
    # Single precision in any case: its error, 1e-5, is far below the residual that
    # iterations leave, and it depends on neither the velocity nor the solution.
    field = background.background_field(
        jnp.stack(jnp.meshgrid(*offsets, indexing="ij"), axis=-1).astype(jnp.complex64),
        (omega / velocity).astype(jnp.float32),
        jnp.asarray(problem.amplitude, jnp.complex64),
    ).astype(weights[0].dtype)
    slowness = 1 / problem.model.at(_grid_points(axes)) ** 2
    slowness = slowness.reshape(field.shape)
    load = residual.scattering_source(slowness, 1 / velocity**2, field, omega)
    return _outer(weights) * load


def right_hand_sides(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
) -> jax.Array:
    """Right-hand sides of several sources, (N, n_sources); see `solve_weights`."""
    position = position_of(jnp.asarray(lattice.indices), lattice.cells)

    def one(pair):
        transform = _integrate(lattice, lambda axes: _load_at(problem, axes, *pair))
        return transform.ravel()[position]

    pairs = (jnp.asarray(sources), jnp.asarray(background_velocities))
    return jax.lax.map(one, pairs).T


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
        weights: Complex output weights (N, n_sources).
        points: Coordinates (p, ndim), km.
        chunk: Points evaluated at a time.

    Returns:
        Complex (p, n_sources).
    """
    wave_vectors = _wave_vectors(lattice)

    def at(point):
        phase = wave_vectors @ (point - jnp.asarray(lattice.lower))
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
        weights: Complex output weights (N, n_sources).

    Returns:
        Complex (n_sources, nz, nx) or (n_sources, nz, ny, nx).
    """
    extent = lattice.extent
    period, lower = jnp.asarray(lattice.period), jnp.asarray(lattice.lower)
    position = tuple((lattice.indices + jnp.asarray(extent)).T)
    shape = tuple(2 * size + 1 for size in extent)
    field = jnp.zeros((*shape, weights.shape[-1]), weights.dtype)
    field = field.at[position].set(weights)
    for axis, coordinates in enumerate(problem.model.axes()[::-1]):
        modes = 2 * np.pi * np.arange(-extent[axis], extent[axis] + 1) / period[axis]
        waves = jnp.exp(1j * jnp.outer(coordinates - lower[axis], modes))
        waves = _layer_along(problem, axis, coordinates)[1][:, None] * waves
        # Contracts the leading axis and appends the grid's, so that the axes rotate.
        field = jnp.tensordot(field, waves, axes=(0, 1))
    # (n_sources, x, [y,] z) to (n_sources, z, [y,] x)
    return jnp.transpose(field, (0, *range(problem.ndim, 0, -1)))
