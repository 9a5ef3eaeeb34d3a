"""A whole meta-training from its configuration to an initialisation that can ship."""

import contextlib
import dataclasses
import math
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from meta_lrpinn import models
from meta_lrpinn.files import writing
from meta_lrpinn.learning import (
    checkpoints,
    configs,
    devices,
    evaluation,
    networks,
    objectives,
    soap,
    task_sets,
    training,
)
from meta_lrpinn.learning.run_log import read_rows
from meta_lrpinn.learning.task_files import file_sampler
from meta_lrpinn.learning.task_sets import TaskSampler
from meta_lrpinn.runtime.machine import check_memory
from meta_lrpinn.runtime.options import check_settings

INITIALISATION = "initialisation"
# Of the tasks from which a metric is learned; training draws from others.
_METRIC_SEED = 2_000_003


class Trained(NamedTuple):
    """What a sitting of meta-training gives."""

    initialisation: Path  # folder of the initialisation
    iterations: int  # made in this sitting; with none nothing is written


def meta_train(
    config: configs.MetaConfig,
    directory: str | Path,
    *,
    init: str | Path | None = None,
    task_files: Sequence[str | Path] = (),
    seconds: float | None = None,
    command: str = "",
    progress: bool = True,
) -> Trained:
    """Meta-trains, resuming where a run was stopped, and writes its initialisation.

    Where there is nothing left to do, no iteration and no time, and the initialisation is
    there, nothing is written.

    Args:
        config: The whole configuration.
        directory: Folder of the run.
        init: Initialisation to start from, of this very network; default: random. Inner
            steps of SOAP begin with its metric, if it has one.
        task_files: Tasks from files of `meta-lrpinn make-tasks`; default: the fixed set
            of the configuration, or new tasks for ever.
        seconds: Wall-clock budget over all sittings; one iteration is made in any case.
        command: Command line, for the card.
        progress: Show a progress bar.

    Returns:
        Folder of the initialisation, the best checkpoint's parameters with a card of
        what they were trained on, how long, and the curve; and the iterations made.

    Raises:
        ValueError: if `seconds` is not positive, or files do not fit the configuration.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"seconds must be positive and finite, got {seconds}")
    _check_room(config)
    directory = Path(directory)
    commit = _commit()  # of the code that runs, whatever happens to the checkout
    model = networks.make_network(config.network)
    objective = objectives.make_objective(config.objective, model)
    sampler = _make_sampler(config, task_files)
    if init is None:
        key = jax.random.key(config.training.seed)
        params, origin, metric = models.initial_parameters(model, key), None, None
    else:
        params, origin, metric = _load_start(init, config.network)
    if not config.training.uses_soap:
        metric = None
    # The first process of a run holds the lock for all.
    is_first = jax.process_index() == 0
    with writing.locked(directory) if is_first else contextlib.nullcontext():
        before = checkpoints.latest_step(directory)
        state = training.train(
            config.training,
            objective,
            sampler,
            params,
            directory,
            metric=metric,
            evaluate=evaluation.make_evaluation(config, model, objective, metric, progress),
            settings=config.as_dict(),
            seconds=seconds,
            progress=progress,
        )
        iterations = int(devices.local_copy(state.step)) - before
        written, new = _initialisations(directory)
        if not iterations and written:
            return Trained(written[-1], 0)
        card = {"command": command, "commit": commit, "started_from": origin}
        export(config, directory, new, card)
        return Trained(new, iterations)


def learn_metric(
    config: configs.MetaConfig,
    out: str | Path,
    *,
    init: str | Path,
    tasks: int,
    steps: int = 50,
    command: str = "",
) -> Path:
    """Learns the metric of an initialisation, and writes both as another initialisation.

    Args:
        config: Whose network, objective, tasks and seed count.
        out: Folder to write; it must not exist.
        init: Initialisation, of this very network. A metric of its own is replaced.
        tasks, steps: Number of tasks, and of steps of each.
        command: Command line, for the card.

    Returns:
        The folder; its card is that of `init` with an entry `metric`.
    """
    checkpoints.check_is_new(out)
    params, card, _ = _load_start(init, config.network)
    objective = objectives.make_objective(
        config.objective, networks.make_network(config.network)
    )
    distribution = dataclasses.replace(config.tasks, known_points=0)
    seed = config.training.seed
    rng = np.random.default_rng([_METRIC_SEED, seed])
    drawn = [task_sets.draw_tasks(distribution, rng)[0] for _ in range(tasks)]
    began = time.process_time()
    learned = soap.measure_metric(
        objective, params, task_sets.stack_tasks(drawn), jax.random.key(seed), steps=steps
    )
    jax.block_until_ready(learned)
    about = {
        "command": command,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "tasks": tasks,
        "steps": steps,
        "points": config.objective.points,
        "processor_seconds": round(time.process_time() - began),
    }
    network = dataclasses.asdict(config.network)
    checkpoints.save_initialisation(out, params, network, card | {"metric": about}, learned)
    return Path(out)


def _check_room(config: configs.MetaConfig) -> None:
    """Refuses batches that no memory holds: their tasks, and activations at the points."""
    tasks, network, points = config.training, config.network, config.objective.points
    together = tasks.tasks_per_batch if tasks.task_axis == "vmap" else 1
    batch = 2.0 * tasks.tasks_per_batch * task_sets.bytes_of_task(config.tasks)
    activations = 4.0 * together * points * network.width * network.depth
    check_memory(
        batch + activations,
        f"batches of {tasks.tasks_per_batch:,} tasks with {points:,} points each",
        "choose fewer points, or fewer tasks per batch",
    )


def _make_sampler(
    config: configs.MetaConfig, task_files: Sequence[str | Path]
) -> TaskSampler:
    needs = config.objective.learns_from_wavefields
    if task_files:
        sampler = file_sampler(task_files, config.tasks, config.training)
        known = sampler(config.training.seed, 0)[0].scattered is not None
    else:
        distribution = config.tasks
        if not needs:
            distribution = dataclasses.replace(distribution, known_points=0)
        if distribution.fixed_models:
            tasks = task_sets.fixed_tasks(distribution, config.training.seed)
            sampler = task_sets.set_sampler(tasks, config.training, "the fixed set")
        else:
            sampler = task_sets.streaming_sampler(distribution, config.training)
        known = distribution.known_points > 0
    if needs and not known:
        raise ValueError(
            f"objective {config.objective.name} learns from known wavefields; give tasks "
            "that have them (meta-lrpinn make-tasks --wavefields)"
        )
    return sampler


def _load_start(
    init: str | Path, network: configs.NetworkConfig
) -> tuple[objectives.Params, dict[str, Any], soap.Metric | None]:
    """Parameters, card and metric of an initialisation of this very network."""
    params, saved, card = checkpoints.load_initialisation(init)
    check_settings(saved, dataclasses.asdict(network), path=init)
    return params, card, checkpoints.load_metric(init)


def export(
    config: configs.MetaConfig, directory: Path, target: Path, about: dict[str, Any]
) -> None:
    """Writes the best checkpoint of a run's directory as an initialisation.

    Its card says what was trained, how, and the curve, beside what `about` says.
    """
    params, _, step = checkpoints.load_run_parameters(directory, "best")
    log = directory / "evaluation.csv"
    rows = read_rows(log) if log.exists() else []
    curve = [{name: float(f"{x:.4g}") for name, x in row.items()} for row in rows]
    card = {
        **about,
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{jax.device_count()} {jax.devices()[0].platform}",
        "configuration": config.as_dict(),
        "step": step,
        "seconds": round(curve[-1]["elapsed"]) if curve else None,
        "curve": curve,
    }
    if jax.process_index() == 0:
        network = dataclasses.asdict(config.network)
        checkpoints.save_initialisation(target, params, network, card)


def _initialisations(directory: Path) -> tuple[list[Path], Path]:
    """Those that a run has written, in order, and the next one."""
    folders: list[Path] = []
    while True:
        suffix = f"_{len(folders) + 1}" if folders else ""
        folder = directory / f"{INITIALISATION}{suffix}"
        if not folder.exists():
            return folders, folder
        folders.append(folder)


def _commit() -> str:
    """Commit of the checkout the package runs from, or an empty text outside of one."""
    here = Path(__file__)

    def output(*command):
        result = subprocess.run(
            ["git", *command], cwd=here.parent, capture_output=True, text=True, check=True
        )
        return result.stdout.strip()

    try:
        # Installed, the package may lie within a checkout of something else.
        output("ls-files", "--error-unmatch", here.name)
        return output("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return ""
