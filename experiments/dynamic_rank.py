"""Does a rank that changes during adaptation do better than a fixed one?

Cheng and Alkhalifah (2025) cut the rank once, before adaptation, and leave open whether
it should change on the way, above all at high frequencies of Overthrust. Put to the test on
the layered model at one frequency and on the window of Overthrust, as it is, at a high
one (--dynamic_overthrust), from the pruned meta-initialisation, in stages of the paper's
adaptation (AdamW on everything, the network's own output):

- fixed full rank, and fixed low rank (--dynamic_low, the largest |σ| kept);
- shrinking: full rank, and after each stage the smallest σ² of every layer are dropped,
  all but a fraction of the energy Σσ² (--dynamic_energy);
- growing: low rank, and after a stage in which the residual at held-out points fell by
  less than a fraction (--dynamic_stall), every layer gets --dynamic_growth new columns of U
  and V with σ = 0 (`rank_growth.grow`), until full rank.

AdamW starts anew in every stage, its rate a cosine over it, in all four alike. Relative
L2 error of the own output against finite differences, by steps and by seconds of
adaptation. Seconds exclude compilation, which every new rank
costs again; the number of networks compiled stands beside.

At the defaults (192 wide, rank 64, points by the wavelength, six stages of fifty steps,
three seeds) half an hour on one core.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import meta_lrpinn as ml
from experiments import common, costs, histories, rank_growth, study
from meta_lrpinn import generators
from meta_lrpinn.learning import adaptation, objectives, output_layer
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.task_sets import Task, single_task
from meta_lrpinn.physics import problem
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "dynamic_rank"
flags.DEFINE_float("dynamic_overthrust", 12.0, "Frequency on Overthrust, Hz; 0: none.")
flags.DEFINE_integer("dynamic_stages", 6, "Stages of adaptation.", lower_bound=1)
flags.DEFINE_integer("dynamic_low", 16, "Low rank.", lower_bound=1)
flags.DEFINE_integer("dynamic_growth", 16, "Ranks added at a time.", lower_bound=1)
flags.DEFINE_float("dynamic_energy", 0.9, "Fraction of Σσ² kept at a time.")
flags.DEFINE_float(
    "dynamic_stall", 0.1, "Fraction by which the residual must fall in a stage."
)

STEPS = 300
_WINDOW = 6.5, 0.0  # of Overthrust, as `overthrust` has it: left and top, km
_LEARNING_RATE = 2e-3
_SETTINGS = ("stages", "low", "growth", "energy", "stall")
_FIXED_POINTS = 2**31 - 2  # folded into the key; no stage has this number

# From the network, the residuals before and after a stage and a key, the next network.
Rule = Callable[[Network, float, float, jax.Array], Network]


def keep(network: Network, before: float, after: float, key: jax.Array) -> Network:
    """The rule of a fixed rank."""
    return network


def shrink(network: Network, before: float, after: float, key: jax.Array) -> Network:
    """Drops the smallest singular values, all but a fraction of their energy."""
    module, params = rank_growth.keep_energy(
        network.module, network.params, FLAGS.dynamic_energy
    )
    return dataclasses.replace(network, module=module, params=params)


def grow(
    full: int, network: Network, before: float, after: float, key: jax.Array
) -> Network:
    """Adds singular values where the residual has stalled, up to full rank."""
    if after < (1 - FLAGS.dynamic_stall) * before:
        return network
    rank = min(full, min(network.ranks) + FLAGS.dynamic_growth)
    module, params = rank_growth.grow(network.module, network.params, rank, key)
    return dataclasses.replace(network, module=module, params=params)


def rules(full: int) -> dict[str, tuple[int, Rule]]:
    """Name to the rank at the start and the rule by which it changes."""
    low = min(FLAGS.dynamic_low, full)
    return {
        f"fixed, rank {full}": (full, keep),
        f"fixed, rank {low}": (low, keep),
        "shrinking by energy": (full, shrink),
        "growing by residual": (low, functools.partial(grow, full)),
    }


def adapt(
    case: study.Case, start: Network, rank: int, rule: Rule, steps: int, seed: int
) -> list[histories.Row]:
    """Adapts a pruned network whose rank changes between stages.

    Args:
        case: With its known wavefield.
        start: Pruned network of full rank.
        rank: To begin with.
        rule: How it changes.
        steps: In all; the last stage may be shorter.
        seed: Of points and of new columns.

    Returns:
        A row per record: step, seconds, error, residual at fixed points, mean rank, number
        of parameters, memory of a step [MB], and number of different networks so far.
    """
    made = problem.make_problem(
        case.model, case.frequency, case.source, layer_fraction=start.layer_fraction
    )
    amplitude, unit = made.amplitude, objectives.unit_problem(made)
    task = single_task(jax.tree.map(jnp.asarray, unit))
    key, points = jax.random.key(seed), study.points_of(case.model, case.frequency)
    network = start.truncate(count=rank)
    length = -(-steps // FLAGS.dynamic_stages)
    rows: list[histories.Row] = []
    seconds, met = 0.0, set()
    for stage, first in enumerate(range(0, steps, length)):
        met.add(network.ranks)
        memory = costs.memory_of(case, network, points, "adamw")
        size = {"stage": stage, **size_of(network), "memory": memory, "networks": len(met)}

        def evaluate(params, network=network):
            own = network.with_parameters(params)
            return {
                "relative_l2": wavefield_error(own, unit, amplitude, case),
                "residual": residual_at(own, task, key, points),
            }

        own_steps = min(length, steps - first)
        params, history = adaptation.finetune(
            objectives.own_output_objective(network.module, points),
            network.params,
            task,
            steps=own_steps,
            optimiser=_optimiser(length),
            key=jax.random.fold_in(key, stage),
            report_every=length,
            evaluate=evaluate,
        )
        rows += [
            {
                "step": first + record["step"],
                "seconds": seconds + record["seconds"],
                "relative_l2": record["relative_l2"],
                "residual": record["residual"],
                **size,
            }
            for record in history
        ]
        seconds += history[-1]["seconds"]
        network = network.with_parameters(params)
        before, after = history[0]["residual"], residual_at(network, task, key, points)
        if first + length < steps:
            own_key = jax.random.fold_in(key, ~stage % 2**31)
            network = rule(network, before, after, own_key)
    return rows


def wavefield_error(
    network: Network,
    unit: problem.HelmholtzProblem,
    amplitude: np.ndarray,
    case: study.Case,
) -> float:
    """Relative L2 error of the own output."""
    field = output_layer.OwnField(network.module, network.params, unit)
    values = amplitude * field(case.model.grid_points())
    return ml.relative_l2(values, case.scattered.ravel())


def residual_at(network: Network, task: Task, key: jax.Array, points: int) -> float:
    """Relative residual at points that no stage draws and all stages share."""
    objective = objectives.own_output_objective(network.module, points)
    fixed = jax.random.fold_in(key, _FIXED_POINTS)
    return float(_relative(objective, network.params, task, fixed))


@functools.partial(jax.jit, static_argnames="objective")
def _relative(objective, params, task, key):
    return objective(params, task, key)[0]


def size_of(network: Network) -> dict[str, float]:
    """Mean rank, and the number of parameters that adapt."""
    return {"rank": float(np.mean(network.ranks)), "parameters": costs.size(network.params)}


@functools.cache
def _optimiser(length: int) -> optax.GradientTransformation:
    """AdamW whose rate falls as a cosine; one for all stages, so compiled once."""
    cosine = optax.cosine_decay_schedule(_LEARNING_RATE, length)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(cosine, weight_decay=0.0)
    )


def measure(
    case: study.Case, start: Network, rank: int, rule: Rule, steps: int, seed: int
) -> list[histories.Row]:
    """As `adapt`, in processor seconds; one that diverges is a row of no finite error."""
    try:
        rows, spent = costs.measured(lambda: adapt(case, start, rank, rule, steps, seed))
    except FloatingPointError:
        names = "seconds relative_l2 residual rank parameters memory networks".split()
        return [{"step": steps, "stage": 0, **dict.fromkeys(names, np.nan)}]
    return [{**row, "seconds": spent.of(row["seconds"])} for row in rows]


def at_seconds(rows: Sequence[histories.Row], seconds: float) -> float:
    """Error at a time, linear between records, in %."""
    times = [row["seconds"] for row in rows]
    return 100 * float(np.interp(seconds, times, [row["relative_l2"] for row in rows]))


def report(curves: histories.Curves, width: int) -> str:
    """Markdown: error at the same steps and at the same seconds."""
    sound = {name: histories.converged(runs) for (_, name), runs in curves.items()}
    ends = [rows[-1]["seconds"] for runs in sound.values() for rows in runs]
    same = min(ends, default=np.nan)
    case = next(iter(curves))[0]
    lines, steps = [], max(runs[0][-1]["step"] for runs in curves.values())
    for (_, name), runs in curves.items():
        if not sound[name]:
            lines.append([name, "diverged", *[""] * 9])
            continue
        last = [rows[-1] for rows in sound[name]]
        lines.append(
            [
                name,
                f"{sound[name][0][0]['rank']:.3g} to "
                + common.spread([row["rank"] for row in last]),
                common.spread([_mean_parameters(rows) for rows in sound[name]]),
                common.spread([row["parameters"] for row in last]),
                *(histories.error_at(runs, step) for step in (0, steps // 2, steps)),
                common.spread([at_seconds(rows, same) for rows in sound[name]], " %"),
                common.spread([row["seconds"] for row in last]),
                common.spread([max(row["memory"] for row in rows) for rows in sound[name]]),
                common.spread([row["networks"] for row in last]),
            ]
        )
    columns = [
        "contender", "rank", "parameters trained, mean", "at the end", "error, step 0",
        f"step {steps // 2}", f"step {steps}", f"after {same:.2g} s",
        "processor seconds", "memory, MB", "networks compiled",
    ]  # fmt: skip
    return (
        f"{common.table(columns, lines)}\n\n{case}; "
        f"{common.over_seeds()} (points, new columns); {width} wide, "
        f"points {study.points_asked()}, {FLAGS.dynamic_stages} stages, shrinking to "
        f"{FLAGS.dynamic_energy:g} of Σσ², growing by {FLAGS.dynamic_growth} where the "
        f"residual fell by less than {FLAGS.dynamic_stall:.0%}. Seconds exclude "
        "compilation and evaluation."
    )


def _mean_parameters(rows: Sequence[histories.Row]) -> float:
    """Mean over stages of the number trained."""
    stages = {row["stage"]: row["parameters"] for row in rows}
    return float(np.mean(list(stages.values())))


def cases() -> dict[str, tuple[float, Callable[[], study.Case]]]:
    """Name to frequency [Hz] and what makes the case."""
    low, high = common.one_frequency(5.0), FLAGS.dynamic_overthrust
    found = {"layered": (low, lambda: generators.builtin("layered"))}
    if high:
        found["Overthrust"] = (high, lambda: study.square_window("overthrust", *_WINDOW))
    return {
        f"{name} {f:g} Hz": (f, functools.cache(lambda f=f, m=m: study.known_case(m(), f)))
        for name, (f, m) in found.items()
    }


def run(case: str, frequency: float, known: Callable[[], study.Case]) -> histories.Curves:
    """Adapts every contender to a case; what is on file is not run again."""
    steps, start = FLAGS.steps or STEPS, study.meta_start().prune(frequency)
    fixed: Mapping[str, Any] = {
        "case": case,
        "steps": steps,
        "points": study.points_asked(),
        "init": common.fingerprint(start),
        **{name: FLAGS[f"dynamic_{name}"].value for name in _SETTINGS},
    }
    records = common.Records(
        common.folder(NAME) / "history.csv", (*fixed, "contender", "seed")
    )
    curves: histories.Curves = {}
    for name, (rank, rule) in rules(min(start.ranks)).items():
        for seed in range(FLAGS.seeds):

            def adapted(rank=rank, rule=rule, seed=seed):
                return measure(known(), start, rank, rule, steps, seed)

            rows = records.ensure({**fixed, "contender": name, "seed": seed}, adapted)
            curves.setdefault((case, name), []).append(rows)
    return curves


def main() -> None:
    """Adapts what is missing, then writes tables and figures."""
    if not 0 < FLAGS.dynamic_energy <= 1:
        raise ValueError(
            f"dynamic_energy must be above 0, at most 1, got {FLAGS.dynamic_energy}"
        )
    width = study.low_rank_module().width
    found = [run(case, *how) for case, how in cases().items()]
    common.save_report(NAME, "\n\n".join(report(curves, width) for curves in found))
    out, curves = common.folder(NAME), {k: v for own in found for k, v in own.items()}
    histories.draw(curves).savefig(out / "figure.png", dpi=150)
    histories.draw(curves, x="seconds").savefig(out / "seconds.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
