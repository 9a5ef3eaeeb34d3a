"""Which features reach an error with the fewest unknowns, and which in least time?

On random velocities never trained on, at several frequencies, relative L2 error against
refined finite differences, number of complex unknowns, and seconds of

- plane waves on a lattice (`solve`'s default);
- plane waves at low-discrepancy and at independent random wave vectors, by quadrature;
- the leading meta-learned features, as they are, and enriched by low-discrepancy waves;
- finite differences on one, two and three cells per cell of the model.

All velocities of a frequency share one layer, so that every solver is compiled once:
waves the default one, learned features that they were trained in, for which there is a
row of plane waves as well.

What any features that know the frequency but not the velocity can win is bounded by the
best linear basis: principal components (`POD`) of finite-difference wavefields of other
random velocities and sources, of which the smallest error of representing the test
fields is shown; a solve can only do worse.

With --published, the same for the models of the data folder one by one, plane waves and
learned features only: the layered cases at their own frequency and source, the windows of
`sharp_models` and `overthrust`, not smoothed, at 5 Hz.

At the defaults (ten velocities, 4, 5, 8 and 10 Hz) about half an hour on one core.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags
from flax import linen as nn
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories, overthrust, random_waves, sharp_models, study
from experiments.enriched import Enriched
from meta_lrpinn import generators
from meta_lrpinn.learning import objectives, output_layer
from meta_lrpinn.learning.networks import Network, number_of_features
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.absorbing import AbsorbingLayer
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import scripts
from meta_lrpinn.solvers.network_features import CHANGE_OVER_ERROR

FLAGS = flags.FLAGS
NAME = "comparison"
flags.DEFINE_list("fractions", ["1", "1.4", "2"], "Waves per resolved mode.")
flags.DEFINE_integer("most_waves", 1500, "Random waves at most; they need quadrature.")
flags.DEFINE_integer("velocities", 10, "Random test velocities.", lower_bound=1)
flags.DEFINE_integer("snapshot_models", 120, "Velocities that the POD basis is made of.")

flags.DEFINE_bool("published", False, "Also the models of the data folder.")

_SHAPE, _SPACING, _FIRST_SEED = (91, 91), 0.025, 910_000
_SNAPSHOT_SEED, _SNAPSHOT_SOURCES = 920_000, 6
_SOURCE = (1.0, 0.025)
_RATIOS = (1.05, 1.1, 1.2, 1.3, 1.6, 2.0, 2.4)
_THINNER_RATIOS = (1.05, 1.1, 1.2, 1.3, 1.6, 2.0)
_LEADING = (0.125, 0.1875, 0.25, 0.3125, 0.375, 0.5, 2 / 3, 0.75, 0.875, 1.0)
_COARSER = _LEADING.index(2 / 3)  # what the full set is compared with, as by `solve`
_TRUTH_REFINEMENT = 3

THINNER = "lattice, layer as learned"

_WINDOW_FREQUENCY = 5.0


Row = dict[str, Any]
# Problem to errors' fields: (nz × nx, sizes), and the sizes in complex unknowns.
Solver = Callable[[problems.HelmholtzProblem], tuple[np.ndarray, tuple[int, ...]]]


def test_models() -> list[VelocityModel]:
    """Velocities that nothing was trained on."""
    return [
        generators.random_velocity(_FIRST_SEED + seed, _SHAPE, _SPACING)
        for seed in range(FLAGS.velocities)
    ]


def resolved_modes(problem: problems.HelmholtzProblem) -> float:
    """A k²/4π, the plane waves of the slowest velocity in the area with its layer."""
    wavenumber = float(problem.omega) / problem.model.minimum
    return float(np.prod(problem.upper - problem.lower)) * wavenumber**2 / (4 * np.pi)


def published_models() -> Iterator[tuple[str, VelocityModel, float, np.ndarray]]:
    """Name, model, frequency (Hz) and source (km) of what the data folder holds."""
    for name, file in common.LAYERED_CASES.items():
        case = common.middle_source(common.published_case(file))
        yield name, case.model, case.frequency, case.source
    windows = dict(sharp_models.WINDOWS)
    windows["Overthrust"] = (overthrust.NAME, FLAGS.overthrust_left, 0.0)
    for name, window in windows.items():
        model = study.square_window(*window)
        yield name, model, _WINDOW_FREQUENCY, study.top_source(model)


def measure(
    chosen: Sequence[VelocityModel],
    frequency: float,
    position: Sequence[float],
    solvers: Callable[..., Iterator[tuple[str, AbsorbingLayer, Solver]]],
) -> list[Row]:
    """All solvers on all models, for one frequency (Hz) and source position (km)."""
    # Every lattice is a program of its own, of which a process can hold only so many.
    jax.clear_caches()
    truths = [
        by_refinement(model, frequency, position, _TRUTH_REFINEMENT).scattered.ravel()
        for model in chosen
    ]
    start = study.feature_start()
    shared, thinner = (
        common.shared_problem(chosen, frequency, [position], layer_fraction)
        for layer_fraction in (1.0, start.layer_fraction)
    )

    def problem_of(model, layer):
        return shared.replace(
            model=model,
            background_velocity=np.asarray(problems.velocity_at(model, position)),
            layer=layer,
        )

    rows = []
    for family, layer, solver in solvers(shared, thinner, start):
        for index, (model, truth) in enumerate(zip(chosen, truths, strict=True)):
            problem = problem_of(model, layer)
            solver(problem)  # compiles; quadrature grids depend on the velocity
            began = time.perf_counter()
            fields, sizes = solver(problem)
            seconds = time.perf_counter() - began
            for column, unknowns in enumerate(sizes):
                row = {
                    "family": family,
                    "velocity": index,
                    "unknowns": unknowns,
                    "seconds": float("nan"),
                    "error": ml.relative_l2(fields[:, column], truth),
                    "estimate": float("nan"),
                }
                rows.append(row)
            # Of several sizes at once, the time is that of the largest.
            row["seconds"] = seconds
            if len(sizes) > 1:
                change = ml.relative_l2(fields[:, _COARSER], fields[:, -1])
                row["estimate"] = change / CHANGE_OVER_ERROR
    return rows


def waves_and_learned(
    shared: problems.HelmholtzProblem,
    thinner: problems.HelmholtzProblem,
    network: Network,
) -> Iterator[tuple[str, AbsorbingLayer, Solver]]:
    """Families with the layer they are solved in: plane waves, learned features.

    Args:
        shared: The smallest velocities of all at every place, in the default layer.
        thinner: The same in the layer that the learned features are for.
        network: Of the learned features.
    """
    for wavenumber_ratio in _RATIOS:
        yield "lattice", shared.layer, on_lattice(shared, wavenumber_ratio)
    for wavenumber_ratio in _THINNER_RATIOS:
        yield THINNER, thinner.layer, on_lattice(thinner, wavenumber_ratio)
    learned = over_features(network.module, network.params, shared, _LEADING)
    yield "learned", thinner.layer, learned


def all_solvers(
    shared: problems.HelmholtzProblem,
    thinner: problems.HelmholtzProblem,
    network: Network,
) -> Iterator[tuple[str, AbsorbingLayer, Solver]]:
    """Those of `waves_and_learned`, and all others."""
    yield from waves_and_learned(shared, thinner, network)
    wavenumber = float(shared.omega) / shared.model.minimum
    key = jax.random.key(0)
    for fraction in map(float, FLAGS.fractions):
        number = round(fraction * resolved_modes(shared))
        if number > FLAGS.most_waves:
            break
        module = random_waves.PlaneWaves(number=number)
        maximum = 1.15 * wavenumber
        waves = random_waves.plane_wave_parameters(key, number, maximum)
        yield "low discrepancy waves", shared.layer, over_features(module, waves, shared)
        waves = independent_waves(key, number, maximum)
        yield "random waves", shared.layer, over_features(module, waves, shared)
    number = network.number_of_features // 2
    waves = random_waves.plane_wave_parameters(key, number, 1.15 * wavenumber)
    both = Enriched(network=network.module, waves=random_waves.PlaneWaves(number=number))
    enriched = over_features(both, {"network": network.params, "waves": waves}, shared)
    yield "learned + waves", thinner.layer, enriched
    for refinement in (1, 2):
        yield "finite differences", shared.layer, by_differences(refinement)


def independent_waves(key: jax.Array, number: int, maximum: float) -> objectives.Params:
    """Parameters of plane waves drawn one by one, uniform in the disc |k| ≤ maximum."""
    radius, azimuth, phase = jax.random.uniform(key, (3, number))
    angle = 2 * np.pi * azimuth
    directions = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return {
        "wave_vectors": maximum * jnp.sqrt(radius)[:, None] * directions,
        "phases": (2 * phase - 1) * np.pi,
    }


def over_features(
    network: nn.Module,
    params: objectives.Params,
    shared: problems.HelmholtzProblem,
    fractions: tuple[float, ...] = (1.0,),
) -> Solver:
    """The Galerkin solve over features, at leading parts of them."""
    width = number_of_features(network, params)
    sizes = tuple(round(fraction * width) for fraction in fractions)
    grid = shared.model.grid_points()

    def solver(problem):
        weights = output_layer.solve_nested(network, params, problem, fractions, True)
        field = output_layer.FeatureField(network, params, problem, weights, True)
        return field(grid), sizes

    return solver


def on_lattice(shared: problems.HelmholtzProblem, wavenumber_ratio: float) -> Solver:
    """The plane-wave solve."""
    lattice = lattices.make_lattice(shared, wavenumber_ratio)

    def solver(problem):
        own = problem.source[None], problem.background_velocity[None]
        solution = lattices.solve(problem, lattice, *own)
        return solution.fields.reshape(-1, 1), (lattice.number,)

    return solver


def by_differences(refinement: int) -> Solver:
    """The reference solver on so many cells per cell of the model."""

    def solver(problem):
        frequency = float(problem.omega) / (2 * np.pi)
        source = np.asarray(problem.source)
        field = by_refinement(problem.model, frequency, source, refinement)
        nodes = tuple(n * refinement for n in problem.model.shape)
        return field.scattered.reshape(-1, 1), (int(np.prod(nodes)),)

    return solver


def by_refinement(
    model: VelocityModel, frequency: float, source: np.ndarray, refinement: int
) -> ml.Wavefield:
    """Finite differences on so many cells per cell of the model."""
    settings = ml.FiniteDifferences(tolerance=None, refinement=refinement)
    return ml.solve(model, frequency, source, settings)


def best_basis(frequency: float) -> list[Row]:
    """Error of the test fields' best representation, by size of the POD basis."""
    rng = np.random.default_rng(_SNAPSHOT_SEED)
    snapshots = []
    for index in tqdm.trange(FLAGS.snapshot_models, unit="model"):
        model = generators.random_velocity(_SNAPSHOT_SEED + index, _SHAPE, _SPACING)
        places = rng.uniform(0, model.upper[0], _SNAPSHOT_SOURCES)
        sources = np.stack([places, np.full_like(places, _SOURCE[1])], axis=-1)
        field = by_refinement(model, frequency, sources, 1)
        flat = field.scattered.reshape(len(places), -1)
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        snapshots += [flat.real, flat.imag]
    # Real features with complex weights, as a network's.
    basis = np.linalg.svd(np.concatenate(snapshots), full_matrices=False)[2]
    rows = []
    for index, model in enumerate(test_models()):
        truth = by_refinement(model, frequency, _SOURCE, 1).scattered.ravel()
        energy = np.cumsum(np.abs(basis @ truth) ** 2) / np.linalg.norm(truth) ** 2
        for number in (16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768):
            if number <= len(basis):
                error = float(np.sqrt(max(0.0, 1 - energy[number - 1])))
                row = {"family": "best linear basis", "velocity": index}
                row |= {"unknowns": number, "error": error}
                row |= {"seconds": float("nan"), "estimate": float("nan")}
                rows.append(row)
    return rows


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    keys = ("frequency", "part", "init", "velocities")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)

    def ensure(made, *values):
        return records.at(values, made)

    rows, published, number = [], [], FLAGS.velocities
    learned = common.fingerprint(study.feature_start())
    for frequency in common.frequencies((4, 5, 8, 10)):
        rows += ensure(
            lambda: measure(test_models(), frequency, _SOURCE, all_solvers),
            *(frequency, "solvers", learned, number),
        )
        of_basis = f"{FLAGS.snapshot_models} models"
        rows += ensure(
            lambda: best_basis(frequency), frequency, "best basis", of_basis, number
        )
    if FLAGS.published:
        for name, model, frequency, source in published_models():
            published += ensure(
                lambda: measure([model], frequency, source, waves_and_learned),
                *(frequency, name, learned, 1),
            )
    parts = [report(rows), *([of_published(published)] if published else [])]
    common.save_report(NAME, "\n\n".join(parts))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def curves(rows: Sequence[Row]) -> dict[tuple[float, str], list[tuple[float, ...]]]:
    """(frequency, family) to (unknowns, seconds, mean error, worst error), by size."""
    groups: dict[tuple, dict[int, list[Row]]] = {}
    for row in rows:
        family = groups.setdefault((row["frequency"], row["family"]), {})
        family.setdefault(row["unknowns"], []).append(row)
    return {
        key: [
            (
                unknowns,
                float(np.mean([row["seconds"] for row in group])),
                float(np.mean([row["error"] for row in group])),
                float(np.max([row["error"] for row in group])),
            )
            for unknowns, group in sorted(by_size.items())
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
    note = f"{FLAGS.velocities} random velocities, 2.25 × 2.25 km; compiled."
    parts = [_unknowns_for(rows), common.table(columns, lines), note, _calibration(rows)]
    return "\n\n".join(parts)


def _calibration(rows: Sequence[Row]) -> str:
    """A sentence: the estimate of all learned features' error beside that error."""
    ratio = np.array([row["estimate"] / row["error"] for row in rows], float)
    ratio = ratio[np.isfinite(ratio)]
    within = np.mean((ratio > 0.5) & (ratio < 2))
    return (
        "Learned, all features: `solve`'s estimate, from the change by their last third, "
        f"is {np.median(ratio):.2f} times the error (median of "
        f"{len(ratio)}), within a factor of two for {within:.0%}."
    )


def of_published(rows: Sequence[Row], target: float = 0.05) -> str:
    """Markdown: unknowns that each published model needs, and what learned end at."""
    families = ("lattice", THINNER, "learned")
    lines = []
    for name in dict.fromkeys(row["part"] for row in rows):
        own = curves([row for row in rows if row["part"] == name])
        frequency = next(iter(own))[0]
        errors = {
            family: [(point[0], point[2]) for point in own[frequency, family]]
            for family in families
        }
        reached = (f"{common.needed(errors[f], target):.0f}" for f in families)
        last = errors["learned"][-1]
        lines.append([name, f"{frequency:g}", *reached, f"{last[1]:.2%} ({last[0]:g})"])
    columns = ("model", "Hz", *families, "learned, all")
    text = f"Published models, unknowns for {target:.0%}:"
    return f"{text}\n\n{common.table(columns, lines)}"


def _unknowns_for(rows: Sequence[Row], target: float = 0.05) -> str:
    """Markdown: unknowns that each family needs for a mean and a worst error."""
    families = ("lattice", THINNER,
                "low discrepancy waves", "learned", "best linear basis")  # fmt: skip
    points = curves(rows)
    lines = [
        [
            f"{frequency:g}",
            *(
                " / ".join(
                    f"{common.needed([(p[0], p[column]) for p in own], target):.0f}"
                    for column in (2, 3)
                )
                for own in (points.get((frequency, name), ()) for name in families)
            ),
        ]
        for frequency in dict.fromkeys(frequency for frequency, _ in points)
    ]
    text = (
        f"Unknowns for {target:.0%}, mean / worst over the velocities (inf: not reached):"
    )
    return f"{text}\n\n{common.table(('Hz', *families), lines)}"


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
        unknowns, seconds, error, _ = np.array(shown, float).T
        style = {"color": histories.color(families.index(family)), "label": family}
        if family == "best linear basis":  # a bound, not a solver
            style |= {"color": "0.4", "ls": "--"}
        if family != "finite differences":
            panels[0, column].loglog(unknowns, error, marker="o", ms=3, **style)
        if family != "best linear basis":
            timed = np.isfinite(seconds)
            panels[1, column].loglog(seconds[timed], error[timed], "o-", ms=3, **style)
        panels[0, column].set(title=f"{frequency:g} Hz", xlabel="complex unknowns")
        panels[1, column].set(xlabel="seconds, second call")
    for axes in panels[:, 0]:
        axes.set_ylabel("relative L2 error")
    panels[0, 0].legend(frameon=False, fontsize=7)
    panels[1, 0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    scripts.run(main)
