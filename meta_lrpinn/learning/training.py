"""The meta-training loop: resumable, and the same on one device and on many."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import struct

from meta_lrpinn import models
from meta_lrpinn.learning import checkpoints, devices
from meta_lrpinn.learning.configs import Cosine, Reptile, TrainingConfig
from meta_lrpinn.learning.objectives import Objective, Params, Scalars
from meta_lrpinn.learning.run_log import RunLog
from meta_lrpinn.learning.soap import Metric
from meta_lrpinn.learning.task_sets import Task, TaskSampler
from meta_lrpinn.runtime.options import as_dict

# Batches drawn while an update runs; not tuned.
_AHEAD = 2

Evaluation = Callable[[Params, int], Mapping[str, float]]


class TrainingDiverged(RuntimeError):
    """Loss or gradient ceased to be finite; the message names what can be resumed."""


class TrainState(struct.PyTreeNode):
    """All that the next update depends on, tasks apart; a pytree."""

    params: Any  # meta-parameters
    opt_state: Any  # of `make_optimiser`
    step: jax.Array  # () int32, updates done
    key: jax.Array  # (2,) uint32, data of the key from which all randomness derives


def make_schedule(config: TrainingConfig) -> optax.Schedule:
    """Learning rate as a function of the iteration; of Reptile and its kin the step."""
    algorithm, schedule = config.algorithm, config.schedule
    rate = algorithm.step if isinstance(algorithm, Reptile) else algorithm.learning_rate
    if isinstance(schedule, Cosine):
        return optax.cosine_decay_schedule(rate, config.iterations)
    return optax.exponential_decay(
        rate, schedule.decay_every, schedule.decay, staircase=True
    )


def make_optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    """AdamW on the clipped meta-gradient; for Reptile and its kin SGD, an interpolation."""
    algorithm, schedule = config.algorithm, make_schedule(config)
    if isinstance(algorithm, Reptile):
        step = optax.sgd(schedule)
    else:
        step = optax.adamw(schedule, weight_decay=algorithm.weight_decay)
    if config.clip_norm is None:
        return step
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), step)


def initial_state(config: TrainingConfig, params: Params) -> TrainState:
    """State before the first update."""
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(
        params=params,
        opt_state=make_optimiser(config).init(params),
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(jax.random.key(config.seed)),
    )


def make_update(
    config: TrainingConfig,
    objective: Objective,
    mesh: jax.sharding.Mesh,
    metric: Metric | None = None,
) -> Callable:
    """The jitted update, a function of (state, support, query).

    It gives the next state and scalars: the objective's, `loss`, `gradient_norm`, and
    `finite`, whether both are. The state's buffers are donated. For the arguments see
    `train`.
    """
    optimiser = make_optimiser(config)
    gradient = devices.sharded_meta_gradient(
        objective, mesh, config.algorithm, config.task_axis, metric
    )

    def update(state, support, query):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (loss, scalars), grads = gradient(state.params, support, query, key)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        if config.orthonormal_bases:
            params = models.orthonormal_bases(params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        scalars = {**scalars, "loss": loss, "gradient_norm": norm, "finite": finite}
        state = TrainState(
            params=params, opt_state=opt_state, step=state.step + 1, key=state.key
        )
        return state, scalars

    return jax.jit(update, donate_argnums=0, out_shardings=devices.replicated(mesh))


def train(
    config: TrainingConfig,
    objective: Objective,
    task_sampler: TaskSampler,
    params: Params,
    directory: str | Path,
    *,
    metric: Metric | None = None,
    evaluate: Evaluation | None = None,
    settings: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> TrainState:
    """Meta-trains, going on from the latest checkpoint in `directory` if there is one.

    Killed at any moment and started again, it ends with the same parameters as if never
    stopped (bit for bit on CPU).

    Args:
        config, objective: How to train, and the loss of one task.
        task_sampler: `(seed, step)` to (support, query), each a batch of
            `tasks_per_batch` tasks as NumPy arrays, leaves (tasks, ...). It must depend
            on nothing else. It is called ahead of time, in another thread.
        params: Initial meta-parameters, the same in every process.
        directory: Of the run: `checkpoints/`, `training.csv`, `evaluation.csv`,
            `tensorboard/`.
        metric: What the inner steps of SOAP begin with; None for nothing.
        evaluate: `(params, step)` to scalars, of which the first is the error whose
            smallest value makes a checkpoint the best. Called before the first update
            and every `evaluate_every`, in every process.
        settings: What else, apart from `config`, must be the same in order to resume
            (network, tasks, losses); nested dictionaries of JSON values.
        seconds: Stop after so much time in total, earlier sittings included, with a
            checkpoint.
        mesh: Devices; by default all.
        progress: Whether to show a progress bar and messages.

    Returns:
        The last state, on every device of the mesh.

    Raises:
        ValueError: if settings differ from those of the checkpoint, or the devices
            cannot share a batch equally.
        TrainingDiverged: if loss or gradient are not finite; what is saved is from
            before.
    """
    mesh = devices.task_mesh() if mesh is None else mesh
    ours = devices.local_tasks(config.tasks_per_batch, mesh)
    directory = Path(directory)
    settings = {**(settings or {}), "training": as_dict(config)}
    progress = progress and jax.process_index() == 0
    saved = checkpoints.RunCheckpoints(directory / checkpoints.FOLDER)
    with contextlib.closing(saved):
        state, record = _restore(saved, config, params, settings, mesh, progress)
        update = make_update(config, objective, mesh, metric)
        budget = math.inf if seconds is None else seconds
        loop = _Loop(config, directory, saved, settings, evaluate, budget, progress, record)
        batches = _prefetch(task_sampler, config.seed, loop.step, config.iterations)
        with contextlib.closing(loop), contextlib.closing(batches):
            loop.before_first(state)
            while not loop.finished:
                batch = jax.tree.map(lambda leaf: leaf[ours], next(batches))
                support, query = (devices.shard_tasks(tasks, mesh) for tasks in batch)
                state, scalars = update(state, support, query)
                loop.after(state, scalars)
    return state


class _Record(NamedTuple):
    """What is remembered beside the state."""

    step: int = 0  # updates done
    elapsed: float = 0.0  # seconds of all sittings
    best: float | None = None  # least error so far


def _progress(state: TrainState) -> dict[str, Any]:
    return {"opt_state": state.opt_state, "step": state.step, "key": state.key}


def _restore(
    saved: checkpoints.RunCheckpoints,
    config: TrainingConfig,
    params: Params,
    settings: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    progress: bool,
) -> tuple[TrainState, _Record]:
    """The latest saved state, else the initial one, on all devices."""
    state = initial_state(config, params)
    restored = saved.restore(
        state.params,
        _progress(state),
        settings=settings,
        sharding=devices.replicated(mesh),
        ignored={f"training.{name}" for name in config.free_on_resume},
    )
    if restored is None:
        return devices.replicate(state, mesh), _Record()
    if progress:
        text = f"resuming from step {restored.step}, {restored.path}"
        print(text, file=sys.stderr, flush=True)
    record = {name: restored.record.get(name) for name in ("elapsed", "best")}
    for name, value in record.items():
        if not isinstance(value, int | float | None):
            raise ValueError(f"{restored.path} has a record of another kind: {name}")
    elapsed = record["elapsed"] or 0.0
    state = TrainState(params=restored.params, **restored.progress)
    return state, _Record(restored.step, elapsed, record["best"])


@dataclasses.dataclass
class _Loop:
    """What surrounds the updates: counting, logging, evaluating, saving."""

    config: TrainingConfig
    directory: Path
    saved: checkpoints.RunCheckpoints
    settings: Mapping[str, Any]
    evaluation: Evaluation | None
    seconds: float
    progress: bool
    record: _Record

    def __post_init__(self):
        self.step = self.record.step
        self.finished = self.step >= self.config.iterations
        self._best = math.inf if self.record.best is None else self.record.best
        self._pending: list[Scalars] = []
        self._logs = {}
        if jax.process_index() == 0:
            last = self.step or -1
            for name in ("training", "evaluation"):
                self._logs[name] = RunLog(self.directory, name, last)
        self._bar = tqdm.tqdm(
            total=self.config.iterations,
            initial=self.step,
            disable=not self.progress,
            unit="it",
            desc="meta-training",
        )
        self._shown: dict[str, str] = {}
        self._logged = time.perf_counter()
        # As if all sittings had been one, up to what earlier ones saved.
        self._start = self._logged - self.record.elapsed

    def close(self) -> None:
        """Closes the progress bar and the files of metrics."""
        self._bar.close()
        for log in self._logs.values():
            log.close()

    def before_first(self, state: TrainState) -> None:
        """Evaluates the initial parameters, if these are they.

        However long that takes, an iteration follows: there is a checkpoint in any case.
        """
        if self.step == 0:
            self._evaluate(state)
        else:
            self.finished = self.finished or self._out_of_time()

    def after(self, state: TrainState, scalars: Scalars) -> None:
        """Logs, evaluates and saves, as due, after one update."""
        config = self.config
        self.step += 1
        self._pending.append(scalars)
        self._bar.update()
        self.finished = self.step >= config.iterations
        evaluating = self.step % config.evaluate_every == 0
        saving = self.step % config.checkpoint_every == 0
        logging = self.step % config.log_every == 0
        if not (self.finished or evaluating or saving or logging):
            return
        # First of all, so that no bad state is ever saved.
        self._log()
        self.finished = self.finished or self._out_of_time()
        score = self._evaluate(state) if evaluating or self.finished else None
        least = self._best
        if score is not None:
            self._best = min(least, score)
        if saving or self._best < least or self.finished:
            self._save(state, score)

    def _log(self) -> None:
        """Fetches the scalars since the last call: training's only host transfer."""
        rows = jax.device_get([devices.local_copy(row) for row in self._pending])
        self._pending.clear()
        for step, row in enumerate(rows, self.step - len(rows) + 1):
            if not row.pop("finite"):
                raise TrainingDiverged(self._diverged(step, row))
        now = time.perf_counter()
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        means["seconds_per_iteration"] = (now - self._logged) / len(rows)
        self._logged = now
        self._write("training", means)
        self._show("loss", means["loss"])

    def _diverged(self, step: int, row: Mapping[str, Any]) -> str:
        last = self.saved.find("latest")
        good = "no checkpoint was saved before"
        if last is not None:
            good = f"the last good checkpoint is {self.saved.path(last)} (step {last})"
        what = "gradient" if np.isfinite(row["loss"]) else "loss"
        return (
            f"{what} is not finite at step {step} (loss {row['loss']}, gradient norm "
            f"{row['gradient_norm']}); {good}"
        )

    def _evaluate(self, state: TrainState) -> float | None:
        if self.evaluation is None:
            return None
        start = time.perf_counter()
        scalars = dict(self.evaluation(devices.local_copy(state.params), self.step))
        # Time spent here is not time per iteration.
        self._logged += time.perf_counter() - start
        self._write("evaluation", {**scalars, "elapsed": self._elapsed()})
        name, score = next(iter(scalars.items()))
        self._show(name, score)
        return float(devices.of_first_process(np.asarray(score)))

    def _save(self, state: TrainState, score: float | None) -> None:
        start = time.perf_counter()
        best = self._best if math.isfinite(self._best) else None
        self.saved.save(
            self.step,
            state.params,
            _progress(state),
            settings=self.settings,
            record={"elapsed": self._elapsed(), "best": best},
            score=score,
        )
        self._logged += time.perf_counter() - start

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _out_of_time(self) -> bool:
        over = np.asarray(self._elapsed() >= self.seconds)
        return bool(devices.of_first_process(over))

    def _write(self, name: str, scalars: Mapping[str, float]) -> None:
        if name in self._logs:
            self._logs[name].write(self.step, scalars)

    def _show(self, name: str, value: float) -> None:
        self._shown[name] = f"{value:.3g}"
        self._bar.set_postfix(self._shown, refresh=False)


def _prefetch(
    task_sampler: TaskSampler, seed: int, start: int, stop: int
) -> Generator[tuple[Task, Task], None, None]:
    """Batches of steps start to stop, drawn in order by one thread."""
    pool = concurrent.futures.ThreadPoolExecutor(1, "task sampler")
    drawn = (pool.submit(task_sampler, seed, step) for step in range(start, stop))
    try:
        pending = collections.deque(itertools.islice(drawn, _AHEAD))
        while pending:
            pending.extend(itertools.islice(drawn, 1))
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
