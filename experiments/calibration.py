"""A solver's error estimate beside its error, over many small models.

Kinds of models that are hard in different ways, several models of each kind, several
sources in each model. The truth is a wavenumber integral where the velocity varies with
depth alone, and finite differences elsewhere. A good estimate is within a factor of two
of the error, and seldom below half of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories, trust
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "calibration"
flags.DEFINE_list("kinds", None, "Of calibration's models; by default all.")
flags.DEFINE_integer("models", 6, "Models of a kind.", lower_bound=1)
flags.DEFINE_integer("sources", 4, "Sources in a model.", lower_bound=1)
flags.DEFINE_enum(
    "calibrated", "plane_waves", ("plane_waves", "network_features"), "The solver."
)

_SPACING = 0.025  # km
# Of the finite differences, which are then within 5e-5 of two exact half-spaces.
_TOLERANCE = 1e-3
_FACTOR = 2.0  # within which an estimate is called right
_SETTINGS = {"plane_waves": ml.PlaneWaves(), "network_features": ml.NetworkFeatures()}


class Kind(NamedTuple):
    """Models that share grid, frequency and extremes, and so most of them one program."""

    velocity: Callable[[np.random.Generator], np.ndarray]  # (nz, nx) km/s
    frequency: float  # Hz
    is_flat: bool = True  # the velocity varies with depth alone


def _random(
    smoothing: float, least: float, most: float
) -> Callable[[np.random.Generator], np.ndarray]:
    """White noise smoothed over so many nodes, between two velocities [km/s]."""

    def velocity(rng: np.random.Generator) -> np.ndarray:
        noise = scipy.ndimage.gaussian_filter(rng.normal(size=(41, 41)), smoothing)
        return least + (most - least) * (noise - noise.min()) / np.ptp(noise)

    return velocity


def _gradient(rows: int, columns: int) -> Callable[[np.random.Generator], np.ndarray]:
    """From 1.5 to 3 km/s by a power of depth, growing downwards or upwards."""

    def velocity(rng: np.random.Generator) -> np.ndarray:
        values = 1.5 + 1.5 * np.linspace(0, 1, rows) ** rng.uniform(0.5, 2)
        return _columns(values[:: rng.choice([-1, 1])], columns)

    return velocity


def _half_spaces(rng: np.random.Generator) -> np.ndarray:
    """1.5 and 3 km/s, either of them above."""
    values = np.where(np.arange(41) < rng.integers(8, 33), 1.5, 3.0)
    return _columns(values if rng.random() < 0.5 else 4.5 - values, 41)


def _layer(thickness: int, inside: float, outside: float):
    """A layer of so many nodes at a random depth."""

    def velocity(rng: np.random.Generator) -> np.ndarray:
        depth = np.arange(41) - rng.integers(6, 35 - thickness)
        return _columns(np.where((depth >= 0) & (depth < thickness), inside, outside), 41)

    return velocity


def _columns(values: np.ndarray, columns: int) -> np.ndarray:
    return np.repeat(values[:, None], columns, axis=1)


KINDS = {
    "random, smooth": Kind(_random(3.0, 1.5, 4.0), 5.0, is_flat=False),
    "random, rough": Kind(_random(1.0, 1.5, 4.0), 5.0, is_flat=False),
    "gradients": Kind(_gradient(41, 41), 5.0),
    "half-spaces 1.5 and 3": Kind(_half_spaces, 5.0),
    "guide 1.5 in 4": Kind(_layer(8, 1.5, 4.0), 5.0),
    "thin layer 2 in 4": Kind(_layer(1, 2.0, 4.0), 6.0),
    "3 x 0.25 km": Kind(_gradient(11, 121), 5.0),
    "wavelength 5 x model": Kind(_gradient(31, 31), 0.6),
    "wavelength 20 x model": Kind(_gradient(31, 31), 0.15),
}


def make_cases(name: str, seed: int, sources: int) -> list[trust.Case]:
    """A random model of a kind, once for each of its sources."""
    kind = KINDS[name]
    rng = np.random.default_rng([list(KINDS).index(name), seed])
    model = ml.VelocityModel(kind.velocity(rng), _SPACING)
    places = model.lower + rng.uniform(0.05, 0.95, (sources, 2)) * (
        model.upper - model.lower
    )
    return [trust.Case(model, kind.frequency, tuple(place)) for place in places.tolist()]


def measure(name: str, seed: int, sources: int) -> list[dict[str, Any]]:
    """Error and estimate of every source in a model."""
    cases = make_cases(name, seed, sources)
    model, frequency = cases[0].model, cases[0].frequency
    places = np.array([case.source for case in cases])
    field = ml.solve(model, frequency, places, _SETTINGS[FLAGS.calibrated])
    if KINDS[name].is_flat:
        truths = np.stack([trust.exact(case) for case in cases])
    else:
        truths = ml.reference_wavefield(
            model, frequency, places, tolerance=_TOLERANCE
        ).scattered
    return [
        {
            "source": index,
            "error": ml.relative_l2(field.scattered[index], truths[index]),
            "estimate": float(field.error_estimates[index]),
            "unknowns": field.stats.unknowns,
        }
        for index in range(sources)
    ]


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    names = list(KINDS) if FLAGS.kinds is None else FLAGS.kinds
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise ValueError(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    keys = ("kind", "model", "sources")
    solver = FLAGS.calibrated
    name = "errors.csv" if solver == "plane_waves" else f"errors_{solver}.csv"
    records = common.Records(common.folder(NAME) / name, keys)
    rows = []
    for name in names:
        for seed in range(FLAGS.models):
            values = (name, seed, FLAGS.sources)
            rows += records.at(values, lambda values=values: measure(*values))
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for each kind and one for all, how estimates compare to errors."""
    columns = (
        "kind",
        "cases",
        "median error",
        "estimate / error: median",
        "least",
        "largest",
        "within a factor of two",
        "below half of the error",
    )
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    lines = [_line(name, own) for name, own in (*by_kind.items(), ("all", rows))]
    return common.table(columns, lines)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Estimate over error of every case, a line per kind, and the factor of two."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure = Figure(figsize=(7.5, 1.2 + 0.36 * len(kinds)), layout="constrained")
    axes = figure.subplots()
    for place, kind in enumerate(kinds):
        own = [row for row in rows if row["kind"] == kind]
        ratios = [row["estimate"] / row["error"] for row in own]
        axes.plot(ratios, [place] * len(own), "o", color=histories.color(0), alpha=0.4)
    axes.axvspan(1 / _FACTOR, _FACTOR, color="0.92", zorder=0)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="estimate over error; grey: within a factor of two")
    return figure


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    errors = np.array([row["error"] for row in rows])
    ratios = np.array([row["estimate"] for row in rows]) / errors
    is_low, is_high = ratios < 1 / _FACTOR, ratios > _FACTOR
    return [
        name,
        len(rows),
        f"{np.median(errors):.2%}",
        *(f"{value:.2f}" for value in (np.median(ratios), ratios.min(), ratios.max())),
        f"{np.mean(~is_low & ~is_high):.0%}",
        f"{np.mean(is_low):.1%}",
    ]


if __name__ == "__main__":
    scripts.run(main)
