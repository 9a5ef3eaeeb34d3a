"""`meta-lrpinn make-tasks`: task sets for meta-training, as files."""

import argparse
import pathlib
from typing import Any

from meta_lrpinn.cli import values, workers
from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.cli.report import Report
from meta_lrpinn.learning import configs

SUMMARY = "Draw a set of velocity-frequency tasks; the same command goes on."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("tasks")

    def add(name, kind, text, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add("out", str, "File to write; its manifest is beside it.", "tasks.npz")
    add(
        "preset",
        str,
        "Whose grid, layer and velocities per task the tasks have.",
        "small",
        tuple(configs.PRESETS),
    )
    add("random", int, "So many tasks from the preset's distribution instead.")
    add("sources", int, "Tasks that share velocities and frequency [1]; with --random.")
    add("models", int, "Velocity models, or groups of them [40]; without --random.")
    add(
        "frequencies",
        str,
        "At which each is solved, in Hz: 3,4,5 or first:last:step, such as 2:15:1; by "
        "default 14 over the preset's range. Without --random.",
    )
    add("wavefields", bool, "Add the solved wavefields (needs a layer).", False)
    add("points", int, "Points of each wavefield [3072]; with --wavefields.")
    add("seed", int, "Seed.", 0)
    workers.add_options(parser.add_argument_group("machines"), "solve the wavefields")


def _numbers(options: argparse.Namespace) -> dict[str, int]:
    """The numbers that are given; those that would have no effect are refused."""
    needs = {
        "sources": ("with", "random", options.random is not None),
        "models": ("without", "random", options.random is None),
        "points": ("with", "wavefields", options.wavefields),
    }
    numbers = {name: getattr(options, name) for name in needs}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    for name in numbers:
        word, other, is_met = needs[name]
        if not is_met:
            raise UsageError(f"--{name} has an effect only {word} --{other}")
    return numbers


def _machines(options: argparse.Namespace) -> dict[str, Any]:
    """Where wavefields are solved; without any there is nothing to share out."""
    if options.wavefields:
        return workers.chosen(options)
    for name in ("cluster", "workers"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} has an effect only with --wavefields")
    return {}


def run(options: argparse.Namespace, report: Report) -> None:
    """Draws the tasks and writes them."""
    from meta_lrpinn.learning import task_files

    path = pathlib.Path(options.out)
    preset, text = configs.PRESETS[options.preset], options.frequencies
    needs = preset.objective.learns_from_wavefields
    with workers.resumable("give fewer --workers"):
        number = task_files.make_task_set(
            path,
            preset.tasks,
            random=options.random,
            frequencies=None if text is None else values.frequencies(text),
            wavefields=options.wavefields,
            seed=options.seed,
            progress=report.shows_progress,
            **_numbers(options),
            **_machines(options),
        )
    report.say("wrote", f"{number} tasks in {path}")
    if needs and not options.wavefields:
        report.say(
            "note",
            f"the objective {preset.objective.name} of the preset {options.preset} learns "
            "from known wavefields: add --wavefields",
        )
    report.add(tasks=number, files=[str(path), str(path.with_suffix(".json"))])
