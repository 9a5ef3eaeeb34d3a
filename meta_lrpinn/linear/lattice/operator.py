"""Matrix, product and right-hand side of the weak form in plane waves, and evaluation.

All weights but the slowness are products over the axes, of the stretching and the
envelope. With a(q), b(q) the coefficients of e²/s and s e² along one axis,

    K = Σ_d −A_d ⊗ Π_{e≠d} B_e + M,     A = Toeplitz form of ∂φ* ∂φ/s,  B = that of s φ* φ,

and M holds the coefficients of ω² m S e² at k_i − k_j. Integrals are sums over the
tensor grid of `Lattice.nodes`, one axis at a time, by matrix products.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn import problem as problems
from meta_lrpinn.linear.lattice.waves import Lattice, period_of
from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.precision import Array, full_precision
from meta_lrpinn.problem import HelmholtzProblem


class _Axis(struct.PyTreeNode):
    """One axis of the weak form, G nodes, modes −e..e."""

    stretch: jax.Array  # (G,) s at the nodes, complex
    envelope: jax.Array  # (G,) e at the nodes
    stiffness: jax.Array  # (2e + 1, 2e + 1) ∫ ∂φ_i* ∂φ_j / s dx [1/km]
    mass: jax.Array  # (2e + 1, 2e + 1) ∫ s φ_i* φ_j dx [km]


def _wave_vectors(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    return 2 * np.pi * jnp.asarray(lattice.indices) / jnp.asarray(period_of(problem))


def _position(indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Flat position of lattice indices (..., ndim) in the layout of the FFT."""
    position = jnp.zeros(indices.shape[:-1], jnp.int32)
    for axis, count in enumerate(shape):
        position = position * count + indices[..., axis] % count
    return position


def _in_box(lattice: Lattice) -> tuple[jax.Array, ...]:
    """Index arrays of the waves in the array (2 extent + 1) of all modes of the box."""
    return tuple((jnp.asarray(lattice.indices) + jnp.asarray(lattice.extent)).T)


def _along(problem: HelmholtzProblem, axis: int, coordinates: jax.Array) -> jax.Array:
    """Points (G, ndim) with coordinates (G,) on one axis, at the box's corner on others.

    Stretching and envelope of the other axes are one there.
    """
    corner = jnp.asarray(problem.layer.lower, coordinates.dtype)
    return jnp.tile(corner, (len(coordinates), 1)).at[:, axis].set(coordinates)


def _phases(problem, lattice, axis, modes, sign=-1):
    """exp(∓i q (x − lower)) at the nodes of an axis, (len(modes), G)."""
    period = jnp.asarray(period_of(problem))[axis]
    wavenumbers = 2 * np.pi * jnp.asarray(modes) / period
    return jnp.exp(sign * 1j * jnp.outer(wavenumbers, jnp.asarray(lattice.nodes[axis])))


def _axis_of(problem: HelmholtzProblem, lattice: Lattice, axis: int) -> _Axis:
    omega = jnp.asarray(problem.omega)
    nodes = jnp.asarray(problem.lower)[axis] + jnp.asarray(lattice.nodes[axis])
    points = _along(problem, axis, nodes)
    stretch = absorbing.stretch(problem.layer, points, omega)[:, axis]
    envelope, slope = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    size = lattice.extent[axis]
    modes = np.arange(-size, size + 1)
    wavenumbers = 2 * np.pi * jnp.asarray(modes) / jnp.asarray(period_of(problem))[axis]
    value = envelope * _phases(problem, lattice, axis, modes, sign=1)
    gradient = (1j * wavenumbers[:, None] + slope[:, axis]) * value
    weights = jnp.asarray(lattice.node_weights[axis])
    return _Axis(
        stretch=stretch,
        envelope=envelope,
        stiffness=(gradient.conj() * (weights / stretch)) @ gradient.T,
        mass=(value.conj() * (weights * stretch)) @ value.T,
    )


def _contract(values: jax.Array, matrices: list[jax.Array]) -> jax.Array:
    """Apply one matrix (m_d, n_d) along each axis of values (n_1, …, n_d, ...)."""
    for axis, matrix in enumerate(matrices):
        values = jnp.moveaxis(jnp.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def _outer(factors: list[jax.Array]) -> jax.Array:
    """Product over the axes, (n_1, …, n_d)."""
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., None] * factor
    return product


def _node_points(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """The tensor grid of nodes, (G_1, …, G_d, ndim) [km]."""
    axes = [
        jnp.asarray(problem.lower)[d] + jnp.asarray(axis)
        for d, axis in enumerate(lattice.nodes)
    ]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


class WeakForm(struct.PyTreeNode):
    """All that K is made of; independent of the source."""

    axes: tuple[_Axis, ...]
    mass: jax.Array  # product_shape, coefficients of ω² m S e², in the layout of an FFT


@full_precision
def weak_form(problem: HelmholtzProblem, lattice: Lattice) -> WeakForm:
    """Integrals of a problem over the nodes of a lattice."""
    axes = tuple(_axis_of(problem, lattice, d) for d in range(problem.ndim))
    slowness = problem.model.squared_slowness_at(_node_points(problem, lattice))
    weights = [
        jnp.asarray(w) * axis.stretch * axis.envelope**2
        for w, axis in zip(lattice.node_weights, axes, strict=True)
    ]
    modes = [np.fft.fftfreq(n, 1 / n).astype(int) for n in lattice.product_shape]
    mass = _contract(
        slowness.astype(weights[0].dtype),
        [
            _phases(problem, lattice, d, m) * w
            for d, (m, w) in enumerate(zip(modes, weights, strict=True))
        ],
    )
    return WeakForm(axes=axes, mass=jnp.asarray(problem.omega) ** 2 * mass)


@full_precision
def assemble(
    problem: HelmholtzProblem, lattice: Lattice, form: WeakForm | None = None
) -> jax.Array:
    """Galerkin matrix of the waves solved for directly; independent of the source.

    The test functions are the conjugate plane waves, which span the same space.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        form: Its integrals, where they are known.

    Returns:
        The leading block of K, (n, n), complex.
    """
    form = form or weak_form(problem, lattice)
    indices = jnp.asarray(lattice.indices)[: lattice.dense]
    shape = lattice.product_shape
    entry = _position(indices[:, None, :] - indices[None, :, :], shape)
    matrix = form.mass.ravel()[entry]
    box = [rows[: lattice.dense] for rows in _in_box(lattice)]
    for d in range(problem.ndim):
        matrix = matrix - math.prod(
            (axis.stiffness if e == d else axis.mass)[box[e][:, None], box[e]]
            for e, axis in enumerate(form.axes)
        )
    return matrix


@full_precision
def diagonal(
    problem: HelmholtzProblem, lattice: Lattice, form: WeakForm | None = None
) -> jax.Array:
    """Diagonal of K, (N,), complex."""
    form = form or weak_form(problem, lattice)
    result = form.mass.ravel()[0]
    box = _in_box(lattice)
    for d in range(problem.ndim):
        result = result - math.prod(
            jnp.diagonal(axis.stiffness if e == d else axis.mass)[box[e]]
            for e, axis in enumerate(form.axes)
        )
    return result


def make_operator(
    problem: HelmholtzProblem, lattice: Lattice, form: WeakForm | None = None
) -> Callable[[jax.Array], jax.Array]:
    """The product with K without K: a convolution by FFT, and one product per axis.

    Only differences k_i − k_j, of at most twice the extent, enter K, so that FFTs of
    little over four times the extent give its product exactly, whatever the quadrature.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        form: Its integrals, where they are known.

    Returns:
        Linear function of weights (N, n_sources), complex.
    """
    form = form or weak_form(problem, lattice)
    shape = lattice.product_shape
    position = _position(jnp.asarray(lattice.indices), shape)
    box = _in_box(lattice)
    box_shape = tuple(2 * size + 1 for size in lattice.extent)
    mass = math.prod(shape) * jnp.fft.ifftn(form.mass)

    def one(columns):
        grid = jnp.zeros(math.prod(shape), columns.dtype)
        grid = grid.at[position].set(columns, unique_indices=True)
        values = mass * jnp.fft.ifftn(grid.reshape(shape))
        result = jnp.fft.fftn(values).ravel()[position]
        modes = (
            jnp.zeros(box_shape, columns.dtype).at[box].set(columns, unique_indices=True)
        )
        return result - _stiffness_product(form.axes, modes)[box]

    return full_precision(lambda columns: jax.lax.map(one, columns.T).T)


def _stiffness_product(axes: tuple[_Axis, ...], modes: jax.Array) -> jax.Array:
    """Σ_d (A_d ⊗ Π_{e≠d} B_e) applied to weights in the box of all modes."""
    if len(axes) == 2:
        x, z = axes
        stiff = (x.stiffness @ modes) @ z.mass.T
        return stiff + (x.mass @ modes) @ z.stiffness.T
    terms = (
        _contract(modes, [a.stiffness if e == d else a.mass for e, a in enumerate(axes)])
        for d in range(len(axes))
    )
    return functools.reduce(jnp.add, terms)


def right_hand_side(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Weak right-hand side of a problem's source, (n,), complex."""
    sources = jnp.asarray(problem.source)[None]
    velocities = jnp.asarray(problem.background_velocity)[None]
    return right_hand_sides(problem, lattice, sources, velocities)[:, 0]


@full_precision
def right_hand_sides(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: Array,
    background_velocities: Array,
) -> jax.Array:
    """Right-hand sides of several sources, (n, n_sources); see `solve_weights`."""
    omega = jnp.asarray(problem.omega)
    points = _node_points(problem, lattice)
    slowness = problem.model.squared_slowness_at(points)
    flat = points.reshape(-1, problem.ndim)
    stretched = absorbing.stretched_offset(problem.layer, flat, 0.0, omega)
    matrices = []
    for d in range(problem.ndim):
        nodes = _along(problem, d, jnp.asarray(problem.lower)[d] + lattice.nodes[d])
        stretch = absorbing.stretch(problem.layer, nodes, omega)[:, d]
        envelope, _ = absorbing.envelope(problem.layer, nodes, problem.envelope_velocity)
        size = lattice.extent[d]
        phases = _phases(problem, lattice, d, np.arange(-size, size + 1))
        matrices.append(
            phases * (jnp.asarray(lattice.node_weights[d]) * stretch * envelope)
        )

    is_lossy = jnp.iscomplexobj(background_velocities)
    single = jnp.complex64 if is_lossy else jnp.float32

    def load(pair):
        source, velocity = pair
        # Single precision in any case: its error, 1e-5, is far below the residual that
        # iterations leave, and it depends on neither the velocity nor the solution.
        field = background.background_field(
            (stretched - source).astype(jnp.complex64),
            (omega / velocity).astype(single),
            jnp.asarray(problem.amplitude, jnp.complex64),
        ).astype(stretched.dtype)
        values = residual.scattering_source(slowness.ravel(), 1 / velocity**2, field, omega)
        return _contract(values.reshape(slowness.shape), matrices)[_in_box(lattice)]

    pairs = (jnp.asarray(sources), jnp.asarray(background_velocities))
    return jax.lax.map(load, pairs).T


@full_precision
def evaluate(
    problem: HelmholtzProblem,
    lattice: Lattice,
    weights: Array,
    points: jax.Array,
    chunk: int = 2048,
) -> jax.Array:
    """Scattered wavefield at any points.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        weights: Complex output weights (n, n_sources).
        points: Coordinates (p, ndim) [km].
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
    shape = tuple(2 * size + 1 for size in extent)
    field = jnp.zeros((*shape, weights.shape[-1]), weights.dtype)
    field = field.at[_in_box(lattice)].set(weights, unique_indices=True)
    for axis, coordinates in enumerate(problem.model.axes()[::-1]):
        modes = 2 * np.pi * np.arange(-extent[axis], extent[axis] + 1) / period[axis]
        waves = jnp.exp(1j * jnp.outer(coordinates - lower[axis], jnp.asarray(modes)))
        line = _along(problem, axis, jnp.asarray(coordinates, lower.dtype))
        waves = problems.envelope_at(problem, line)[:, None] * waves
        # Contracts the leading axis and appends the grid's, so that the axes rotate.
        field = jnp.tensordot(field, waves, axes=(0, 1))
    # (n_sources, x, [y,] z) to (n_sources, z, [y,] x)
    return jnp.transpose(field, (0, *range(problem.ndim, 0, -1)))
