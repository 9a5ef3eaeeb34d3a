"""`meta-lrpinn make-tasks`: task sets for meta-training, as files."""

import argparse
import pathlib
from typing import Any

from meta_lrpinn.cli import Report, parsing, solver
from meta_lrpinn.cli.parsing import Groups, Option, UsageError
from meta_lrpinn.learning import configs

SUMMARY = "Draw a set of velocity-frequency tasks; the same command goes on."


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "tasks": [
            Option("out", "File to write; its manifest is beside it.", str, "tasks.npz"),
            Option(
                "preset",
                "Whose grid, layer and velocities per task the tasks have.",
                default="small",
                choices=tuple(configs.PRESETS),
            ),
            Option("random", "So many tasks from the preset's distribution instead.", int),
            Option(
                "sources",
                "Tasks that share velocities and frequency [1]; with --random.",
                int,
            ),
            Option(
                "models", "Velocity models, or groups of them [40]; without --random.", int
            ),
            Option(
                "frequencies",
                "At which each is solved, in Hz: 3,4,5 or first:last:step, such as "
                "2:15:1; by default 14 over the preset's range. Without --random.",
                parsing.frequencies,
            ),
            Option("wavefields", "Add the solved wavefields (needs a layer).", bool, False),
            Option("points", "Points of each wavefield [3072]; with --wavefields.", int),
            Option("seed", "Seed.", int, 0),
        ],
        "machines": solver.machine_options("solve the wavefields"),
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """Draws the tasks and writes them."""
    from meta_lrpinn.learning import task_files

    path = pathlib.Path(options.out)
    preset = configs.PRESETS[options.preset]
    with solver.resumable("give fewer --workers"):
        number = task_files.make_task_set(
            path,
            preset.tasks,
            random=options.random,
            frequencies=options.frequencies,
            wavefields=options.wavefields,
            seed=options.seed,
            progress=report.shows_progress,
            **_with_effect(options),
        )
    report.say("wrote", f"{number} tasks in {path}")
    if preset.objective.learns_from_wavefields and not options.wavefields:
        report.say(
            "note",
            f"the objective {preset.objective.name} of the preset {options.preset} learns "
            "from known wavefields: add --wavefields",
        )
    report.add(tasks=number, files=[str(path), str(path.with_suffix(".json"))])


def _with_effect(options: argparse.Namespace) -> dict[str, Any]:
    """Numbers that are given, and machines; what would have no effect is refused."""
    is_random, solves = options.random is not None, options.wavefields
    conditions = {
        "sources": (is_random, "with --random"),
        "models": (not is_random, "without --random"),
        "points": (solves, "with --wavefields"),
        "cluster": (solves, "with --wavefields"),
        "workers": (solves, "with --wavefields"),
    }
    values = {name: getattr(options, name) for name in conditions}
    values = {name: value for name, value in values.items() if value is not None}
    for name in values:
        has_effect, where = conditions[name]
        if not has_effect:
            raise UsageError(f"--{name} has an effect only {where}")
    return values | (solver.machines(options) if solves else {})
