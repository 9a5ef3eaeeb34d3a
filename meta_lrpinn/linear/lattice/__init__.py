"""Exact solution of the scattered equation in plane waves on a lattice.

The weak form over the stretched domain Ω, in coordinates and with its absorbing layer,

    Σ_j a_j ∫ [ω² m S φ_i φ_j − Σ_d (S/s_d²) ∂_d φ_i ∂_d φ_j] dx
        = −∫ ω² (m − m₀) u₀ S φ_i dx,          S = Π_d s_d,

is complex symmetric, needs first derivatives only, and no condition at the outer edge.
The features are plane waves times the absorbing envelope, φ_j = e(x) exp(i k_j·x), with
wave vectors on the lattice 2π ℤ/P (P the size of Ω) inside the ball |k| ≤ κ 2π/λ, λ the
shortest wavelength. On a lattice every entry of the matrix is a Fourier coefficient of a
weight at k_i − k_j, so FFTs assemble all of it: n² look-ups instead of n² integrals.

Only waves that can travel somewhere in the model need a matrix. For shorter ones the
operator is elliptic and nearly diagonal. The system of all N waves is therefore solved by
minimal residuals (GCR), each product with the matrix a few FFTs, preconditioned by the
factored block of the n longest waves and by the diagonal of the others.

`waves` holds the lattice and its size, `operator` the weak form on it, `two_level` the
solution and what it is worth.
"""

from meta_lrpinn.linear.lattice.operator import (
    assemble,
    diagonal,
    evaluate,
    evaluate_on_grid,
    make_operator,
    right_hand_side,
    right_hand_sides,
)
from meta_lrpinn.linear.lattice.two_level import Solution, solve, solve_weights
from meta_lrpinn.linear.lattice.waves import (
    Lattice,
    make_lattice,
    shortest_wavelength,
    wavenumber_ratio_for,
    wavenumber_ratio_for_tolerance,
)

__all__ = [
    "Lattice",
    "Solution",
    "assemble",
    "diagonal",
    "evaluate",
    "evaluate_on_grid",
    "make_lattice",
    "make_operator",
    "right_hand_side",
    "right_hand_sides",
    "shortest_wavelength",
    "solve",
    "solve_weights",
    "wavenumber_ratio_for",
    "wavenumber_ratio_for_tolerance",
]
