"""Plane waves on a lattice: the default solver. The numerics are in `linear`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import PlaneWaves
from meta_lrpinn.wavefield import Statistics

# Largest wavenumber over that of the slowest wave, by dimension: errors near 0.3 %.
DEFAULT_WAVENUMBER_RATIO = {2: 2.4, 3: 1.9}
# The matrix of this many waves takes 2.3 GiB, and its factors as much again.
_MAXIMUM_WAVES = 12_000


@dataclasses.dataclass(frozen=True)
class PlaneWaveField:
    """The wavefield of a lattice's weights, as a function of points; can be pickled."""

    problem: HelmholtzProblem
    lattice: lattices.Lattice
    weights: np.ndarray  # (N, n_sources) complex
    is_double: bool

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        with jax.enable_x64(self.is_double):
            points = jnp.asarray(points, float)
            values = lattices.evaluate(self.problem, self.lattice, self.weights, points)
            return np.asarray(values).T


def solve(request: Request, settings: PlaneWaves) -> Solution:
    """Solves for all sources of a request at once, with one matrix.

    Raises:
        ValueError: if the problem needs more waves than can be solved for.
    """
    problem = request.problems()[0]
    ratio = DEFAULT_WAVENUMBER_RATIO[problem.ndim]
    if settings.unknowns is not None:
        ratio = lattices.wavenumber_ratio_for(problem, settings.unknowns)
    elif settings.tolerance is not None:
        ratio = lattices.wavenumber_ratio_for_tolerance(settings.tolerance)
    history = []
    is_double = settings.precision == "double"
    with (
        jax.enable_x64(is_double),
        tqdm.tqdm(disable=not request.progress, unit="solve") as bar,
    ):
        while True:
            lattice = lattices.make_lattice(problem, ratio, sources=len(request.sources))
            if lattice.dense > _MAXIMUM_WAVES:
                raise ValueError(
                    f"{lattice.dense} plane waves are too many to solve for; choose a "
                    "smaller model, a lower frequency, or a looser tolerance"
                )
            solution = jax.block_until_ready(
                _solve_lattice(
                    problem, lattice, request.sources, request.background_velocities
                )
            )
            estimate = float(solution.change)
            record = {"unknowns": lattice.number, "error_estimate": estimate}
            if request.truth is not None:
                record["relative_l2"] = relative_l2(solution.fields, request.truth)
            history.append(record)
            bar.update()
            bar.set_postfix(unknowns=lattice.number, estimate=f"{estimate:.2g}")
            if settings.tolerance is None or estimate <= settings.tolerance:
                break
            ratio *= 1.5 ** (1 / problem.ndim)
    return Solution(
        fields=np.asarray(solution.fields),
        evaluate=PlaneWaveField(problem, lattice, np.asarray(solution.weights), is_double),
        stats=Statistics(unknowns=lattice.number),
        history=tuple(history),
        error_estimates=np.full(len(request.sources), estimate),
        converged=None if settings.tolerance is None else estimate <= settings.tolerance,
    )


_solve_lattice = jax.jit(lattices.solve)
