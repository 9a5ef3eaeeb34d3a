"""Pages of adaptation studies: tables, exact solves beside them, figures."""

from collections.abc import Callable, Mapping

import numpy as np
from absl import flags

import meta_lrpinn as ml
from experiments import common, costs, histories, study
from experiments.histories import Curves
from experiments.study import HOW, METHOD
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import checkpoints, networks

FLAGS = flags.FLAGS
_LINE = ("error", "seconds", "unknowns", "memory")


def direct_lines(case: Case) -> dict[str, histories.Line]:
    """The exact solves beside which adaptation stands.

    Args:
        case: With its known wavefield.

    Returns:
        Name to relative L2 error, processor seconds and peak memory of a second call, and
        number of unknowns.
    """
    solvers = {
        "plane waves": ml.PlaneWaves(),
        "meta-learned features, 0 steps": ml.NetworkFeatures(
            study.feature_start().prune(case.frequency)
        ),
        "finite differences, one grid": ml.FiniteDifferences(tolerance=None),
    }
    lines = {}
    for name, settings in solvers.items():

        def solve(settings=settings) -> ml.Wavefield:
            return ml.solve(
                case.model,
                case.frequency,
                case.source,
                settings,
                amplitude=case.amplitude,
                background_velocity=case.background_velocity,
            )

        solve()
        field, spent = costs.measured(solve)
        error = ml.relative_l2(field.scattered, case.scattered)
        lines[name] = (error, spent.processor, field.stats.unknowns, spent.memory)
    return lines


def direct(
    name: str, cases: Mapping[str, Case | Callable[[], Case]]
) -> dict[str, dict[str, histories.Line]]:
    """The exact solves of every case; what is on file is not run again.

    Args:
        name: The experiment; its folder holds them.
        cases: As of `run`.

    Returns:
        Case to name to what `direct_lines` gives.
    """
    records = common.Records(common.folder(name) / "direct.csv", ("case", "init"))
    init, found = common.fingerprint(study.feature_start()), {}
    for case_name, case in cases.items():

        def measure(case=case):
            lines = direct_lines(case() if callable(case) else case)
            return [
                {"solver": solver, **dict(zip(_LINE, line, strict=True))}
                for solver, line in lines.items()
            ]

        rows = records.at((case_name, init), measure)
        found[case_name] = {r["solver"]: tuple(r[key] for key in _LINE) for r in rows}
    return found


def direct_table(lines: Mapping[str, Mapping[str, histories.Line]]) -> str:
    """Markdown table of the exact solves: errors and what they took."""
    rows = [
        [case, solver, f"{100 * error:.3g} %", *costs]
        for case, own in lines.items()
        for solver, (error, *costs) in own.items()
    ]
    columns = (
        "case", "exact solve", "error", "processor seconds", "unknowns", "memory, MB"
    )  # fmt: skip
    return common.table(columns, rows)


def meta_trainings() -> str:
    """Markdown table of what the meta-trained networks have cost."""
    rows = []
    for name in filter(None, (study.initialisation(), FLAGS.meta_pinn, *FLAGS.beside)):
        rows.append([name, costs.size(ml.load_network(name).params), *effort(name)])
    columns = ("meta-trained", "parameters, all", "tasks of training", "its seconds")
    return common.table(columns, rows)


def effort(name: str) -> tuple[int, int]:
    """Tasks that a network was meta-trained on up to its checkpoint, and the seconds."""
    *_, card = checkpoints.load_initialisation(networks.find_initialisation(name))
    seen = seconds = 0
    while card:  # a training that started from another
        batch = card["configuration"]["training"]["tasks_per_batch"]
        elapsed = {row["step"]: row["elapsed"] for row in card["curve"]}
        seen += card["step"] * batch
        seconds += round(elapsed[card["step"]])
        card = card.get("started_from")
    return seen, seconds


def sizes(method: str = METHOD) -> str:
    """A line that says on what the numbers of a table rest."""
    low_rank = study.low_rank_module()
    points = (
        f"{FLAGS.points} points a step"
        if FLAGS.points
        else "points by the wavelength, at least three per shortest one along each axis"
    )
    few = (
        "" if np.isinf(FLAGS.one_seed_from) else f", one from {FLAGS.one_seed_from:g} Hz on"
    )
    return (
        f"{common.over_seeds().capitalize()}{few} (collocation points and random "
        f"starts). Adaptation by {HOW[method]}, {points}; low-rank networks "
        f"{low_rank.width} wide with {low_rank.depth} hidden "
        f"layers of rank {low_rank.rank} and {low_rank.number_of_features} features. "
        f"Initialisation {study.initialisation(method)}. Errors are relative L2 against "
        "finite differences refined until they change by 0.3 %; seconds of adaptation are "
        "of the steps alone, without compilation and evaluation; memory is of the compiled "
        "gradient and the optimiser's state, of exact solves what they add to the process."
    )


def publish(
    name: str,
    cases: Mapping[str, Case | Callable[[], Case]],
    curves: Curves,
    *sections: str,
    method: str = METHOD,
    lead: str | None = None,
) -> None:
    """Table and figures of a study: error by step and by seconds, loss by step.

    Args:
        name: The experiment.
        cases: As of `run`.
        curves: What `run` gave.
        *sections: Markdown to stand between the tables and the line on sizes.
        method: The one of `run`.
        lead: Markdown to stand before the tables.
    """
    lines = direct(name, cases)
    tables = [histories.errors(curves), direct_table(lines), meta_trainings()]
    parts = [*([lead] if lead else []), *tables, *sections, sizes(method)]
    common.save_report(name, "\n\n".join(parts))
    out = common.folder(name)
    histories.draw(curves, lines).savefig(out / "figure.png", dpi=150)
    histories.draw(curves, lines, x="seconds").savefig(out / "seconds.png", dpi=150)
    histories.draw(curves, y="held_out").savefig(out / "loss.png", dpi=150)
