"""Exact wavefields where the velocity varies with depth alone, by wavenumber integrals.

A Fourier transform along the layers turns the Helmholtz equation into one ordinary
equation for each horizontal wavenumber κ,

    g″ + (ω² m(z) − κ²) g = δ(z − z_s),

outgoing in the half-spaces above and below, and the field back in space is

    u = (1/π) ∫₀^∞ g cos(κx) dκ  in 2D,   u = (1/2π) ∫₀^∞ g J₀(κρ) κ dκ  in 3D

(Aki and Richards 2002, chapter 6; Chew 1995, chapter 2). Guided waves are poles of g on
the real axis and the half-spaces' wavenumbers are branch points; with e^{+iωt} and a
little damping they all lie below the axis, so the path of integration passes above them.
The part of u that is singular at the source, the field of a homogeneous medium with the
source's own velocity, is subtracted in closed form. In any v(z) g comes by spectral
elements. Double precision, on the host;
measured accuracy 1e-7 of the largest value or better. Complex velocities v/(1 − i/2Q)
stand for a quality factor Q throughout.

All solutions are δu = u − u₀, complex (n,), and share these arguments; each raises
ValueError where one is out of its range:

    points: Coordinates (n, 2) or (n, 3) [km]; quickest on a grid.
    frequency: f [Hz].
    source: Source position (ndim,) [km], where the velocity has no jump.
    background_velocity: v₀ of the background field [km/s]; that at the source by default.
    amplitude: A; that of the fundamental solution by default.
"""

import dataclasses
from collections.abc import Callable, Iterator

import chex
import numpy as np
import scipy.linalg
import scipy.special

from meta_lrpinn.physics import background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic
from meta_lrpinn.runtime import host

# Polynomials of the elements in depth, and quadrature points for them and 1/v².
_DEGREE, _QUADRATURE = 10, 14
# Phase k h, and velocity ratio, of an element that these polynomials resolve to 1e-10.
_ELEMENT_PHASE, _ELEMENT_RATIO = 1.5, 1.25
# The elements at the source, over 1/k: they resolve wavenumbers up to 4,000 k.
_SMALLEST_ELEMENT = 1e-3
_LARGEST_WAVENUMBER = 4000.0  # over the medium's largest; the elements resolve it
# Gauss points of a panel; singularities lie at least half a panel away, and the phase
# of a panel is at most this: each leaves less than 1e-12.
_PANEL_POINTS, _PANEL_PHASE = 16, 8.0
# The integral ends where doubling its range changes the field by less.
_TAIL = 1e-8  # a tenth of the accuracy that is promised above
_CHUNK = 256  # wavenumbers at a time; it bounds the memory and is not tuned


def depth_profile(model: VelocityModel) -> tuple[np.ndarray, np.ndarray]:
    """Depths and velocities of a model that varies with depth alone.

    Returns:
        Depths (nz,) [km], and velocities (nz,) [km/s], between which the squared slowness
        is linear, and constant beyond them, as the model is; complex with a quality.

    Raises:
        ValueError: if the velocity varies along a layer.
    """
    velocity = host.in_double(model.complex_velocity).reshape(model.shape[0], -1)
    if np.any(velocity != velocity[:, :1]):
        raise ValueError("the velocity must vary with depth alone")
    return model.axes()[0], velocity[:, 0]


def layered_medium(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    depths: np.ndarray,
    velocities: np.ndarray,
    *,
    background_velocity: complex | None = None,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Scattered field of a point source in a medium v(z), in 2D or 3D.

    The squared slowness is linear between the given depths, as that of `VelocityModel`
    is between its nodes, and constant beyond the first and the last. A depth given
    twice is a jump: `depths=[0.5, 0.5], velocities=[1.5, 3.0]` are two ideal half-spaces.

    Args:
        depths: Depths (m,) [km], not falling.
        velocities: Velocities there (m,) [km/s], real or complex.
    """
    points, source = np.asarray(points, float), np.asarray(source, float)
    depths, velocities = _checked_profile(depths, velocities)
    analytic.check_positive(frequency, "frequency", "Hz")
    omega = 2 * np.pi * frequency
    depths = _without_slivers(depths, source[-1], 1e-9 * np.real(velocities).min() / omega)
    source_velocity = _velocity_at(source[-1], depths, velocities)
    equation = _DepthEquation.make(
        omega, source[-1], source_velocity, depths, velocities, np.unique(points[:, -1])
    )
    depth = equation.edges[-1] - equation.edges[0]
    scattered = _inverse_transform(
        equation.scattered_at, points, source, depth, omega / velocities
    )
    options = source_velocity, background_velocity, amplitude
    return _with_amplitude(scattered, points, frequency, source, *options)


def two_half_spaces(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    interface: float,
    velocity_above: complex,
    velocity_below: complex,
    *,
    background_velocity: complex | None = None,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Scattered field of two half-spaces, by reflection and transmission coefficients.

    With γ = √(k² − κ²) on the source's side and γ′ on the other, constant density,
    R = (γ − γ′)/(γ + γ′) and T = 1 + R = 2γ/(γ + γ′) multiply the plane waves
    i e^{−iγ|z − z_s|}/2γ of which the source's field consists (Chew 1995, 2.1 and 2.2).

    Args:
        interface: Depth of the interface [km].
        velocity_above: Velocity at smaller depths [km/s].
        velocity_below: Velocity at larger depths [km/s].
    """
    points, source = np.asarray(points, float), np.asarray(source, float)
    analytic.check_positive(frequency, "frequency", "Hz")
    analytic.check_positive(velocity_above, "velocity above", "km/s")
    analytic.check_positive(velocity_below, "velocity below", "km/s")
    omega = 2 * np.pi * frequency
    velocities = np.array([velocity_above, velocity_below])
    gap = abs(source[-1] - interface)
    if gap == 0:
        raise ValueError(f"the source lies on the interface, at {interface} km")
    if source[-1] > interface:
        velocities = velocities[::-1]
    here, beyond = omega / velocities
    heights = np.unique(points[:, -1])
    depth = (heights - interface) * np.sign(source[-1] - interface)  # > 0: source's side

    def scattered_at(kappa):
        near, far = (
            _vertical_wavenumber(here, kappa)[:, None],
            _vertical_wavenumber(beyond, kappa)[:, None],
        )
        # Clipped, since either side's waves would grow on the other.
        behind = np.minimum(depth, 0)
        reflected = np.exp(-1j * near * (np.maximum(depth, 0) + gap))
        through = 2 * near / (near + far) * np.exp(1j * (far * behind - near * gap))
        through = through - np.exp(1j * near * (behind - gap))
        reflected = (near - far) / (near + far) * reflected
        return 0.5j / near * np.where(depth >= 0, reflected, through)

    extent = np.ptp([*heights, source[-1], interface])
    scattered = _inverse_transform(
        scattered_at, points, source, extent, np.array([here, beyond])
    )
    options = velocities[0], background_velocity, amplitude
    return _with_amplitude(scattered, points, frequency, source, *options)


def linear_velocity(
    points: np.ndarray,
    frequency: float,
    source: np.ndarray,
    velocity: float,
    gradient: float,
    *,
    background_velocity: complex | None = None,
    amplitude: complex | None = None,
) -> np.ndarray:
    """Scattered field of a line source where v = v₁ + b z everywhere, in closed form.

    Such a medium is a hyperbolic plane: with ζ = v/b the equation reads
    (ζ²Δ + ω²/b²) u = ζ_s² δ, hence u = −Q_{−1/2+iν}(cosh d)/2π, with the distance
    cosh d = 1 + (x² + (ζ − ζ_s)²)/(2 ζ ζ_s), d/b the travel time, and
    ν² = ω²/b² − 1/4 (Kuvshinov and Mulder 2006). The Legendre function is
    ∫_d^∞ e^{−iνt} (2 cosh t − 2 cosh d)^{−1/2} dt (DLMF 14.12.6), along t = d + (1 − i)s.

    Args:
        frequency: Above b/4π [Hz].
        velocity: v₁ at z = 0 [km/s].
        gradient: b, 1/s, not zero.
    """
    points, source = np.asarray(points, float), np.asarray(source, float)
    analytic.check_positive(frequency, "frequency", "Hz")
    omega = 2 * np.pi * frequency
    order = (omega / gradient) ** 2 - 0.25 if gradient else 0.0
    if order <= 0:
        raise ValueError(
            f"gradient must not be zero and at most twice ω, got {gradient} 1/s"
        )
    source_velocity = velocity + gradient * source[-1]
    speed = velocity + gradient * points[:, 1]
    if source_velocity <= 0 or np.any(speed <= 0):
        raise ValueError("the velocity must be positive at the source and all points")
    squared = np.sum((points - source) ** 2, axis=1)
    # arcosh(1 + 2q²) = 2 arsinh(q) keeps small distances.
    half = abs(gradient) * np.sqrt(squared / (4 * speed * source_velocity))
    total = _legendre(np.sqrt(order), 2 * np.arcsinh(half)) / (-2 * np.pi)
    singular = analytic.point_source(points - source, omega / source_velocity)
    # Both are infinite at the source, their difference is not.
    limit = scipy.special.digamma(0.5 + 1j * np.sqrt(order)) - np.log(omega / abs(gradient))
    scattered = np.where(squared > 0, total - singular, limit / (2 * np.pi) - 0.25j)
    options = source_velocity, background_velocity, amplitude
    return _with_amplitude(scattered, points, frequency, source, *options)


def _legendre(order: float, distance: np.ndarray) -> np.ndarray:
    """Q_{−1/2+iν}(cosh d), (n,), by the trapezoidal rule in log s."""
    # e^{−νs} and, at the lower end, √s bound the range; the integrand is analytic in
    # a strip of half-width π/4 about it, so this step leaves 1e-13.
    log_s = np.arange(-70.0, np.log(45 / order), 0.15)
    s = (1 - 1j) * np.exp(log_s)
    result = np.zeros(len(distance), complex)
    for part in np.array_split(np.arange(len(distance)), 1 + len(distance) // 4096):
        d = np.maximum(distance[part], 1e-300)[:, None]
        # 2 cosh(d + s) − 2 cosh d = 4 sinh(d + s/2) sinh(s/2), without cancellation.
        root = 2 * np.sqrt(np.sinh(d + s / 2)) * np.sqrt(np.sinh(s / 2))
        result[part] = 0.15 * np.sum(np.exp(-1j * order * (d + s)) / root * s, axis=1)
    return result


def _inverse_transform(
    transform: Callable[[np.ndarray], np.ndarray],
    points: np.ndarray,
    source: np.ndarray,
    depth: float,
    wavenumbers: np.ndarray,
) -> np.ndarray:
    """The field at points (n, ndim) from its transform in κ, complex (n,).

    Args:
        transform: Wavenumbers (n_kappa,) → values at the heights of all points, each once
            and in order, (n_kappa, n_heights).
        points: Coordinates (n, ndim) [km].
        source: Source position (ndim,) [km].
        depth: Extent of medium and points across the layers [km].
        wavenumbers: Wavenumbers of the medium: no pole or branch point beyond them.
    """
    chex.assert_shape([points, source], [(None, {2, 3}), (points.shape[-1],)])
    offsets = np.linalg.norm(points[:, :-1] - source[:-1], axis=1)
    reaches, reach_of = np.unique(offsets, return_inverse=True)
    _, height_of = np.unique(points[:, -1], return_inverse=True)
    field = np.zeros(len(offsets), complex)
    sizes = np.abs(wavenumbers)
    path = _path(sizes.min(), sizes.max(), reaches[-1], depth)
    for kappa, weight in path:
        block = np.zeros(1)
        for part in np.array_split(np.arange(len(kappa)), 1 + len(kappa) // _CHUNK):
            if len(source) == 2:
                wave = np.cos(np.outer(kappa[part], reaches)) / np.pi
            else:
                wave = scipy.special.jv(0, np.outer(kappa[part], reaches))
                wave *= kappa[part, None] / (2 * np.pi)
            weighted = transform(kappa[part]) * weight[part, None]
            block = block + weighted.T @ wave  # (n_heights, n_reaches)
        block = block[height_of, reach_of]
        field = field + block
        if np.linalg.norm(block) <= _TAIL * np.linalg.norm(field):
            break
    return field


def _path(
    lowest: float, highest: float, reach: float, depth: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Wavenumbers and weights: above the singularities, then doubling blocks to infinity.

    Args:
        lowest: Smallest wavenumber of the medium [rad/km].
        highest: Largest wavenumber of the medium [rad/km].
        reach: Largest horizontal distance [km].
        depth: Extent across the layers [km].

    Yields:
        κ and dκ, complex (n,).
    """
    # cos(κx) grows by e² at most; at low frequencies the singularities set the scale.
    height = min(0.3 * lowest, 2 / reach) if reach > 0 else 0.3 * lowest
    longest = _PANEL_PHASE / (reach + depth)
    up, down = height * (1 + 1j), highest + 2 * height + 1j * height
    count = int(np.ceil(abs(down - up) / min(2 * height, longest))) + 1
    corners = np.array([0, *np.linspace(up, down, count), highest + 3 * height])
    yield _panels(corners)
    start, end = corners[-1].real, 2 * highest
    while start < _LARGEST_WAVENUMBER * highest:
        edges = [start]
        while edges[-1] < end:
            step = min(2 * (edges[-1] - highest), longest)
            edges.append(min(edges[-1] + step, end))
        yield _panels(np.array(edges))
        start, end = end, 2 * end


def _panels(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.legendre.leggauss(_PANEL_POINTS)
    half = np.diff(corners)[:, None] / 2
    middle = (corners[:-1, None] + corners[1:, None]) / 2
    return (middle + half * points).ravel(), (half * weights).ravel()


def _with_amplitude(
    scattered, points, frequency, source, source_velocity, background_velocity, amplitude
):
    """δu for any amplitude and background, from that of the fundamental solution."""
    default = background.default_amplitude(len(source))
    amplitude = default if amplitude is None else complex(amplitude)
    scattered = scattered * (amplitude / default)
    if background_velocity is None or background_velocity == source_velocity:
        return scattered
    analytic.check_positive(background_velocity, "background velocity", "km/s")
    return scattered + analytic.shifted_background(
        points, frequency, source, source_velocity, background_velocity, amplitude
    )


def _without_slivers(depths: np.ndarray, source: float, smallest: float) -> np.ndarray:
    """Depths that only rounding separates from the source, or one another, made equal."""
    depths = np.where(np.abs(depths - source) < smallest, source, depths)
    is_new = np.concatenate([[True], np.diff(depths) >= smallest])
    return depths[np.maximum.accumulate(np.where(is_new, np.arange(len(depths)), 0))]


def _velocity_at(depth: float, depths: np.ndarray, velocities: np.ndarray) -> complex:
    jumps = depths[1:][(np.diff(depths) == 0) & (np.diff(velocities) != 0)]
    if depth in jumps:
        raise ValueError(f"the source lies on a jump of the velocity, at {depth} km")
    return (np.interp(depth, depths, velocities**-2) ** -0.5).item()


def _checked_profile(depths, velocities) -> tuple[np.ndarray, np.ndarray]:
    depths, velocities = np.asarray(depths, float), host.in_double(velocities)
    if depths.ndim != 1 or depths.shape != velocities.shape or len(depths) == 0:
        raise ValueError(
            "depths and velocities must be lists of the same length, got shapes "
            f"{depths.shape} and {velocities.shape}"
        )
    if np.any(np.diff(depths) < 0) or not np.all(np.isfinite(depths)):
        raise ValueError("depths must be finite and not fall")
    is_fine = (
        (np.real(velocities) > 0) & (np.imag(velocities) >= 0) & np.isfinite(velocities)
    )
    if not np.all(is_fine):
        raise ValueError("velocities must be positive and finite")
    return depths, velocities


def _vertical_wavenumber(wavenumber: complex, kappa: np.ndarray) -> np.ndarray:
    """γ = √(k² − κ²) with Im γ ≤ 0, for κ in the first quadrant and Im k ≤ 0."""
    return -1j * np.sqrt(np.asarray(kappa, complex) ** 2 - wavenumber**2)


@dataclasses.dataclass(frozen=True)
class _DepthEquation:
    """The equation in depth less that of the source's velocity, by spectral elements.

    Polynomials of degree p on every element, with the interior unknowns eliminated:
    the pair (B, M) of stiffness minus ω²-mass, and mass, is diagonalised within each
    element once, so that a wavenumber costs a few products and a tridiagonal solve.
    """

    wavenumbers: np.ndarray  # k above, at the source and below, (3,) [rad/km]
    source: float  # z_s [km]
    edges: np.ndarray  # (E + 1,) km
    stiffness: np.ndarray  # (E, 2, 2) B among the ends of an element [1/km]
    mass: np.ndarray  # (E, 2, 2) M among the ends [km]
    eigenvalues: np.ndarray  # (E, p − 1) of B − μM in the interior, 1/km²
    coupling: np.ndarray  # (E, p − 1, 2) B between eigenvectors and ends
    mass_coupling: np.ndarray  # (E, p − 1, 2) M between eigenvectors and ends
    quadrature: np.ndarray  # (E, q) km
    end_load: np.ndarray  # (E, q, 2) −ω²(m − m_s) times weights and end polynomials
    load: np.ndarray  # (E, q, p − 1) the same with the eigenvectors
    element_of: np.ndarray  # (n_heights,) element of each height asked for
    end_values: np.ndarray  # (n_heights, 2) end polynomials there
    values: np.ndarray  # (n_heights, p − 1) eigenvectors there

    @classmethod
    def make(cls, omega, source, source_velocity, depths, velocities, heights):
        """Elements that cover the profile, the source and all heights."""
        at_source = omega / source_velocity
        edges = _element_edges(omega, source, depths, velocities, heights)
        length = np.diff(edges)
        nodes = _lobatto_nodes(_DEGREE)
        points, weights = np.polynomial.legendre.leggauss(_QUADRATURE)
        basis, slopes = _lagrange(nodes, points), _lagrange_slopes(nodes, points)
        middle = (edges[:-1] + edges[1:]) / 2
        quadrature = middle[:, None] + length[:, None] / 2 * points
        # Jumps lie at edges of elements, never at these points.
        squared = omega**2 * np.interp(quadrature, depths, velocities**-2)
        scaled = length[:, None] / 2 * weights  # (E, q)
        mass = np.einsum("eq,qi,qj->eij", scaled, basis, basis)
        stiffness = np.einsum("eq,qi,qj->eij", scaled * squared, basis, basis)
        stiffness -= np.einsum("e,q,qi,qj->eij", 2 / length, weights, slopes, slopes)
        load = -(scaled * (squared - at_source**2))[..., None] * basis  # (E, q, p + 1)
        ends, inner = [0, _DEGREE], slice(1, _DEGREE)
        solved = [
            _eigenvectors(b, m)
            for b, m in zip(stiffness[:, inner, inner], mass[:, inner, inner], strict=True)
        ]
        vectors = np.stack([vector for _, vector in solved])
        transposed = vectors.swapaxes(1, 2)
        element_of = np.clip(np.searchsorted(edges, heights) - 1, 0, len(length) - 1)
        local = (heights - middle[element_of]) * 2 / length[element_of]
        at_heights = _lagrange(nodes, local)
        return cls(
            wavenumbers=omega / np.array([velocities[0], source_velocity, velocities[-1]]),
            source=source,
            edges=edges,
            stiffness=stiffness[:, ends][..., ends],
            mass=mass[:, ends][..., ends],
            eigenvalues=np.stack([value for value, _ in solved]),
            coupling=transposed @ stiffness[:, inner][..., ends],
            mass_coupling=transposed @ mass[:, inner][..., ends],
            quadrature=quadrature,
            end_load=load[..., ends],
            load=load[..., inner] @ vectors,
            element_of=element_of,
            end_values=at_heights[:, ends],
            values=np.einsum("zi,zij->zj", at_heights[:, inner], vectors[element_of]),
        )

    def scattered_at(self, kappa: np.ndarray) -> np.ndarray:
        """g less that of the source's own velocity, (n_kappa, n_heights)."""
        above, at_source, below = (_vertical_wavenumber(k, kappa) for k in self.wavenumbers)

        def incident(z):  # solves the equation of the source's own velocity
            phase = np.multiply.outer(at_source, np.abs(z - self.source))
            return np.exp(-1j * phase) * (0.5j / at_source).reshape(-1, *[1] * np.ndim(z))

        squared = (kappa**2)[:, None, None]
        at_points = incident(self.quadrature)
        inverse = 1 / (self.eigenvalues - squared)  # (n, E, p − 1)
        coupling = self.coupling - squared[..., None] * self.mass_coupling
        load = np.einsum("neq,eqj->nej", at_points, self.load)
        reduced = self.stiffness - squared[..., None] * self.mass
        reduced = reduced - np.einsum("neja,nej,nejb->neab", coupling, inverse, coupling)
        end_load = np.einsum("neq,eqa->nea", at_points, self.end_load)
        end_load = end_load - np.einsum("neja,nej->nea", coupling, inverse * load)

        # Continuity of g and g′ between elements; outgoing waves beyond the ends.
        diagonal = np.zeros((len(kappa), len(self.edges)), complex)
        right = np.zeros_like(diagonal)
        diagonal[:, :-1] += reduced[..., 0, 0]
        diagonal[:, 1:] += reduced[..., 1, 1]
        right[:, :-1] += end_load[..., 0]
        right[:, 1:] += end_load[..., 1]
        for end, gamma in ((0, above), (-1, below)):
            diagonal[:, end] -= 1j * gamma
            right[:, end] -= 1j * (at_source - gamma) * incident(self.edges[end])
        ends = _tridiagonal(diagonal, reduced[..., 0, 1], right)

        ends = np.stack([ends[:, self.element_of], ends[:, self.element_of + 1]], axis=-1)
        coupling, inverse, load = (
            array[:, self.element_of] for array in (coupling, inverse, load)
        )
        interior = inverse * (load - np.einsum("nzja,nza->nzj", coupling, ends))
        return np.einsum("nza,za->nz", ends, self.end_values) + np.einsum(
            "nzj,zj->nz", interior, self.values
        )


def _eigenvectors(matrix: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and V with Vᵀ B V diagonal and Vᵀ M V = 1; B may be complex symmetric."""
    if not np.iscomplexobj(matrix):
        return scipy.linalg.eigh(matrix, mass)
    lower = np.linalg.cholesky(mass)
    inner = np.linalg.solve(lower, np.linalg.solve(lower, matrix).T)
    values, vectors = np.linalg.eig(inner)
    vectors = vectors / np.sqrt(np.sum(vectors**2, axis=0))
    return values, np.linalg.solve(lower.T, vectors)


def _tridiagonal(diagonal: np.ndarray, beside: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions of n complex symmetric tridiagonal systems, all (n, m)."""
    diagonal, right = diagonal.copy(), right.copy()
    for j in range(1, diagonal.shape[1]):
        factor = beside[:, j - 1] / diagonal[:, j - 1]
        diagonal[:, j] -= factor * beside[:, j - 1]
        right[:, j] -= factor * right[:, j - 1]
    right[:, -1] /= diagonal[:, -1]
    for j in range(diagonal.shape[1] - 2, -1, -1):
        right[:, j] = (right[:, j] - beside[:, j] * right[:, j + 1]) / diagonal[:, j]
    return right


def _element_edges(omega, source, depths, velocities, heights) -> np.ndarray:
    """Edges at every depth of the profile and the source, closer towards the source."""
    slowest = velocities.real.min()
    smallest = _SMALLEST_ELEMENT * slowest / omega
    first = min(depths[0], source, heights[0]) - smallest
    last = max(depths[-1], source, heights[-1]) + smallest
    pending = np.unique([first, last, source, *depths])
    edges = [pending[0]]
    stack = list(pending[:0:-1])
    while stack:
        low, high = edges[-1], stack[-1]
        middle = np.array([low + 1e-9 * (high - low), high - 1e-9 * (high - low)])
        speeds = (np.interp(middle, depths, velocities**-2) ** -0.5).real
        length = high - low
        distance = max(low - source, source - high, 0.0)
        if (
            length * omega / speeds.min() > _ELEMENT_PHASE
            or speeds.max() / speeds.min() > _ELEMENT_RATIO
            or (length > distance and length > smallest)
        ):
            stack.append((low + high) / 2)
        else:
            edges.append(stack.pop())
    return np.array(edges)


def _lobatto_nodes(degree: int) -> np.ndarray:
    inner = np.polynomial.legendre.Legendre.basis(degree).deriv().roots()
    return np.concatenate([[-1.0], np.sort(inner.real), [1.0]])


def _lagrange(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Lagrange polynomials of the nodes at points, (len(points), len(nodes))."""
    legendre = np.polynomial.legendre.legvander
    degree = len(nodes) - 1
    return legendre(points, degree) @ np.linalg.inv(legendre(nodes, degree))


def _lagrange_slopes(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    degree = len(nodes) - 1
    coefficients = np.linalg.inv(np.polynomial.legendre.legvander(nodes, degree))
    slopes = np.polynomial.legendre.legder(coefficients)
    return np.polynomial.legendre.legval(points, slopes).T
