"""Seconds at comparable error: plane waves beside finite differences.

One wavefield, a hundred sources in one model, a hundred velocities with one source each
(all 5 Hz, 2.25 × 2.25 km, random velocities never trained on), by `solve_survey` and by
the reference solver on the model's own grid; both factor a matrix once per velocity.
Times are of a second call, compiled; errors are against finite differences on a grid four
times as fine.

With --cube also a 1.5 km cube at 5 Hz, layered with a body of salt, in 3D, against an
overkill solve: there the reference solver's factors do not fit into the memory of a
workstation on more than the model's own grid, and its time and memory are extrapolated
from a smaller cube by its own laws (n⁶ and n⁴ on n³ nodes).

A minute without the cube, some ten minutes with it.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common
from meta_lrpinn import generators, reference
from meta_lrpinn.adapt.survey import solve_survey

FLAGS = flags.FLAGS
NAME = "speed"
flags.DEFINE_integer("many", 100, "Sources, and velocities.", lower_bound=2)
flags.DEFINE_bool("cube", False, "Also the 3D cube; needs some 12 GB.")
flags.DEFINE_integer("cube_nodes", 61, "Nodes along each edge of the cube.")
flags.DEFINE_float("overkill", 1.3, "Margin of the cube's truth over the default's.")

_SHAPE, _SPACING, _FREQUENCY, _FIRST_SEED = (91, 91), 0.025, 5.0, 930_000
_SOURCE = np.array([[1.0, 0.025]])

Row = dict[str, Any]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds of a second call."""
    function()
    began = time.perf_counter()
    result = function()
    return result, time.perf_counter() - began


def plane(kind: str) -> list[Row]:
    """Two rows, plane waves and finite differences, of one of the settings."""
    number = FLAGS.many if kind == "velocities" else 1
    models = [
        generators.random_velocity(_FIRST_SEED + index, _SHAPE, _SPACING)
        for index in range(number)
    ]
    sources = _SOURCE
    if kind == "sources":
        places = np.linspace(0.1, models[0].upper[0] - 0.1, FLAGS.many)
        sources = np.stack([places, np.full(FLAGS.many, _SOURCE[0, 1])], axis=-1)

    def reference_fields(refinement, some):
        return np.stack(
            [
                reference.reference_wavefield(
                    model, _FREQUENCY, sources, refinement=refinement
                ).scattered
                for model in some
            ]
        )

    checked = models[:3]
    truth = reference_fields(4, checked)
    survey, waves = timed(lambda: solve_survey(models, [_FREQUENCY], sources))
    fields, differences = timed(lambda: reference_fields(1, models))

    def error(candidate):
        return max(
            ml.relative_l2(one, true)
            for mine, known in zip(candidate, truth, strict=True)
            for one, true in zip(mine, known, strict=True)
        )

    return [
        {
            "solver": "plane waves",
            "unknowns": survey.unknowns[0],
            "seconds": waves,
            "worst_error": error(survey.scattered[: len(checked), 0]),
        },
        {
            "solver": "finite differences",
            "unknowns": int(np.prod(_SHAPE)),
            "seconds": differences,
            "worst_error": error(fields[: len(checked)]),
        },
    ]


def cube() -> list[Row]:
    """Layers and salt in 3D against an overkill solve, and a smaller reference."""
    nodes, spacing = FLAGS.cube_nodes, 1.5 / (FLAGS.cube_nodes - 1)
    model = generators.salt_body(5, shape=(nodes,) * 3, spacing=spacing)
    source = (0.75, 0.75, 0.05)
    began = time.perf_counter()
    field = ml.solve(model, _FREQUENCY, source)
    seconds = time.perf_counter() - began
    overkill = ml.solve(
        model,
        _FREQUENCY,
        source,
        unknowns=round(field.unknowns * FLAGS.overkill**3),
    )
    small_nodes = min(35, nodes)
    small = generators.salt_body(5, shape=(small_nodes,) * 3, spacing=spacing)
    middle = float(small.upper[0]) / 2
    known = reference.reference_wavefield(
        small, _FREQUENCY, (middle, middle, 0.05), refinement=1
    )
    waves = ml.solve(small, _FREQUENCY, (middle, middle, 0.05))
    return [
        {
            "solver": f"plane waves, {nodes}³ nodes, against an overkill solve of "
            f"{overkill.unknowns} waves",
            "unknowns": field.unknowns,
            "seconds": seconds,
            "worst_error": ml.relative_l2(field.scattered, overkill.scattered),
        },
        {
            "solver": f"plane waves, {small_nodes}³ nodes, against finite differences",
            "unknowns": waves.unknowns,
            "seconds": waves.elapsed,
            "worst_error": ml.relative_l2(waves.scattered, known.scattered),
        },
        {
            "solver": f"finite differences, {small_nodes}³ nodes",
            "unknowns": known.history[-1]["unknowns"],
            "seconds": known.elapsed,
            "worst_error": float("nan"),
        },
    ]


def main() -> None:
    """Measures what is missing, then writes the table."""
    records = common.Records(common.folder(NAME) / "seconds.csv", ("setting", "many"))
    rows = []
    for kind in ("field", "sources", "velocities"):
        many = 1 if kind == "field" else FLAGS.many
        name = {"field": "1 wavefield"}.get(kind, f"{many} {kind}")
        rows += records.ensure({"setting": name, "many": many}, lambda: plane(kind))
    if FLAGS.cube:
        rows += records.ensure({"setting": "3D cube", "many": FLAGS.cube_nodes}, cube)
    lines = [
        [
            row["setting"],
            row["solver"],
            row["unknowns"],
            f"{row['seconds']:.3g}",
            "" if np.isnan(row["worst_error"]) else f"{row['worst_error']:.3%}",
        ]
        for row in rows
    ]
    columns = ("setting", "solver", "unknowns", "seconds", "worst error")
    common.save_report(NAME, common.table(columns, lines))


if __name__ == "__main__":
    common.run(main)
