"""Seconds at comparable error: plane waves beside finite differences.

One wavefield, a hundred sources in one model, a hundred velocities with one source each
(all 5 Hz, 2.25 × 2.25 km, random velocities never trained on), by `solve_survey` and by
the reference solver on the model's own grid; both factor a matrix once per velocity.
Times are of the first call of the setting and of a second one, errors against finite
differences on a grid four times as fine.

With --cube also a 1.5 km cube at 5 Hz, layered with a body of salt, in 3D: seconds of one
call, compilation included, and the largest memory of a process that does nothing else, of
plane waves, of an overkill solve with more of them, and of the reference solver on the
model's own grid. Its factors grow like n⁴ on n³ nodes: the default of 41 is what fits
beside other work on a machine of 24 GiB.

A minute without the cube, some ten minutes with it.
"""

import concurrent.futures
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common, histories
from meta_lrpinn import generators
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "speed"
flags.DEFINE_integer("many", 100, "Sources, and velocities.", lower_bound=2)
flags.DEFINE_bool("cube", False, "Also the 3D cube; needs some 10 GB.")
flags.DEFINE_integer("cube_nodes", 41, "Nodes along each edge of the cube.")
flags.DEFINE_float(
    "overkill", 1.3, "Of the cube's truth: wavenumber ratio over the default."
)

_SHAPE, _SPACING, _FREQUENCY, _FIRST_SEED = (91, 91), 0.025, 5.0, 930_000
_SOURCE = np.array([[1.0, 0.025]])

Row = dict[str, Any]


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, and seconds of a first and of a second call."""
    began = time.perf_counter()
    function()
    again = time.perf_counter()
    result = function()
    return result, again - began, time.perf_counter() - again


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
        differences = ml.FiniteDifferences(tolerance=None, refinement=refinement)
        return np.stack(
            [ml.solve(model, _FREQUENCY, sources, differences).scattered for model in some]
        )

    checked = models[:3]
    survey, *waves = timed(lambda: ml.solve_survey(models, [_FREQUENCY], sources))
    fields, *differences = timed(lambda: reference_fields(1, models))
    truth = reference_fields(4, checked)

    def error(candidate):
        return max(
            ml.relative_l2(one, true)
            for mine, known in zip(candidate, truth, strict=True)
            for one, true in zip(mine, known, strict=True)
        )

    return [
        {
            "solver": "plane waves",
            "unknowns": survey.unknowns[0, 0],
            "first": waves[0],
            "seconds": waves[1],
            "worst_error": error(survey.scattered[: len(checked), 0]),
        },
        {
            "solver": "finite differences",
            "unknowns": int(np.prod(_SHAPE)),
            "first": differences[0],
            "seconds": differences[1],
            "worst_error": error(fields[: len(checked)]),
        },
    ]


def solve_cube(nodes: int, solver: str, factor: float = 1.0) -> Row:
    """One solve of the cube, for a process of its own.

    Args:
        nodes: Along each edge.
        solver: "plane waves" or "finite differences".
        factor: Wavenumber ratio of the plane waves over the default's.

    Returns:
        The field, its unknowns, seconds, and the process's largest memory in GiB.
    """
    model = generators.salt_body(5, shape=(nodes,) * 3, spacing=1.5 / (nodes - 1))
    source = (0.75, 0.75, 0.05)
    began = time.perf_counter()
    if solver == "finite differences":
        settings = ml.FiniteDifferences(tolerance=None, refinement=1)
    else:
        problem = problems.make_problem(model, _FREQUENCY, source)
        ratio = factor * lattices.default_wavenumber_ratio(problem)
        number = lattices.make_lattice(problem, ratio).number
        settings = ml.PlaneWaves(unknowns=number)
    field = ml.solve(model, _FREQUENCY, source, settings)
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "scattered": field.scattered,
        "unknowns": field.stats.unknowns,
        "seconds": seconds,
        "memory": memory,
    }


def cube() -> list[Row]:
    """Layers and salt in 3D: plane waves, an overkill solve, finite differences."""
    runs = {
        "plane waves": ("plane waves", 1.0),
        "plane waves, overkill": ("plane waves", FLAGS.overkill),
        "finite differences": ("finite differences", 1.0),
    }
    # A fresh process each, one after the other: their memory is theirs alone.
    context = multiprocessing.get_context("spawn")
    solved = {}
    for name, (solver, factor) in runs.items():
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            task = pool.submit(solve_cube, FLAGS.cube_nodes, solver, factor)
            solved[name] = task.result()
    rows = []
    for name, result in solved.items():
        fields = {other: solved[other]["scattered"] for other in runs if other != name}
        errors = [ml.relative_l2(result["scattered"], f) for f in fields.values()]
        distances = ", ".join(
            f"{error:.2%} from {other}" for other, error in zip(fields, errors, strict=True)
        )
        rows.append(
            {
                "solver": f"{name} ({distances}; {result['memory']:.1f} GiB)",
                "unknowns": result["unknowns"],
                "first": result["seconds"],
                "seconds": float("nan"),
                "worst_error": float("nan"),
            }
        )
    return rows


def main() -> None:
    """Measures what is missing, then writes table and figure."""
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
            f"{row['first']:.3g}",
            "" if np.isnan(row["seconds"]) else f"{row['seconds']:.3g}",
            "" if np.isnan(row["worst_error"]) else f"{row['worst_error']:.3%}",
        ]
        for row in rows
    ]
    columns = (
        "setting", "solver", "unknowns", "seconds, first call", "second call",
        "worst error",
    )  # fmt: skip
    common.save_report(NAME, common.table(columns, lines))
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        # In 3D the distances between the fields follow the solver's name.
        solver = row["solver"].partition(" (")[0]
        groups.setdefault(row["setting"], {})[solver] = row["first"]
    histories.bars(groups, "seconds of a first call").savefig(
        common.folder(NAME) / "figure.png", dpi=150
    )


if __name__ == "__main__":
    scripts.run(main)
