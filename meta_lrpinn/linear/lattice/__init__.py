"""Exact solution of the scattered equation in plane waves on a lattice.

The weak form over the stretched domain Ω, in coordinates and with its absorbing layer,

    Σ_j a_j ∫ [ω² m S φ_i φ_j − Σ_d (S/s_d²) ∂_d φ_i ∂_d φ_j] dx
        = −∫ ω² (m − m₀) u₀ S φ_i dx,          S = Π_d s_d,

is complex symmetric, needs first derivatives only, and no condition at the outer edge.
The features are plane waves times the absorbing envelope, φ_j = e(x) exp(i k_j·x), with
wave vectors on the lattice 2π ℤ/P (P the size of Ω) inside a box: `waves`. On a lattice
every entry of the matrix is a Fourier coefficient of a weight at k_i − k_j, which is
integrated over the cells of the model: `operator`. The system is solved by conjugate
residuals (`solution`), with `preconditioners`: the inverse for the nearest model whose
slowness is a sum over the axes and, where that is not enough, finite differences on a
coarse grid. All of it runs on the host and compiles nothing; the derivative of data by the
velocity is written by hand (`data`).
"""

from meta_lrpinn.linear.lattice.data import data_function as data_function
from meta_lrpinn.linear.lattice.operator import discretise as discretise
from meta_lrpinn.linear.lattice.operator import evaluate as evaluate
from meta_lrpinn.linear.lattice.operator import evaluate_on_grid as evaluate_on_grid
from meta_lrpinn.linear.lattice.solution import Prepared as Prepared
from meta_lrpinn.linear.lattice.solution import Solution as Solution
from meta_lrpinn.linear.lattice.solution import prepare as prepare
from meta_lrpinn.linear.lattice.solution import solve as solve
from meta_lrpinn.linear.lattice.waves import Lattice as Lattice
from meta_lrpinn.linear.lattice.waves import (
    default_wavenumber_ratio as default_wavenumber_ratio,
)
from meta_lrpinn.linear.lattice.waves import make_lattice as make_lattice
from meta_lrpinn.linear.lattice.waves import missing_share as missing_share
from meta_lrpinn.linear.lattice.waves import wavenumber_ratio_for as wavenumber_ratio_for
from meta_lrpinn.linear.lattice.waves import (
    wavenumber_ratio_for_tolerance as wavenumber_ratio_for_tolerance,
)
