"""How much of the unknowns the absorbing layer takes, and what a thinner one costs.

Plane waves fill the model and its layer alike. At the default thickness, about a
wavelength, the layer around a model of 2.25 km is larger than the model at 5 Hz. Here
random velocities never trained on are solved for in layers of fractions of that thickness,
at several numbers of unknowns, against finite differences in a layer of their own. Thin
layers reflect, and their steep profile is not resolved by few waves; thick ones waste
unknowns.

Some ten minutes on one core, most of it compilation.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import generators
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "absorbing_layer"
flags.DEFINE_list("thicknesses", ["1", "0.7", "0.5", "0.35", "0.25"], "Over the default's.")
flags.DEFINE_list(
    "waves", ["0.6", "0.8", "1", "1.4", "3"], "Numbers of plane waves, over some number "
    "that grows with frequency (500 at 5 Hz, 1,400 at 10 Hz)."
)  # fmt: skip
flags.DEFINE_integer("models", 5, "Random velocity models.", lower_bound=1)

_SHAPE, _SPACING, _FIRST_SEED = (91, 91), 0.025, 940_000
_SOURCE = np.array([1.0, 0.025])
_TARGETS = (0.05, 0.02, 0.01)

Row = dict[str, Any]


def measure(frequency: float, index: int) -> list[Row]:
    """A row per thickness and number of waves, of one velocity model."""
    # Every lattice is a program of its own, of which a process can hold only so many.
    jax.clear_caches()
    model = generators.random_velocity(_FIRST_SEED + index, _SHAPE, _SPACING)
    differences = ml.FiniteDifferences(tolerance=None)
    truth = ml.solve(model, frequency, _SOURCE, differences).scattered
    default = problems.default_thickness(
        model, frequency, problems.velocity_at(model, _SOURCE)
    )
    rows = []
    for fraction in map(float, FLAGS.thicknesses):
        for size in map(float, FLAGS.waves):
            field = ml.solve(
                model,
                frequency,
                _SOURCE,
                ml.PlaneWaves(unknowns=round(size * 500 * (frequency / 5) ** 1.5)),
                thickness=fraction * default,
            )
            rows.append(
                {
                    "fraction": fraction,
                    "size": size,
                    "thickness": fraction * default,
                    "unknowns": field.stats.unknowns,
                    "error": ml.relative_l2(field.scattered, truth),
                }
            )
    return rows


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    keys = ("frequency", "thicknesses", "waves", "model")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    settings = " ".join(FLAGS.thicknesses), " ".join(FLAGS.waves)
    rows = []
    for frequency in common.frequencies((5, 10)):
        for index in range(FLAGS.models):
            values = (frequency, *settings, index)
            rows += records.at(values, lambda: measure(frequency, index))
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def curves(rows: Sequence[Row]) -> dict[tuple[float, float], list[tuple[float, float]]]:
    """Frequency and fraction of the thickness to mean unknowns and error, by unknowns."""
    found: dict[tuple[float, float], list[tuple[float, float]]] = {}
    groups: dict[tuple[float, float, float], list[Row]] = {}
    for row in rows:
        key = row["frequency"], row["fraction"], row["size"]
        groups.setdefault(key, []).append(row)
    for (frequency, fraction, _), group in sorted(groups.items()):
        mean = tuple(float(np.mean([r[n] for r in group])) for n in ("unknowns", "error"))
        found.setdefault((frequency, fraction), []).append(mean)
    return found


def report(rows: Sequence[Row]) -> str:
    """Markdown: mean error by unknowns, and the unknowns for some errors."""
    lines = []
    for (frequency, fraction), curve in curves(rows).items():
        key = (frequency, fraction)
        own = [r["thickness"] for r in rows if (r["frequency"], r["fraction"]) == key]
        lines.append(
            [
                f"{frequency:g}",
                f"{fraction:g}",
                f"{np.mean(own):.2f} km",
                ", ".join(f"{size:.0f}: {error:.2%}" for size, error in curve),
                *(f"{common.needed(curve, target):.0f}" for target in _TARGETS),
            ]
        )
    columns = [
        "Hz", "thickness over the default", "thickness", "unknowns: mean error",
        *(f"unknowns for {target:.0%}" for target in _TARGETS),
    ]  # fmt: skip
    return (
        f"{common.table(columns, lines)}\n\n{FLAGS.models} random velocities, "
        "2.25 × 2.25 km; inf: not reached at the largest number."
    )


def draw(rows: Sequence[Row]) -> Figure:
    """Mean error against unknowns, a panel per frequency, a curve per thickness."""
    found = curves(rows)
    frequencies = list(dict.fromkeys(frequency for frequency, _ in found))
    figure = Figure(figsize=(5 * len(frequencies), 4.2), layout="constrained")
    panels = figure.subplots(1, len(frequencies), squeeze=False)[0]
    for (frequency, fraction), curve in found.items():
        axes = panels[frequencies.index(frequency)]
        axes.loglog(*np.transpose(curve), "o-", label=f"{fraction:g} of the default")
        axes.set(
            xlabel="plane waves", ylabel="mean relative L2 error", title=f"{frequency:g} Hz"
        )
    for axes in panels:
        axes.legend(frameon=False, title="layer")
    return figure


if __name__ == "__main__":
    scripts.run(main)
