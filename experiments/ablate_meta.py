"""Is meta-learning a hard requirement, or does it mend a bad random start?

Cheng and Alkhalifah (2025) report that LRPINN from random parameters fails, at losses of
1e10 and more, and conclude that it needs meta-learning. Put to the test: the layered
model at one frequency, adapted from

- the meta-initialisation,
- the published random start, Xavier for U and V and PyTorch's default elsewhere, in our
  size and, by the losses as published, in the published one (320 wide, 6 layers),
- our random start: plane waves in the first layer, orthonormal U and V, σ near one,
- the same, tuned to the problem: of a grid of scales of the first layer's wavenumbers
  and of σ, the pair with the smallest residual before the first step,

by the paper's AdamW on everything, once on the residual relative to the right-hand side
("own_output") and once as published: losses, fixed points, rates, and no absorbing layer.
Losses are relative to that of δu = 0 in both. A run fails if its loss is not finite or a
thousand times that of δu = 0, or if its error is not below that of δu = 0 by one per
cent. Why, is measured at the start: the paper's losses, the size of
the output and of its Laplacian, the largest wavenumber of the first layer in units of
ω/v_min, and the size, the numerical rank and the best residual of the features.

At the defaults (192 wide, points by the wavelength, 500 steps, three seeds) twenty
minutes on one core.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

from experiments import common, histories, study
from meta_lrpinn import generators
from meta_lrpinn.learning import configs, networks, objectives
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.learning.task_sets import single_task
from meta_lrpinn.physics import derivatives, problem, residual
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "ablate_meta"
flags.DEFINE_list(
    "tuned_first_scales", ["0.5", "1", "2", "4", "8"], "Scales to try, rad/km."
)
flags.DEFINE_list("tuned_sigma_scales", ["0.5", "1", "2"], "Factors of σ to try.")

STEPS = 500
METHODS = ("own_output", "published")
META, TUNED = "meta-initialisation", "random, tuned"
PUBLISHED = "random, published, 6 × 320"  # by the published losses alone
_FAILED_LOSS = 1e3  # times that of δu = 0
_FAILED_ERROR = 0.99  # δu = 0 has an error of 1; a tiny δu one that scatters about it
_SAME = 1e-6  # of the largest singular value of the features, in single precision

Start = Callable[[int], Network]


def starts(unit: HelmholtzProblem) -> dict[str, Start]:
    """Name to the network of a seed."""
    published = networks.make_network(configs.PRESETS["paper"].network)
    return {
        META: study.meta_start,
        PUBLISHED: functools.partial(networks.random_network, published),
        "random, published": study.random_start(initialisation="xavier"),
        "random, orthonormal": study.random_start(initialisation="orthonormal"),
        TUNED: lambda seed: tuned(unit, seed)[0],
    }


def unit_problem(model: Any, frequency: float) -> HelmholtzProblem:
    """The problem as the networks see it, of amplitude one."""
    source = study.top_source(model)
    thickness = study.low_rank_module().layer_fraction
    made = problem.make_problem(model, frequency, source, layer_fraction=thickness)
    made = made.replace(amplitude=made.amplitude / np.abs(made.amplitude))
    return jax.tree.map(jnp.asarray, made)


def tuned(unit: HelmholtzProblem, seed: int) -> tuple[Network, tuple[float, float]]:
    """The random start of a seed, scaled to the smallest residual at the start.

    Args:
        unit: The problem.
        seed: Of the random start.

    Returns:
        Pruned network, and the scales of the first layer (rad/km) and of
        the singular values that were chosen.
    """
    network = study.random_start(initialisation="orthonormal")(seed)
    own_scale = network.module.network.first_scale
    network = network.prune(float(objectives.frequency_of(unit)))
    points = problem.sample_points(jax.random.key(seed), unit, _points(unit))
    best = (np.inf, network.params, (own_scale, 1.0))
    for first in map(float, FLAGS.tuned_first_scales):
        for sigma in map(float, FLAGS.tuned_sigma_scales):
            scaled = rescaled(network.params, first / own_scale, sigma, unit.ndim)
            value = float(best_residual(network.module, scaled, unit, points))
            if value < best[0]:
                best = (value, scaled, (first, sigma))
    return network.with_parameters(best[1]), best[2]


@functools.partial(jax.jit, static_argnames="model")
def best_residual(
    model: nn.Module,
    params: objectives.Params,
    unit: HelmholtzProblem,
    points: jax.Array,
) -> jax.Array:
    """Relative strong residual of the features with their best output weights, ()."""
    features = derivatives.derivatives(
        objectives.feature_function(model, params, unit), points
    )
    collocation = problem.collocate(unit, points)
    laplacians = jax.vmap(
        residual.stretched_laplacian, in_axes=(-1, -1, None, None), out_axes=-1
    )
    laplacian = laplacians(
        features.gradient,
        features.second,
        collocation.stretch,
        collocation.stretch_slope,
    )
    mass = collocation.omega**2 * collocation.squared_slowness
    operator = laplacian + mass[:, None] * features.value
    source = collocation.scattering_source
    weights = jnp.linalg.lstsq(operator, source)[0]
    return _size(operator @ weights - source) / _size(source)


def rescaled(
    params: objectives.Params, first: float, sigma: float, ndim: int
) -> objectives.Params:
    """Pruned parameters, wavenumbers of the first layer and all σ times a factor."""
    layer = params["network"]["first"]
    kernel = layer["kernel"].at[:ndim].multiply(first)
    network = {**params["network"], "first": {**layer, "kernel": kernel}}
    embedding = jax.tree.map(lambda values: sigma * values, params["embedding"])
    return {"network": network, "embedding": embedding}


def diagnose(network: Network, unit: HelmholtzProblem, seed: int) -> dict[str, float]:
    """What a start is like before the first step.

    Args:
        network: The network.
        unit: The problem, of amplitude one.
        seed: Of the points.

    Returns:
        The paper's losses (PDE, source and all three), root mean squares of the output,
        its Laplacian, the source term and the features, the first layer's largest
        wavenumber over ω/v_min, the features' numerical rank and best residual.
    """
    key = jax.random.key(seed)
    measured = _measure(network.module, network.params, unit, key, _points(unit))
    spectrum = measured.pop("spectrum")
    return {
        **{name: float(value) for name, value in measured.items()},
        "rank": int(np.sum(np.asarray(spectrum) > _SAME * float(spectrum[0]))),
        "width": int(measured["width"]),
    }


@functools.partial(jax.jit, static_argnames=("model", "number"))
def _measure(model, params, unit, key, number):
    points = problem.sample_points(key, unit, number)
    outputs = derivatives.derivatives(
        objectives.output_function(model, params, unit), points
    )
    laplacian = residual.as_complex(jnp.sum(outputs.second, axis=1))
    task = single_task(unit)
    _, paper = objectives.paper_objective(model, number)(params, task, key)
    features = objectives.feature_function(model, params, unit)(points)
    kernel = params["network"]["first"]["kernel"][: unit.ndim]
    slowest = jnp.min(unit.model.velocity)
    return {
        "pde_loss": paper["pde"],
        "source_loss": paper["source"],
        "paper_loss": 0.1 * sum(paper.values()),
        "output": _size(residual.as_complex(outputs.value)),
        "laplacian": _size(laplacian),
        "source": residual.pde_loss(problem.scattering_source_at(unit, points)),
        "wavenumber": jnp.linalg.norm(kernel, axis=0).max() * slowest / unit.omega,
        "features": _size(features),
        "width": features.shape[-1],
        "spectrum": jnp.linalg.svd(features, compute_uv=False),
        "best_residual": best_residual(model, params, unit, points),
    }


def _points(unit: HelmholtzProblem) -> int:
    return study.points_of(unit.model, float(objectives.frequency_of(unit)))


def _size(values: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.abs(values) ** 2))


def failure(method: str, rows: Sequence[histories.Row], silence: float) -> str:
    """Why a run failed, or "" if it did not.

    Args:
        method: One of `METHODS`.
        rows: Its history.
        silence: The paper's loss of δu = 0.
    """
    values = [relative_loss(method, row, silence) for row in rows]
    if not np.all(np.isfinite(values)):
        return "loss not finite"
    if values[-1] > _FAILED_LOSS:
        return f"loss {values[-1]:.1e}"
    if not rows[-1]["relative_l2"] < _FAILED_ERROR:
        return "error ≥ 99 %"
    return ""


def relative_loss(method: str, row: histories.Row, silence: float) -> float:
    """Held-out loss over that of δu = 0, in both methods."""
    if method == "own_output":  # a ratio of root mean squares
        return row["held_out"] ** 2
    return row["held_out"] / silence


def _ends(curves: Mapping[str, histories.Curves], silence: float) -> tuple[str, int]:
    """The table of how each start ended, and the number of steps."""
    lines, steps = [], 0
    for method, own in curves.items():
        for (_, start), runs in own.items():
            ends = [failure(method, rows, silence) for rows in runs]
            failed = [end for end in ends if end]
            steps = runs[0][-1]["step"]
            sound = histories.converged(runs)
            first, last = (
                common.spread([relative_loss(method, rows[i], silence) for rows in sound])
                if sound
                else "not finite"
                for i in (0, -1)
            )
            at_first, at_last = (histories.error_at(runs, step) for step in (0, steps))
            why = f": {'; '.join(dict.fromkeys(failed))}" if failed else ""
            failures = f"{len(failed)}/{len(runs)}{why}"
            costs = histories.costs(runs, "parameters", "seconds", "memory")
            lines.append([start, method, first, last, at_first, at_last, failures, *costs])
    columns = (
        "start,adaptation,loss at the start,loss at the end,error at the start,"
        "error at the end,failed,parameters,processor seconds,memory in MB"
    )
    return common.table(columns.split(","), lines), steps


def report(
    curves: Mapping[str, histories.Curves],
    diagnoses: Mapping[str, Sequence[histories.Row]],
    chosen: Sequence[tuple[float, float]],
    frequency: float,
) -> str:
    """Markdown: how each start ended, and what it was like at first."""
    silence = 0.1 * float(np.mean([row["source"] for row in diagnoses[META]]))
    ended, steps = _ends(curves, silence)
    names = {
        "pde_loss": "L_pde",
        "source_loss": "L_reg",
        "paper_loss": "paper's loss",
        "output": "rms output",
        "laplacian": "rms Laplacian",
        "source": "rms source term",
        "wavenumber": "largest k / (ω/v_min)",
        "features": "rms features",
        "rank": "numerical rank",
        "best_residual": "best residual",
    }
    first = common.table(
        ["start", *names.values()],
        [
            [start, *(common.spread([row[name] for row in rows]) for name in names)]
            for start, rows in diagnoses.items()
        ],
    )
    scales = ", ".join(f"{a:g} rad/km and {b:g}" for a, b in chosen)
    width = diagnoses[META][0]["width"]
    return (
        f"{ended}\n\nBuilt-in layered model at {frequency:g} Hz; "
        f"{common.over_seeds()}; {width} wide, points {study.points_asked()}, {steps} "
        f"steps. Losses are relative to that of δu = 0.\n\nBefore the first step "
        f"(numerical rank: singular values of the features at the points above {_SAME:g} "
        f"of the largest, of {width}):\n\n{first}\n\n"
        f"Chosen first scales and σ of the tuned start: {scales}."
    )


def main() -> None:
    """Adapts and diagnoses what is missing, then writes tables and figure."""
    frequency = common.one_frequency(5.0)
    model = generators.builtin("layered")
    unit = unit_problem(model, frequency)
    case = f"layered {frequency:g} Hz"
    cases = {case: lambda: study.known_case(model, frequency)}
    begin = starts(unit)
    steps = FLAGS.steps or STEPS
    curves = {}
    for method in METHODS:
        contenders = {
            name: study.Contender(start)
            for name, start in begin.items()
            if method == "published" or name != PUBLISHED
        }
        curves[method] = study.run(NAME, cases, contenders, steps, method)
    diagnoses, chosen = diagnose_all(begin, unit, frequency)
    common.save_report(NAME, report(curves, diagnoses, chosen, frequency))
    panels = {
        (f"{case}, {method}", start): runs
        for method, own in curves.items()
        for (_, start), runs in own.items()
    }
    histories.draw(panels).savefig(common.folder(NAME) / "figure.png", dpi=150)


def diagnose_all(
    begin: Mapping[str, Start], unit: HelmholtzProblem, frequency: float
) -> tuple[dict[str, list[histories.Row]], list[tuple[float, float]]]:
    """The diagnosis of every start and seed, and the scales of the tuned ones."""
    keys = ("frequency", "start", "points", "init", "seed")
    records = common.Records(common.folder(NAME) / "diagnosis.csv", keys)
    meta = common.fingerprint(study.meta_start())
    found: dict[str, list[histories.Row]] = {}
    for name, start in begin.items():
        for seed in range(FLAGS.seeds):

            def measure(name=name, start=start, seed=seed):
                scales = {}
                if name == TUNED:
                    network, (first, sigma) = tuned(unit, seed)
                    scales = {"first_scale": first, "sigma_scale": sigma}
                else:
                    network = start(seed)
                return [{**diagnose(network, unit, seed), **scales}]

            values = (frequency, name, study.points_asked(), meta, seed)
            found.setdefault(name, []).extend(records.at(values, measure))
    chosen = [(row["first_scale"], row["sigma_scale"]) for row in found[TUNED]]
    return found, chosen


if __name__ == "__main__":
    scripts.run(main)
