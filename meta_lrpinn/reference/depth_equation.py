"""The Helmholtz equation in depth for one horizontal wavenumber, by spectral elements.

    g″ + (ω² m(z) − κ²) g = δ(z − z_s),

outgoing above and below the profile. `layered_media` integrates its solutions over κ.
"""

import dataclasses

import numpy as np
import scipy.linalg

# Polynomials of the elements in depth, and quadrature points for them and 1/v².
_DEGREE, _QUADRATURE = 10, 14
# Phase k h, and velocity ratio, of an element that these polynomials resolve to 1e-10.
_ELEMENT_PHASE, _ELEMENT_RATIO = 1.5, 1.25
# The elements at the source, over 1/k: they resolve wavenumbers up to 4,000 k.
_SMALLEST_ELEMENT = 1e-3


def vertical_wavenumber(wavenumber: complex, kappa: np.ndarray) -> np.ndarray:
    """γ = √(k² − κ²) with Im γ ≤ 0, for κ in the first quadrant and Im k ≤ 0."""
    return -1j * np.sqrt(np.asarray(kappa, complex) ** 2 - wavenumber**2)


@dataclasses.dataclass(frozen=True)
class DepthEquation:
    """g″ + (ω²m − κ²) g = δ, less that of the source's velocity, by spectral elements.

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
    def make(cls, omega, source, own_velocity, depths, velocities, heights):
        """Elements that cover the profile, the source and all heights."""
        own = omega / own_velocity
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
        load = -(scaled * (squared - own**2))[..., None] * basis  # (E, q, p + 1)
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
            wavenumbers=np.array([omega / velocities[0], own, omega / velocities[-1]]),
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
        above, own, below = (vertical_wavenumber(k, kappa) for k in self.wavenumbers)

        def incident(z):  # solves the equation of the source's own velocity
            phase = np.multiply.outer(own, np.abs(z - self.source))
            return np.exp(-1j * phase) * (0.5j / own).reshape(-1, *[1] * np.ndim(z))

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
        for place, gamma in ((0, above), (-1, below)):
            diagonal[:, place] -= 1j * gamma
            right[:, place] -= 1j * (own - gamma) * incident(self.edges[place])
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
