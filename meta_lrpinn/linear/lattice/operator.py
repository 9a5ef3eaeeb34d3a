"""Matrix, product and right-hand side of the weak form in plane waves, and evaluation.

All weights but the slowness are products over the axes, of the stretching and the
envelope. With a(q), b(q) the coefficients of e²/s and s e² along one axis,

    K = Σ_d −A_d ⊗ Π_{e≠d} B_e + M,     A = Toeplitz form of ∂φ* ∂φ/s,  B = that of s φ* φ,

and M holds the coefficients of ω² m S e² at k_i − k_j. Integrals are sums over the
tensor grid of `Lattice.nodes`, one axis at a time, by matrix products. Weights are arrays
over the box of waves, `Lattice.shape`, with the source as their first axis.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.linear.lattice.waves import Lattice, period_of
from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime.precision import Array, full_precision

# Numbers that the padded weights of sources may have to be transformed together: they
# then stay in a processor's cache.
_TOGETHER = 2**16


class _Axis(struct.PyTreeNode):
    """One axis of the weak form, G nodes, modes −e..e."""

    stretch: jax.Array  # (G,) s at the nodes, complex
    envelope: jax.Array  # (G,) e at the nodes
    stiffness: jax.Array  # (2e + 1, 2e + 1) ∫ ∂φ_i* ∂φ_j / s dx [1/km]
    mass: jax.Array  # (2e + 1, 2e + 1) ∫ s φ_i* φ_j dx [km]


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


def axis_waves(
    problem: HelmholtzProblem, lattice: Lattice, axis: int
) -> tuple[jax.Array, jax.Array]:
    """Enveloped waves of one axis at its nodes, and their derivatives.

    Returns:
        e exp(iqx) and its derivative [1/km], complex (2 extent + 1, G).
    """
    nodes = jnp.asarray(problem.lower)[axis] + jnp.asarray(lattice.nodes[axis])
    points = _along(problem, axis, nodes)
    envelope, slope = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    modes = lattice.modes(axis)
    wavenumbers = 2 * np.pi * jnp.asarray(modes) / jnp.asarray(period_of(problem))[axis]
    value = envelope * _phases(problem, lattice, axis, modes, sign=1)
    return value, (1j * wavenumbers[:, None] + slope[:, axis]) * value


def _axis_of(problem: HelmholtzProblem, lattice: Lattice, axis: int) -> _Axis:
    nodes = jnp.asarray(problem.lower)[axis] + jnp.asarray(lattice.nodes[axis])
    points = _along(problem, axis, nodes)
    stretch = absorbing.stretch(problem.layer, points, jnp.asarray(problem.omega))[:, axis]
    envelope, _ = absorbing.envelope(problem.layer, points, problem.envelope_velocity)
    value, gradient = axis_waves(problem, lattice, axis)
    weights = jnp.asarray(lattice.node_weights[axis])
    return _Axis(
        stretch=stretch,
        envelope=envelope,
        stiffness=(gradient.conj() * (weights / stretch)) @ gradient.T,
        mass=(value.conj() * (weights * stretch)) @ value.T,
    )


def contract(values: jax.Array, matrices: Sequence[jax.Array], first: int = 0) -> jax.Array:
    """Applies one matrix (m_d, n_d) along each axis of values, from axis `first` on."""
    for axis, matrix in enumerate(matrices, start=first):
        values = jnp.moveaxis(jnp.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def node_points(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
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
    slowness = problem.model.squared_slowness_at(node_points(problem, lattice))
    weights = [
        jnp.asarray(w) * axis.stretch * axis.envelope**2
        for w, axis in zip(lattice.node_weights, axes, strict=True)
    ]
    modes = [np.fft.fftfreq(n, 1 / n).astype(int) for n in lattice.product_shape]
    mass = contract(
        slowness.astype(weights[0].dtype),
        [
            _phases(problem, lattice, d, m) * w
            for d, (m, w) in enumerate(zip(modes, weights, strict=True))
        ],
    )
    return WeakForm(axes=axes, mass=jnp.asarray(problem.omega) ** 2 * mass)


@full_precision
def assemble(
    problem: HelmholtzProblem,
    lattice: Lattice,
    form: WeakForm | None = None,
    indices: Array | None = None,
) -> jax.Array:
    """Galerkin matrix of some of the waves; independent of the source.

    The test functions are the conjugate plane waves, which span the same space.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        form: Its integrals, where they are known.
        indices: Lattice indices of the waves, (n, ndim); default: all.

    Returns:
        The block of K of these waves, (n, n), complex.
    """
    form = form or weak_form(problem, lattice)
    waves = jnp.asarray(lattice.indices if indices is None else indices)
    shape = lattice.product_shape
    difference = waves[:, None, :] - waves[None, :, :]
    matrix = form.mass[tuple(difference[..., d] % n for d, n in enumerate(shape))]
    rows = tuple((waves + jnp.asarray(lattice.extent)).T)
    for d in range(problem.ndim):
        matrix = matrix - math.prod(
            (axis.stiffness if e == d else axis.mass)[rows[e][:, None], rows[e]]
            for e, axis in enumerate(form.axes)
        )
    return matrix


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
        Linear function of weights (n_sources, *lattice.shape), complex.
    """
    form = form or weak_form(problem, lattice)
    shape = lattice.product_shape
    axes = tuple(range(-len(shape), 0))
    mass = math.prod(shape) * jnp.fft.ifftn(form.mass)
    padding = [(0, n - m) for n, m in zip(shape, lattice.shape, strict=True)]
    box = tuple(slice(m) for m in lattice.shape)

    def one(weights):
        # A convolution only sees differences of indices, so they may begin at zero.
        values = mass * jnp.fft.ifftn(jnp.pad(weights, padding), axes=axes)
        return jnp.fft.fftn(values, axes=axes)[box]

    together = max(1, _TOGETHER // math.prod(shape))

    def product(weights):
        scattered = jax.lax.map(one, weights, batch_size=together)
        return scattered - _stiffness_product(form.axes, weights)

    return full_precision(product)


def _stiffness_product(axes: tuple[_Axis, ...], weights: jax.Array) -> jax.Array:
    """Σ_d (A_d ⊗ Π_{e≠d} B_e) applied to weights (n_sources, *lattice.shape)."""
    if len(axes) == 2:
        x, z = axes
        stiff = jnp.matmul(x.stiffness, weights) @ z.mass.T
        return stiff + jnp.matmul(x.mass, weights) @ z.stiffness.T
    terms = (
        contract(
            weights, [a.stiffness if e == d else a.mass for e, a in enumerate(axes)], 1
        )
        for d in range(len(axes))
    )
    return functools.reduce(jnp.add, terms)


def right_hand_side(problem: HelmholtzProblem, lattice: Lattice) -> jax.Array:
    """Weak right-hand side of a problem's source, complex, of the shape of the lattice."""
    sources = jnp.asarray(problem.source)[None]
    velocities = jnp.asarray(problem.background_velocity)[None]
    return right_hand_sides(problem, lattice, sources, velocities)[0]


@full_precision
def right_hand_sides(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: Array,
    background_velocities: Array,
) -> jax.Array:
    """Right-hand sides of several sources, (n_sources, *lattice.shape), complex.

    Arguments as of `solve_weights`.
    """
    omega = jnp.asarray(problem.omega)
    points = node_points(problem, lattice)
    slowness = problem.model.squared_slowness_at(points)
    flat = points.reshape(-1, problem.ndim)
    stretched = absorbing.stretched_offset(problem.layer, flat, 0.0, omega)
    matrices = []
    for d in range(problem.ndim):
        nodes = _along(problem, d, jnp.asarray(problem.lower)[d] + lattice.nodes[d])
        stretch = absorbing.stretch(problem.layer, nodes, omega)[:, d]
        envelope, _ = absorbing.envelope(problem.layer, nodes, problem.envelope_velocity)
        phases = _phases(problem, lattice, d, lattice.modes(d))
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
        return contract(values.reshape(slowness.shape), matrices)

    pairs = (jnp.asarray(sources), jnp.asarray(background_velocities))
    return jax.lax.map(load, pairs)


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
        weights: Complex output weights (n_sources, *lattice.shape).
        points: Coordinates (p, ndim) [km].
        chunk: Points evaluated at a time.

    Returns:
        Complex (n_sources, p).
    """
    period, lower = jnp.asarray(period_of(problem)), jnp.asarray(problem.lower)

    def at(point):
        waves = [
            jnp.exp(2j * np.pi / period[d] * (point - lower)[d] * lattice.modes(d))
            for d in range(problem.ndim)
        ]
        field = jnp.asarray(weights)
        for wave in waves[::-1]:
            field = field @ wave
        return problems.envelope_at(problem, point[None])[0] * field

    return jax.lax.map(at, points, batch_size=chunk).T


@full_precision
def evaluate_on_grid(
    problem: HelmholtzProblem, lattice: Lattice, weights: jax.Array
) -> jax.Array:
    """Scattered wavefield on the model's grid, one axis at a time.

    A grid may reach beyond the box into the layer, where the waves decay.

    Args:
        problem: The problem.
        lattice: From `make_lattice`.
        weights: Complex output weights (n_sources, *lattice.shape).

    Returns:
        Complex (n_sources, nz, nx) or (n_sources, nz, ny, nx).
    """
    period, lower = jnp.asarray(period_of(problem)), jnp.asarray(problem.lower)
    matrices = []
    for axis, coordinates in enumerate(problem.model.axes()[::-1]):
        wavenumbers = 2 * np.pi * jnp.asarray(lattice.modes(axis)) / period[axis]
        waves = jnp.exp(1j * jnp.outer(coordinates - lower[axis], wavenumbers))
        line = _along(problem, axis, jnp.asarray(coordinates, lower.dtype))
        matrices.append(problems.envelope_at(problem, line)[:, None] * waves)
    fields = contract(weights, matrices, first=1)
    # (n_sources, x, [y,] z) to (n_sources, z, [y,] x)
    return jnp.transpose(fields, (0, *range(problem.ndim, 0, -1)))
