"""Does it work in 3D, and what would a 3D elastic meta-training cost?

Cheng and Alkhalifah (2025) leave 3D and elastic media to future work. Put to the test:

- A sphere in a homogeneous cube, with the exact solution: plane waves in the Galerkin
  form, and the features of a small random 3D LRPINN, solved for likewise. Its
  velocity is sampled on a grid, which by itself costs a few per cent. The network needs
  initial wavenumbers below ω/v.
- Seconds and bytes of a meta-step of one task (`maml.gradient`) for the paper's
  objective (one inner step, no absorbing layer) and for the residual relative to the
  right-hand side (none, with one), in 2D and 3D, against points, width and rank, each
  varied alone. Seconds are medians of three calls of the compiled program, bytes its own
  account (temporaries, arguments, output). A power law c points^a width^b rank^c is
  fitted in logarithms, and tried on a larger setting that it was not fitted to.
- From the law, the cost of the paper's network (320 wide, rank 100) on a cube of
  2.25 km, acoustic and elastic. That is an extrapolation by one to two orders of
  magnitude, of a program for a scalar field, and the table says so.

At the defaults (points from 512, width from 64, rank from 16, each up to four times as
many, 6 hidden layers, 3 seeds) about a quarter of an hour on one core, most of it
compiling.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, costs, histories, study
from meta_lrpinn import models, reference
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import configs, maml, networks, objectives
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.physics.problem import default_thickness, make_problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "scaling_3d"
flags.DEFINE_float("cube_side", 1.2, "Of the cube with the sphere, km.")
flags.DEFINE_float("cube_spacing", 0.04, "Of its grid, km.")
flags.DEFINE_list("cube_unknowns", ["500", "1000", "2000"], "Plane waves.")
flags.DEFINE_float("cube_thickness", 0.4, "Of its absorbing layer, km.")
flags.DEFINE_integer("cube_width", 256, "Of its network of 2 hidden layers.")
flags.DEFINE_integer("cube_points", 6000, "Its collocation points per step.")
flags.DEFINE_float(
    "cube_first_scale", 2.5, "Initial wavenumbers of its first layer, rad/km."
)
flags.DEFINE_integer("scaling_points", 512, "Smallest number of points.")
flags.DEFINE_integer("scaling_width", 64, "Smallest width.")
flags.DEFINE_integer("scaling_rank", 16, "Smallest rank.")
flags.DEFINE_integer("scaling_depth", 6, "Hidden layers of the networks timed.")

FREQUENCIES = (3,)
OBJECTIVES = ("paper", "own_output")
SIZES = ("points", "width", "rank")
_FASTER, _SLOWER = 2.6, 2.0  # km/s
_RADIUS = 0.375  # of the side
_REPEATS = 3

# What is extrapolated to: the paper's network, cube and number of tasks.
PAPER = {"width": 320, "rank": 100}
_SIDE, _FREQUENCY, _PER_WAVELENGTH = 2.25, 5.0, 4  # km, Hz
_SLOWEST = {"acoustic": 1.5, "elastic": 1.5 / np.sqrt(3)}  # km/s; S waves
_MEAN_VELOCITY = 3.0  # km/s, sets the absorbing layer
_TASKS, _ITERATIONS = 5, 50_000
# Value, three first and three pure second derivatives become those and three mixed.
_MIXED = 10 / 7


def sphere(frequency: float) -> Case:
    """A faster sphere in a homogeneous cube, with the exact wavefield."""
    side, spacing = FLAGS.cube_side, FLAGS.cube_spacing
    number = round(side / spacing) + 1
    model = VelocityModel(np.full((number,) * 3, _SLOWER), spacing)
    points = model.grid_points()
    centre = np.array([side / 2, side / 2, 0.6 * side])
    source = np.array([side / 2, side / 2, 0.05 * side])
    # Cells at the surface hold both media: without a step, the grid counts for less.
    radius = _RADIUS * side
    distance = np.linalg.norm(points - centre, axis=1)
    fraction = np.clip(0.5 + (radius - distance) / spacing, 0, 1)
    squared_slowness = fraction / _FASTER**2 + (1 - fraction) / _SLOWER**2
    exact = reference.spherical_inclusion(
        points, frequency, source, centre, radius, _FASTER, _SLOWER
    )
    return Case(
        model=model.replace_velocity((squared_slowness**-0.5).reshape(model.shape)),
        frequency=frequency,
        source=source,
        scattered=exact.reshape(model.shape),
    )


def solve_sphere(
    frequencies: Sequence[float],
) -> tuple[list[histories.Row], histories.Curves]:
    """Plane waves, and the features of a random network; what is on file stays."""
    shape = {
        "side": FLAGS.cube_side,
        "spacing": FLAGS.cube_spacing,
        "thickness": FLAGS.cube_thickness,
    }
    keys = ("frequency", "unknowns", *shape)
    records = common.Records(common.folder(NAME) / "plane_waves.csv", keys)
    lines = []
    for frequency in frequencies:
        for unknowns in map(int, FLAGS.cube_unknowns):
            setting = {"frequency": frequency, "unknowns": unknowns, **shape}
            lines += records.ensure(
                setting, lambda f=frequency, n=unknowns: plane_waves(f, n)
            )
    network = networks.make_network(
        configs.NetworkConfig(
            width=FLAGS.cube_width,
            depth=2,
            rank=_cube_rank(),
            ndim=3,
            first_scale=FLAGS.cube_first_scale,
        )
    )

    cases = {
        "sphere {} Hz, {} km at {} km, layer {} km".format(
            f"{frequency:g}", *shape.values()
        ): functools.partial(sphere, frequency)
        for frequency in frequencies
    }
    name = (
        f"LRPINN {FLAGS.cube_width} wide, random start of {FLAGS.cube_first_scale:g} "
        f"rad/km, {FLAGS.cube_points} points"
    )
    contender = study.Contender(
        functools.partial(networks.random_network, network),
        points=FLAGS.cube_points,
        thickness=FLAGS.cube_thickness,
        precision="single",  # a third of the time, and far from its limits here
    )
    chosen = {name: contender}
    return lines, study.run(NAME, cases, chosen, 0, "galerkin")


def _cube_rank() -> int:
    return max(1, FLAGS.cube_width // 4)


def plane_waves(frequency: float, unknowns: int) -> list[histories.Row]:
    """Error and seconds of one solve, compilation excluded."""
    case = sphere(frequency)
    for _ in range(2):
        field = ml.solve(
            case.model,
            frequency,
            case.source,
            ml.PlaneWaves(unknowns=unknowns),
            thickness=FLAGS.cube_thickness,
        )
    error = ml.relative_l2(field.scattered, case.scattered)
    return [{"waves": field.stats.unknowns, "relative_l2": error, "seconds": field.elapsed}]


def settings() -> tuple[list[dict[str, int]], dict[str, int]]:
    """Sizes to fit to, each varied alone from the middle, and the one to try it on."""
    least = {name: FLAGS[f"scaling_{name}"].value for name in SIZES}
    middle = {name: 2 * value for name, value in least.items()}
    varied = [{**middle, name: factor * least[name]} for name in SIZES for factor in (1, 4)]
    return [middle, *varied], {name: 5 * value for name, value in least.items()}


@functools.cache
def compiled_step(objective: str, ndim: int, points: int, width: int, rank: int):
    """The compiled meta-step of one task, and a function of the seed to its input."""
    network = networks.make_network(
        configs.NetworkConfig(width=width, depth=FLAGS.scaling_depth, rank=rank, ndim=ndim)
    )
    loss = objectives.make_objective(
        configs.ObjectiveConfig(name=objective, points=points), network
    )
    paper = objective == "paper"
    algorithm = configs.MAML() if paper else configs.JointTraining()

    def arguments(seed):
        rng = np.random.default_rng(seed)
        model = VelocityModel(rng.uniform(1.5, 5.0, (24,) * ndim), 0.1)
        source = (*[1.0] * (ndim - 1), 0.1)
        thickness = 0.0 if paper else None
        task = single_task(
            make_problem(model, 5.0, source, thickness=thickness, layer_fraction=1.0)
        )
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], task)
        key = jax.random.key(seed)
        return models.initial_parameters(network, key), batch, key

    def step(params, tasks, key):
        return maml.gradient(loss, params, tasks, tasks, key[None], algorithm)

    return jax.jit(step).lower(*arguments(0)).compile(), arguments


def measure_step(seed: int, **setting: Any) -> list[histories.Row]:
    """Seconds and bytes of a meta-step of one task."""
    program, arguments = compiled_step(**setting)
    given = arguments(seed)
    jax.block_until_ready(program(*given))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(program(*given))
        seconds.append(time.perf_counter() - began)
    bytes_ = costs.bytes_of(program)
    return [{"seconds": float(np.median(seconds)), "bytes": bytes_}]


def measure_steps() -> list[histories.Row]:
    """All sizes, in both dimensions, of both objectives; what is on file stays."""
    keys = ("objective", "ndim", *SIZES, "depth", "device", "seed")
    records = common.Records(common.folder(NAME) / "steps.csv", keys)
    fitted, tried = settings()
    rows = []
    for objective in OBJECTIVES:
        for ndim in (2, 3):
            for sizes in [*fitted, tried]:
                setting = {"objective": objective, "ndim": ndim, **sizes}
                for seed in range(FLAGS.seeds):
                    measure = functools.partial(measure_step, seed, **setting)
                    more = {
                        "depth": FLAGS.scaling_depth,
                        "device": jax.devices()[0].platform,
                        "seed": seed,
                    }
                    rows += records.ensure({**setting, **more}, measure)
                compiled_step.cache_clear()
                jax.clear_caches()
    return rows


def power_law(rows: Sequence[histories.Row], quantity: str) -> tuple[np.ndarray, float]:
    """Fit quantity = c points^a width^b rank^c by least squares in logarithms.

    Args:
        rows: Measurements.
        quantity: "seconds" or "bytes".

    Returns:
        (log c, a, b, c), and the standard deviation of the logarithm from the law.
    """
    sizes = np.array([[row[name] for name in SIZES] for row in rows], float)
    matrix = np.column_stack([np.ones(len(rows)), np.log(sizes)])
    values = np.log([row[quantity] for row in rows])
    law, *_ = np.linalg.lstsq(matrix, values, rcond=None)
    return law, float(np.std(values - matrix @ law))


def predict(law: np.ndarray, sizes: Mapping[str, float]) -> float:
    """The law's value."""
    logs = np.log([sizes[name] for name in SIZES])
    return float(np.exp(law[0] + law[1:] @ logs))


Laws = dict[tuple[str, int, str], np.ndarray]


def fit_report(rows: Sequence[histories.Row]) -> tuple[Laws, str]:
    """The laws, and their Markdown table."""
    _, tried = settings()
    laws, lines = {}, []
    for objective in OBJECTIVES:
        for ndim in (2, 3):
            own = [r for r in rows if (r["objective"], r["ndim"]) == (objective, ndim)]
            apart = [r for r in own if all(r[name] == tried[name] for name in SIZES)]
            used = [row for row in own if row not in apart]
            for quantity in ("seconds", "bytes"):
                law, deviation = power_law(used, quantity)
                laws[objective, ndim, quantity] = law
                measured = [row[quantity] for row in apart]
                lines.append(
                    [
                        objective,
                        f"{ndim}D",
                        quantity,
                        f"{np.exp(law[0]):.2g}",
                        *(f"{exponent:.2f}" for exponent in law[1:]),
                        f"{100 * np.expm1(deviation):.0f} %",
                        common.spread(measured),
                        predict(law, tried),
                    ]
                )
    columns = (
        "objective,dimension,of a step of one task,c,points^,width^,rank^,scatter,"
        "tried: measured,predicted"
    )
    return laws, common.table(columns.split(","), lines)


def extrapolated_points(kind: str, layer: bool) -> int:
    """Points of the cube at four per shortest wavelength, with its layer if asked."""
    side = _SIDE
    if layer:
        model = VelocityModel(np.full((2, 2, 2), _MEAN_VELOCITY), _SIDE)
        side += 2 * default_thickness(model, _FREQUENCY, _SLOWEST["acoustic"])
    return round((_PER_WAVELENGTH * side * _FREQUENCY / _SLOWEST[kind]) ** 3)


def extrapolation(laws: Laws) -> str:
    """Markdown table of what the laws say of a large 3D meta-training."""
    lines = []
    for objective in OBJECTIVES:
        for kind in _SLOWEST:
            points = extrapolated_points(kind, layer=objective != "paper")
            sizes = {**PAPER, "points": points}
            seconds = predict(laws[objective, 3, "seconds"], sizes)
            size = predict(laws[objective, 3, "bytes"], sizes)
            factor = 1.0 if kind == "acoustic" else _MIXED
            step = _TASKS * factor * seconds
            lines.append(
                [
                    objective,
                    kind,
                    points,
                    step,
                    factor * size / 2**30,
                    _ITERATIONS * step / 86_400,
                ]
            )
    columns = (
        f"objective,medium,points,seconds per iteration of {_TASKS} tasks,"
        f"GiB per task,days for {_ITERATIONS} iterations"
    )
    return common.table(columns.split(","), lines)


def report(
    lines: Sequence[histories.Row], curves: histories.Curves, rows: Sequence[histories.Row]
) -> str:
    """The three tables and what they rest on."""
    waves = common.table(
        ("frequency, Hz", "plane waves", "error", "seconds"),
        [
            [
                row["frequency"],
                row["waves"],
                f"{100 * row['relative_l2']:.3g} %",
                row["seconds"],
            ]
            for row in lines
        ],
    )
    laws, fits = fit_report(rows)
    fitted, tried = settings()
    spans = ", ".join(
        f"{min(s[name] for s in fitted)} to {max(s[name] for s in fitted)} {name}"
        for name in SIZES
    )
    where = (
        f"Sphere of {_RADIUS * FLAGS.cube_side:.3g} km and {_FASTER:g} km/s in a cube "
        f"of {FLAGS.cube_side:g} km and {_SLOWER:g} km/s, grid {FLAGS.cube_spacing:g} "
        f"km; relative L2 against the exact solution. Network {FLAGS.cube_width} wide, "
        f"2 hidden layers of rank {_cube_rank()}; {FLAGS.cube_points} points a step; "
        f"{common.over_seeds()} (plane waves have none); "
        "seconds exclude compilation."
    )
    timed = (
        f"Fitted to {spans}, {FLAGS.scaling_depth} hidden layers, {common.count_seeds()} "
        f"of median of {_REPEATS} calls on {rows[0]['device']}; tried on "
        + ", ".join(f"{tried[name]} {name}" for name in SIZES)
        + ", which no fit has seen. Scatter is the standard deviation from the law."
    )
    guess = (
        "EXTRAPOLATED, not measured: from the 3D laws above, for a network "
        f"{PAPER['width']} wide, rank {PAPER['rank']}, {FLAGS.scaling_depth} hidden "
        f"layers, a cube of {_SIDE:g} km at {_FREQUENCY:g} Hz and {_PER_WAVELENGTH} "
        "points per shortest wavelength (1.5 km/s, S waves √3 slower when elastic), "
        'with the absorbing layer for "own_output". Elastic: three displacement '
        "components from one network; mixed derivatives take 10/7 times as many passes. "
        "No inner step beyond the first is counted."
    )
    sections = [waves, histories.errors(curves), where, fits, timed, extrapolation(laws)]
    return "\n\n".join([*sections, guess])


def draw(
    lines: Sequence[histories.Row], curves: histories.Curves, rows: Sequence[histories.Row]
) -> Figure:
    """The sphere's error by unknowns, and seconds and bytes of a step by points."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes, *panels = figure.subplots(1, 3)
    for index, frequency in enumerate(sorted({row["frequency"] for row in lines})):
        own = [row for row in lines if row["frequency"] == frequency]
        axes.semilogy(
            [row["waves"] for row in own], [row["relative_l2"] for row in own], "o-",
            color=histories.color(index), label=f"plane waves, {frequency:g} Hz",
        )  # fmt: skip
    for (case, _), all_runs in curves.items():
        ends = [run[-1]["relative_l2"] for run in histories.converged(all_runs)]
        places = [FLAGS.cube_width] * len(ends)
        label = f"features of random networks, {case.partition(',')[0]}"
        axes.semilogy(places, ends, "k^", label=label)
    axes.set(xlabel="complex unknowns", ylabel="relative L2 error")
    axes.legend(frameon=False, fontsize=7)
    middle = settings()[0][0]
    for axes, quantity in zip(panels, ("seconds", "bytes"), strict=True):
        for index, objective in enumerate(OBJECTIVES):
            for ndim, style in ((2, "o--"), (3, "s-")):
                own = [
                    row
                    for row in rows
                    if (row["objective"], row["ndim"]) == (objective, ndim)
                    and all(row[name] == middle[name] for name in ("width", "rank"))
                ]
                points = sorted({row["points"] for row in own})
                means = [
                    np.mean([row[quantity] for row in own if row["points"] == number])
                    for number in points
                ]
                label = f"{objective}, {ndim}D"
                axes.loglog(points, means, style, color=histories.color(index), label=label)
        axes.set(xlabel="points", ylabel=f"{quantity} of a meta-step of one task")
        axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measures what is missing, then writes tables and figure."""
    lines, curves = solve_sphere(common.frequencies(FREQUENCIES))
    rows = measure_steps()
    common.save_report(NAME, report(lines, curves, rows))
    draw(lines, curves, rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
