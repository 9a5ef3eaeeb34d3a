"""Which features reach an error with the fewest unknowns, and which in least time?

On random velocities never trained on, at several frequencies, relative L2 error against
refined finite differences, number of complex unknowns, and seconds of a second call of

- plane waves on a lattice, by the two-level solve (`solve`'s default) and all of them in
  one matrix;
- plane waves at low-discrepancy and at independent random wave vectors, by quadrature;
- the meta-learned features as they are, and enriched by low-discrepancy waves;
- finite differences on one, two and three cells per cell of the model.

What any features that know the frequency but not the velocity can win is bounded by the
best linear basis: principal components (`POD`) of finite-difference wavefields of other
random velocities and sources, of which the smallest error of representing the test
fields is shown; a solve can only do worse.

At the defaults (three models, 4, 5, 8 and 10 Hz) about half an hour on one core.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, study
from meta_lrpinn import generators, models, reference
from meta_lrpinn import problem as problems
from meta_lrpinn.adapt import spectral
from meta_lrpinn.adapt.solve import load_network
from meta_lrpinn.velocity import VelocityModel

FLAGS = flags.FLAGS
NAME = "comparison"
flags.DEFINE_list("shares", ["0.5", "0.7", "1", "1.4", "2"], "Waves per resolved mode.")
flags.DEFINE_integer("most_waves", 1500, "Random waves at most; they need quadrature.")
flags.DEFINE_integer("snapshot_models", 60, "Velocities that the POD basis is made of.")

_SHAPE, _SPACING, _FIRST_SEED = (91, 91), 0.025, 910_000
_SNAPSHOT_SEED, _SNAPSHOT_SOURCES = 920_000, 6
_SOURCE = (1.0, 0.025)
_MARGINS = (1.1, 1.3, 1.6, 2.0, 2.4, 2.8)
_DIRECT_MARGINS = (1.1, 1.3, 1.6)
_TRUTH_REFINEMENT = 4

Row = dict[str, Any]


def test_model(seed: int) -> VelocityModel:
    """A velocity that nothing was trained on."""
    return generators.random_velocity(_FIRST_SEED + seed, _SHAPE, _SPACING)


def resolved_modes(problem: problems.HelmholtzProblem) -> float:
    """A k²/4π, the plane waves of the slowest velocity in the area with its layer."""
    wavenumber = float(problem.omega) / problem.model.minimum
    return float(np.prod(problem.upper - problem.lower)) * wavenumber**2 / (4 * np.pi)


def measure(frequency: float, seed: int) -> list[Row]:
    """All solvers on one model."""
    model = test_model(seed)
    truth = reference.reference_wavefield(
        model, frequency, _SOURCE, refinement=_TRUTH_REFINEMENT
    ).scattered
    problem = problems.make_problem(model, frequency, _SOURCE)
    rows = []
    for family, unknowns, solver in solvers(problem, frequency, seed):
        solver()
        field = solver()
        rows.append(
            {
                "family": family,
                "unknowns": unknowns if unknowns else field.unknowns,
                "seconds": field.elapsed,
                "error": ml.relative_l2(field.scattered, truth),
            }
        )
    return rows


def solvers(problem, frequency: float, seed: int) -> Iterator[tuple[str, int, Any]]:
    """(family, unknowns or 0 for the wavefield's own, function that solves)."""
    model, position = problem.model, (problem.model, frequency, _SOURCE)
    for margin in _MARGINS:
        yield "lattice, two levels", 0, lambda m=margin: on_lattice(problem, m, None)
    for margin in _DIRECT_MARGINS:
        yield "lattice, one matrix", 0, lambda m=margin: on_lattice(problem, m, m)
    network, params = load_network(FLAGS.init, "lrpinn", 2, jax.random.key(0))
    yield "learned", 0, lambda: ml.solve(*position, features="lrpinn", init=FLAGS.init)
    largest = 1.15 * float(problem.omega) / model.minimum
    for share in map(float, FLAGS.shares):
        number = round(share * resolved_modes(problem))
        if number > FLAGS.most_waves:
            break
        key = jax.random.key(seed)
        for sampling in ("low_discrepancy", "random"):
            waves = models.plane_wave_parameters(
                key, number, largest, sampling=sampling
            )
            init = (models.PlaneWaves(number=number), waves)
            name = f"{sampling.replace('_', ' ')} waves"
            yield name, number, lambda init=init: ml.solve(
                *position, features="lrpinn", init=init
            )
        waves = models.plane_wave_parameters(key, number, largest)
        both = models.Enriched(network=network, waves=models.PlaneWaves(number=number))
        init = (both, {"network": params, "waves": waves})
        width = network.network.width + number
        yield "learned + waves", width, lambda init=init: ml.solve(
            *position, features="lrpinn", init=init
        )
    for refinement in (1, 2, 3):
        nodes = int(np.prod([n * refinement for n in model.shape]))
        yield (
            "finite differences",
            nodes,
            lambda r=refinement: reference.reference_wavefield(*position, refinement=r),
        )


@dataclasses.dataclass(frozen=True)
class LatticeField:
    """What `measure` asks of a wavefield."""

    scattered: np.ndarray
    unknowns: int
    elapsed: float


def on_lattice(
    problem: problems.HelmholtzProblem, margin: float, dense: float | None
) -> LatticeField:
    """The plane-wave solve with a chosen part of the waves in one matrix."""
    began = time.perf_counter()
    lattice = spectral.make_lattice(problem, margin, dense=dense)
    with jax.enable_x64(True):
        solution = _solve(
            problem, lattice, problem.source[None], problem.background_velocity[None]
        )
        scattered = np.asarray(solution.fields[0])
    return LatticeField(scattered, lattice.number, time.perf_counter() - began)


_solve = jax.jit(spectral.solve)


def best_basis(frequency: float, seeds: int) -> list[Row]:
    """Error of the test fields' best representation, by size of the POD basis."""
    rng = np.random.default_rng(_SNAPSHOT_SEED)
    snapshots = []
    for index in tqdm.trange(FLAGS.snapshot_models, unit="model"):
        model = generators.random_velocity(_SNAPSHOT_SEED + index, _SHAPE, _SPACING)
        places = rng.uniform(0, model.upper[0], _SNAPSHOT_SOURCES)
        sources = np.stack([places, np.full_like(places, _SOURCE[1])], axis=-1)
        field = reference.reference_wavefield(model, frequency, sources, refinement=1)
        flat = field.scattered.reshape(len(places), -1)
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        snapshots += [flat.real, flat.imag]
    # Real features with complex weights, as a network's.
    basis = np.linalg.svd(np.concatenate(snapshots), full_matrices=False)[2]
    rows = []
    for seed in range(seeds):
        truth = study.known_case(test_model(seed), frequency, _SOURCE).scattered.ravel()
        energy = np.cumsum(np.abs(basis @ truth) ** 2) / np.linalg.norm(truth) ** 2
        for number in (16, 32, 64, 96, 128, 192, 256, 384, 512, 640):
            if number <= len(basis):
                error = float(np.sqrt(max(0.0, 1 - energy[number - 1])))
                row = {"family": "best linear basis", "unknowns": number}
                rows.append({**row, "seconds": float("nan"), "error": error})
    return rows


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    keys = ("frequency", "seed", "init")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    rows = []
    for frequency in common.frequencies((4, 5, 8, 10)):
        for seed in range(FLAGS.seeds):
            values = (frequency, seed, FLAGS.init)
            rows += records.ensure(
                dict(zip(keys, values, strict=True)), lambda: measure(frequency, seed)
            )
        values = (frequency, "pod", f"{FLAGS.snapshot_models} models")
        rows += records.ensure(
            dict(zip(keys, values, strict=True)),
            lambda: best_basis(frequency, FLAGS.seeds),
        )
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def curves(rows: Sequence[Row]) -> dict[tuple[float, str], list[tuple[float, ...]]]:
    """(frequency, family) to (unknowns, seconds, mean error, worst error), by size."""
    groups: dict[tuple, dict[int, list[Row]]] = {}
    place: dict[tuple, int] = {}
    for row in rows:
        # Sizes differ a little from model to model: the i-th of each is one point.
        family = (row["frequency"], row["family"])
        index = place[(*family, row["seed"])] = place.get((*family, row["seed"]), -1) + 1
        if row["seed"] == "pod":
            index = row["unknowns"]
        groups.setdefault(family, {}).setdefault(index, []).append(row)
    return {
        key: [
            (
                float(np.mean([row["unknowns"] for row in group])),
                float(np.mean([row["seconds"] for row in group])),
                float(np.mean([row["error"] for row in group])),
                float(np.max([row["error"] for row in group])),
            )
            for group in by_size.values()
        ]
        for key, by_size in groups.items()
    }


def report(rows: Sequence[Row]) -> str:
    """Markdown: unknowns and seconds of each family at its sizes."""
    lines = [
        [
            f"{frequency:g}",
            family,
            round(unknowns),
            "" if np.isnan(seconds) else f"{seconds:.3f}",
            f"{mean:.2%}",
            f"{worst:.2%}",
        ]
        for (frequency, family), points in curves(rows).items()
        for unknowns, seconds, mean, worst in points
    ]
    columns = ("Hz", "features", "unknowns", "seconds", "mean error", "worst error")
    note = f"{FLAGS.seeds} random velocities, 2.25 × 2.25 km; seconds of a second call."
    return f"{common.table(columns, lines)}\n\n{note}"


def draw(rows: Sequence[Row]) -> Figure:
    """Error against unknowns (above) and against seconds (below), by frequency."""
    points = curves(rows)
    frequencies = list(dict.fromkeys(frequency for frequency, _ in points))
    families = list(dict.fromkeys(family for _, family in points))
    figure = Figure(figsize=(4.2 * len(frequencies), 7.6), layout="constrained")
    panels = figure.subplots(2, len(frequencies), squeeze=False, sharey=True)
    for (frequency, family), values in points.items():
        column = frequencies.index(frequency)
        # Where a solver's grid is the truth's own there is no error to show.
        shown = [value for value in sorted(values) if value[2] > 0]
        unknowns, seconds, error, _ = np.array(shown).T
        style = {"color": study.color(families.index(family)), "label": family}
        if family != "finite differences":
            panels[0, column].loglog(unknowns, error, "o-", ms=3, **style)
        if family != "best linear basis":
            panels[1, column].loglog(seconds, error, "o-", ms=3, **style)
        panels[0, column].set(title=f"{frequency:g} Hz", xlabel="complex unknowns")
        panels[1, column].set(xlabel="seconds, second call")
    for axes in panels[:, 0]:
        axes.set_ylabel("relative L2 error")
    panels[0, 0].legend(frameon=False, fontsize=7)
    panels[1, 0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    common.run(main)
