"""A whole meta-training from its configuration to an initialisation that can ship."""

import contextlib
import csv
import dataclasses
import math
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import linen as nn

from meta_lrpinn import generators, models
from meta_lrpinn.files import writing
from meta_lrpinn.learning import (
    adaptation,
    checkpoints,
    configs,
    devices,
    networks,
    objectives,
    output_layer,
    soap,
    task_sets,
    training,
)
from meta_lrpinn.learning.metric import measure_metric
from meta_lrpinn.learning.task_files import fixed_tasks
from meta_lrpinn.learning.tasks import Task, TaskSampler
from meta_lrpinn.runtime.memory import check_memory

INITIALISATION = "initialisation"
# Held tasks: their seeds, frequencies (Hz) and source positions never change, so that
# runs can be compared.
_HELD_SEED = 20_251_124
_HELD = (
    (3.0, 0.4), (4.0, 1.9), (5.0, 0.7), (5.0, 1.5), (6.0, 1.2), (8.0, 0.9), (10.0, 1.7)
)  # fmt: skip
_HELD_SIZE = 91
_HELD_POINTS = 2048
_QUADRATURE = (72, 72)
# Of the own output: one velocity at each of these settings, which networks of two cores
# can learn; errors after so many steps, of which the last decides.
_OWN_HELD = ((3.0, 0.4), (4.0, 1.9), (5.0, 0.7), (6.0, 1.2), (8.0, 0.9))
_OWN_STEPS = (0, 20, 50)
# Of the tasks from which a metric is learned; training draws from others.
_METRIC_SEED = 2_000_003


def held_tasks(
    distribution: configs.TaskDistribution,
    settings: Sequence[tuple[float, float]] | None = None,
    velocities: int = 2,
) -> list[Task]:
    """Tasks that training never draws, by default two velocities at seven settings.

    Args:
        distribution: Of the training tasks; their shapes and layer are the same.
        settings: Frequencies (Hz) and source positions (km); by default seven.
        velocities: Random velocities at each setting.

    Returns:
        Tasks with NumPy leaves; with the known wavefield where there is a layer.
    """
    rng = np.random.default_rng(_HELD_SEED)
    size = min(max(_HELD_SIZE, distribution.smallest_size), distribution.largest_size)
    tasks = []
    for frequency, source_x in _HELD if settings is None else settings:
        members = [
            generators.random_velocity(
                int(rng.integers(2**31)), (size, size), distribution.spacing
            )
            for _ in range(velocities)
        ]
        alike = task_sets.make_tasks(members, frequency, [source_x], distribution)
        if distribution.absorbing:
            alike = task_sets.with_scattered(alike, _HELD_POINTS, _HELD_SEED)
        tasks += alike
    return tasks


def make_evaluation(
    config: configs.MetaConfig,
    model: nn.Module,
    objective: objectives.Objective,
    metric: soap.Metric | None = None,
    progress: bool = False,
) -> training.Evaluation:
    """What is watched during training, first the figure that chooses the best.

    Of objectives of the own output it is what an initialisation is for, the network after
    adaptation to held tasks (`own_output_evaluation`); of known wavefields it is the
    error of the Galerkin solution over the features (`galerkin_evaluation`).

    Args:
        config: The whole configuration.
        model: Network.
        objective: What it is trained on.
        metric: What SOAP begins with, where it adapts the network; None for nothing.
        progress: Show a progress bar over the tasks.

    Returns:
        `(params, step)` to the mean figure over the held tasks (`error`, or `loss` without
        a layer), and the figure of each task.
    """
    if config.objective.learns_from_wavefields:
        return galerkin_evaluation(config.tasks, model, progress)
    return own_output_evaluation(
        config.tasks,
        model,
        objective,
        optimiser=adaptation_of(config, _OWN_STEPS[-1], metric),
        metric=metric,
        progress=progress,
    )


def galerkin_evaluation(
    distribution: configs.TaskDistribution, model: nn.Module, progress: bool = False
) -> training.Evaluation:
    """Relative L2 error of the Galerkin solution over the features as they are.

    Without a step of adaptation, in double precision: features of many a network nearly
    depend on each other.

    Args:
        distribution: Of the training tasks, with an absorbing layer.
        model: Network with features.
        progress: Show a progress bar over the tasks.

    Returns:
        `(params, step)` to the mean over the held tasks (`error`) and that of each.
    """
    tasks = held_tasks(distribution)

    @jax.jit
    def error_of(params, task):
        return objectives.galerkin_error(
            model, params, task, _QUADRATURE, damping=output_layer.DAMPING
        )

    def evaluate(params, step):
        del step
        with jax.enable_x64(True):
            params = _double(params)
            errors = [
                float(error_of(params, _double(task))) for task in _shown(tasks, progress)
            ]
        each = dict(zip(map(_name_of, _HELD), errors, strict=True))
        return {"error": float(np.mean(errors)), **each}

    return evaluate


def adaptation_of(
    config: configs.MetaConfig, steps: int, metric: soap.Metric | None = None
) -> optax.GradientTransformation:
    """The optimiser of so many steps of meta-testing, of a network that is trained so.

    That of the published losses is the published one.
    """
    if config.objective.name == "paper":
        return adaptation.make_optimiser(
            "adamw", 1e-3, "halved", steps, weight_decay=4e-5, clip_norm=None
        )
    name = "soap" if _is_soap(config) else "adamw"
    rate = adaptation.default_rate(name, steps, metric)
    return adaptation.make_optimiser(name, rate, "cosine", steps)


def own_output_evaluation(
    distribution: configs.TaskDistribution,
    model: nn.Module,
    objective: objectives.Objective,
    settings: Sequence[tuple[float, float]] = _OWN_HELD,
    steps: Sequence[int] = _OWN_STEPS,
    optimiser: optax.GradientTransformation | None = None,
    metric: soap.Metric | None = None,
    progress: bool = False,
) -> training.Evaluation:
    """The network's own output after adaptation to held tasks.

    All parameters are adapted, the hypernetwork too. With an absorbing layer the figure
    is the relative L2 error; without one the problem has no unique solution to compare
    with, and it is the objective, at points that no step draws.

    Args:
        distribution: Of the training tasks.
        model: Network.
        objective: That the steps descend.
        settings: Frequencies (Hz) and source positions (km) of the held tasks.
        steps: Numbers of steps after which the figure is taken, in order.
        optimiser: Of the steps; by default AdamW, along a half cosine.
        metric: What SOAP begins with; None for nothing.
        progress: Show a progress bar over the tasks.

    Returns:
        `(params, step)` to the mean figure after the last number of steps (`error`, or
        `loss`), after the others (`error_0`, ...), and of each task after the last.
    """
    tasks = held_tasks(distribution, settings, velocities=1)
    if optimiser is None:
        rate = adaptation.default_rate("adamw", steps[-1])
        optimiser = adaptation.make_optimiser("adamw", rate, "cosine", steps[-1])
    figure = "error" if distribution.absorbing else "loss"
    held_out = jax.random.fold_in(jax.random.key(_HELD_SEED), adaptation.HELD_OUT_FOLD)

    def measure(params, task):
        if distribution.absorbing:
            return objectives.own_output_error(model, params, task)
        return objective(params, task, held_out)[0]

    @jax.jit
    def figures_of(params, task):
        start = adaptation.initial_state(optimiser, params, metric)
        state, figures, done = (params, start), [], 0
        for number in steps:
            state = _descend(objective, optimiser, state, task, done, number)
            figures.append(measure(state[0], task))
            done = number
        return jnp.stack(figures)

    def evaluate(params, step):
        del step
        rows = [np.asarray(figures_of(params, task)) for task in _shown(tasks, progress)]
        figures = np.asarray(rows, float)
        means = dict(zip(steps, figures.mean(axis=0), strict=True))
        scalars = {figure: float(means.pop(steps[-1]))}
        scalars |= {f"{figure}_{number}": float(mean) for number, mean in means.items()}
        scalars |= zip(map(_name_of, settings), map(float, figures[:, -1]), strict=True)
        return scalars

    return evaluate


def _shown(tasks: Sequence[Task], progress: bool) -> Iterable[Task]:
    """The tasks, with a progress bar while they are gone through."""
    return tqdm.tqdm(
        tasks, disable=not progress, unit="task", desc="evaluation", leave=False
    )


def _name_of(setting: tuple[float, float]) -> str:
    frequency, source_x = setting
    return f"{frequency:g}Hz_{source_x:g}km"


def _descend(objective, optimiser, state, task, first: int, last: int):
    """(params, optimiser state) after the steps from first to last."""

    def step(state, index):
        params, optimiser_state = state
        key = jax.random.fold_in(jax.random.key(_HELD_SEED), index)
        gradient = jax.grad(objective, has_aux=True)(params, task, key)[0]
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        return (optax.apply_updates(params, updates), optimiser_state), None

    return jax.lax.scan(step, state, jnp.arange(first, last))[0]


def _is_soap(config: configs.MetaConfig) -> bool:
    inner = getattr(config.training.algorithm, "inner", None)
    return inner is not None and inner.optimiser == "soap"


def _double(tree: Any) -> Any:
    """Floating-point leaves in double precision; needs x64."""

    def cast(leaf):
        leaf = np.asarray(leaf)
        is_complex = np.iscomplexobj(leaf)
        return leaf.astype(np.complex128 if is_complex else np.float64)

    return jax.tree.map(cast, tree)


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
        params, origin, metric = load_start(init, config.network)
    if not _is_soap(config):
        metric = None
    with _alone(directory):
        before = checkpoints.latest_step(directory)
        state = training.train(
            config.training,
            objective,
            sampler,
            params,
            directory,
            metric=metric,
            evaluate=make_evaluation(config, model, objective, metric, progress),
            settings=config.as_dict(),
            seconds=seconds,
            progress=progress,
        )
        iterations = int(devices.local_copy(state.step)) - before
        written = _initialisations(directory)
        if not iterations and written:
            return Trained(written[-1], 0)
        folder = export(config, directory, command, commit, origin)
        return Trained(folder, iterations)


def _initialisations(directory: Path) -> list[Path]:
    """Those that a run has written, in order."""
    folders: list[Path] = []
    while (folder := _initialisation(directory, len(folders) + 1)).exists():
        folders.append(folder)
    return folders


def _initialisation(directory: Path, number: int) -> Path:
    suffix = "" if number == 1 else f"_{number}"
    return directory / f"{INITIALISATION}{suffix}"


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
        tasks: Number of tasks.
        steps: Steps of each task.
        command: Command line, for the card.

    Returns:
        The folder; its card is that of `init` with an entry `metric`.

    Raises:
        ValueError: if the folder exists, or `init` is of another network.
    """
    checkpoints.check_is_new(out)
    params, card, _ = load_start(init, config.network)
    objective = objectives.make_objective(
        config.objective, networks.make_network(config.network)
    )
    distribution = dataclasses.replace(config.tasks, known_points=0)
    seed = config.training.seed
    rng = np.random.default_rng([_METRIC_SEED, seed])
    drawn = [task_sets.draw_tasks(distribution, rng)[0] for _ in range(tasks)]
    began = time.process_time()
    learned = measure_metric(
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


def _alone(directory: Path) -> contextlib.AbstractContextManager:
    """A lock of the run's folder, which the first process of a run holds for all."""
    if jax.process_index() == 0:
        return writing.locked(directory)
    return contextlib.nullcontext()


def _make_sampler(
    config: configs.MetaConfig, task_files: Sequence[str | Path]
) -> TaskSampler:
    needs = config.objective.learns_from_wavefields
    if task_files:
        sampler = task_sets.file_sampler(task_files, config.tasks, config.training)
        known = sampler(config.training.seed, 0)[0].scattered is not None
    else:
        distribution = config.tasks
        if not needs:
            distribution = dataclasses.replace(distribution, known_points=0)
        if distribution.fixed_models:
            tasks = fixed_tasks(distribution, config.training.seed)
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


def load_start(
    init: str | Path, network: configs.NetworkConfig
) -> tuple[objectives.Params, dict[str, Any], soap.Metric | None]:
    """Parameters of an initialisation to train further, its card, and its metric.

    Raises:
        ValueError: if it is of another network than the one to train.
    """
    params, saved, card = checkpoints.load_initialisation(init)
    checkpoints.check_settings(saved, dataclasses.asdict(network), path=init)
    return params, card, checkpoints.load_metric(init)


def export(
    config: configs.MetaConfig,
    directory: Path,
    command: str,
    commit: str,
    origin: dict[str, Any] | None = None,
) -> Path:
    """Writes the best checkpoint of a run as an initialisation with its card.

    Args:
        config: What was trained.
        directory: Folder of the run.
        command: Command line.
        commit: Of the code that ran.
        origin: Card of the initialisation that the run started from, if any.

    Returns:
        Folder of the initialisation.
    """
    params, _, step = checkpoints.load_run_parameters(directory / "checkpoints", "best")
    target = _initialisation(directory, len(_initialisations(directory)) + 1)
    curve = _read_curve(directory / "evaluation.csv")
    card = {
        "command": command,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{jax.device_count()} {jax.devices()[0].platform}",
        "configuration": config.as_dict(),
        "step": step,
        "seconds": round(float(curve[-1]["elapsed"])) if curve else None,
        "curve": curve,
        "started_from": origin,
    }
    if jax.process_index() == 0:
        checkpoints.save_initialisation(
            target, params, dataclasses.asdict(config.network), card
        )
    return target


def _read_curve(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(f"{float(x):.4g}") for name, x in row.items()} for row in rows]


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
