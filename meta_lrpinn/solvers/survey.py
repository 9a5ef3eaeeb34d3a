"""Whole surveys in one call: many velocities, frequencies and sources by plane waves.

One lattice serves all velocities of a frequency, so the solver is compiled once per
frequency; a matrix is factored once per velocity and frequency, and the sources are its
right-hand sides.
"""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from meta_lrpinn import problem as problems
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.velocity import VelocityModel


@dataclasses.dataclass(frozen=True)
class Survey:
    """Scattered wavefields of all combinations."""

    frequencies: np.ndarray  # (n_frequencies,) Hz
    sources: np.ndarray  # (n_sources, ndim) km
    receivers: np.ndarray | None  # (n_receivers, ndim) km, None for the models' grid
    # (n_models, n_frequencies, n_sources, n_receivers), or the grid's shape at the end
    scattered: np.ndarray
    unknowns: tuple[int, ...]  # plane waves at each frequency
    change: np.ndarray  # (n_models, n_frequencies) change by the shortest third of waves
    elapsed: float  # s, compilation included

    @property
    def throughput(self) -> float:
        """Wavefields per second, compilation included."""
        models, frequencies, sources = self.scattered.shape[:3]
        return models * frequencies * sources / self.elapsed


def shared_problem(
    models: Sequence[VelocityModel],
    frequency: float,
    sources: np.ndarray,
    layer_share: float = 1.0,
) -> HelmholtzProblem:
    """A problem whose layer and smallest velocity serve all models of a survey.

    Args:
        models: Velocity models on one grid.
        frequency: Frequency, Hz.
        sources: Source positions (n_sources, ndim), km.
        layer_share: Thickness of the layer, over the default.

    Returns:
        The problem of the smallest velocity at every grid point, in a layer for the
        mean velocity of all.

    Raises:
        ValueError: the models are on different grids, or a source lies outside.
    """
    grids = {(m.shape, m.spacing, m.origin) for m in models}
    if len(grids) != 1:
        raise ValueError("the models of a survey must share one grid")
    for source in sources:
        models[0].check_contains(source, what="source")
    mean = models[0].replace_velocity(np.mean([m.velocity for m in models], axis=0))
    lowest = models[0].replace_velocity(np.min([m.velocity for m in models], axis=0))
    problem = problems.make_problem(mean, frequency, sources[0], layer_share=layer_share)
    return problem.replace(model=lowest)


def solve_survey(
    models: Sequence[VelocityModel],
    frequencies: Sequence[float],
    sources: np.ndarray,
    *,
    receivers: np.ndarray | None = None,
    amplitude: complex | None = None,
    wavenumber_ratio: float = 2.4,
    memory: float = 4.0,
    precision: str = "double",
    progress: bool = False,
) -> Survey:
    """Solve for every velocity, frequency and source.

    Args:
        models: Velocity models on one grid.
        frequencies: Frequencies, Hz.
        sources: Source positions (n_sources, ndim), km, the same for all.
        receivers: Positions (n_receivers, ndim), km; default: the models' grid.
        amplitude: A of the background field; default: fundamental solution.
        wavenumber_ratio: κ of `lattices.make_lattice`.
        memory: GiB that right-hand sides and fields of one solve may take; sources are
            split into batches that fit.
        precision: "double" or "single".
        progress: Show a progress bar.

    Returns:
        The survey.

    Raises:
        ValueError: bad input, in one line.
    """
    began = time.perf_counter()
    models, sources = list(models), np.atleast_2d(np.asarray(sources, float))
    if not models or not len(frequencies):
        raise ValueError("a survey needs at least one model and one frequency")
    if precision not in ("double", "single"):
        raise ValueError(f"precision must be double or single, got {precision!r}")
    shape = models[0].shape if receivers is None else (len(receivers),)
    size = (len(models), len(frequencies))
    scattered = np.empty((*size, len(sources), *shape), np.complex64)
    change, unknowns = np.empty(size), []
    velocities = np.array(
        [[problems.velocity_at(m, source) for source in sources] for m in models]
    )
    with (
        jax.enable_x64(precision == "double"),
        tqdm.tqdm(total=size[0] * size[1], disable=not progress, unit="solve") as bar,
    ):
        for column, frequency in enumerate(frequencies):
            problem = shared_problem(models, frequency, sources)
            if amplitude is not None:
                problem = problem.replace(amplitude=np.asarray(amplitude, complex))
            lattice = lattices.make_lattice(problem, wavenumber_ratio, sources=len(sources))
            unknowns.append(lattice.number)
            batch = _sources_per_batch(lattice, shape, len(sources), memory)
            for row, model in enumerate(models):
                own = problem.replace(model=model)
                fields, changes = [], []
                for start in range(0, len(sources), batch):
                    part = slice(start, start + batch)
                    field, moved = _solve(
                        own, lattice, sources[part], velocities[row, part], receivers
                    )
                    fields.append(np.asarray(field))
                    changes.append(float(moved))
                scattered[row, column] = np.concatenate(fields)
                change[row, column] = max(changes)
                bar.update()
    return Survey(
        frequencies=np.asarray(frequencies, float),
        sources=sources,
        receivers=receivers,
        scattered=scattered,
        unknowns=tuple(unknowns),
        change=change,
        elapsed=time.perf_counter() - began,
    )


def _sources_per_batch(
    lattice: lattices.Lattice, shape: tuple[int, ...], number: int, memory: float
) -> int:
    # Right-hand side, solution, search directions and two fields of each source, 16
    # bytes a number.
    each = 16 * (32 * lattice.number + 2 * int(np.prod(shape)))
    return int(np.clip(memory * 2**30 // each, 1, number))


@jax.jit
def _solve(
    problem: HelmholtzProblem,
    lattice: lattices.Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    receivers: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    solution = lattices.solve(problem, lattice, sources, background_velocities)
    if receivers is None:
        return solution.fields, solution.change
    points = jnp.asarray(receivers, jnp.asarray(problem.lower).dtype)
    fields = lattices.evaluate(problem, lattice, solution.weights, points).T
    return fields, solution.change


def receiver_data(
    problem: HelmholtzProblem,
    lattice: lattices.Lattice,
    sources: jax.Array,
    background_velocities: jax.Array,
    receivers: jax.Array,
) -> jax.Array:
    """Scattered wavefields at receivers, pure and differentiable in the velocity.

    `jax.grad` of a misfit of these data is the adjoint-state gradient: one more solve
    with the same factors.

    Args:
        problem: Velocity, frequency and layer.
        lattice: From `lattices.make_lattice`, for the slowest velocity to come.
        sources: (n_sources, ndim), km.
        background_velocities: v₀ of each, (n_sources,), km/s.
        receivers: (n_receivers, ndim), km.

    Returns:
        Complex (n_sources, n_receivers).
    """
    weights = lattices.solve_weights(problem, lattice, sources, background_velocities)
    return lattices.evaluate(problem, lattice, weights, receivers).T
