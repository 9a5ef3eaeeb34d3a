"""Checkpoints of a training run, and the initialisations that are shipped.

A run's directory holds one folder per saved step: its parameters, the rest of the
training state, and the settings under which it was made. Orbax writes each into a
temporary folder and renames it when it is whole, so that a process killed while writing
loses that checkpoint only. Checksums tell one that was damaged since; the one before
takes its place.
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from meta_lrpinn.files import writing
from meta_lrpinn.learning.soap import Metric
from meta_lrpinn.runtime.options import check_settings

FOLDER = "checkpoints"  # within the directory of a run
CARD = "card.json"
_PARAMETERS = "parameters"
_METRIC = "metric"
_PROGRESS = "progress"
_RECORD = "record"
_KEPT = 2  # of the latest, beside the best; not tuned
_DELETED = "deleted"
_UNFINISHED = "*.orbax-checkpoint-tmp*"
_ORBAX = f"{os.sep}orbax{os.sep}"
# Beside the arrays [bytes]: descriptions, and the rest of disk blocks. An estimate.
_OVERHEAD = 2**20

# Orbax logs the traces of errors that it raises as well, and notices about options.
logging.getLogger("absl").addFilter(lambda record: _ORBAX not in record.pathname)


class Damaged(ValueError):
    """A checkpoint that is not whole and readable."""


class Restored(NamedTuple):
    """What a restore gives."""

    params: Any  # pytree of arrays
    progress: Any  # pytree: the rest of the training state; None if not asked for
    record: dict[str, Any]  # what was saved beside it: counters, not settings
    settings: dict[str, Any]  # under which it was made
    step: int
    path: Path


class RunCheckpoints:
    """The checkpoints of one run: the best one and the latest few are kept."""

    def __init__(self, directory: str | Path, *, read_only: bool = False):
        """Opens the directory, creating it and clearing what a killed process left.

        With `read_only` all is left as it is, for a look at a run in progress. It is a
        ValueError if the directory holds something else than checkpoints.
        """
        self.directory = Path(os.path.abspath(directory))
        self._read_only = read_only
        if not read_only:
            self._clear(_UNFINISHED)
            multihost_utils.sync_global_devices("checkpoint directory cleared")
        best = BestN(
            get_metric_fn=_score, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            create=not read_only,
            preservation_policy=AnyPreservationPolicy([best, LatestN(_KEPT)]),
            best_fn=_score,
            best_mode="min",
            # Renamed before being deleted, so that no half-deleted one is ever read.
            todelete_subdir=_DELETED,
            # Donated buffers must not change while they are written.
            enable_async_checkpointing=False,
        )
        handlers = {
            _PARAMETERS: ocp.StandardCheckpointHandler(),
            _PROGRESS: ocp.StandardCheckpointHandler(),
            _RECORD: ocp.JsonCheckpointHandler(),
        }
        with _readable(self.directory):
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, item_handlers=handlers
            )

    def save(
        self,
        step: int,
        params: Any,
        progress: Any,
        *,
        settings: Mapping[str, Any],
        record: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Saves one step; returns when it is on disk, and raises OSError if it cannot be.

        Args:
            step: Number of updates done.
            params, progress: Parameters and the rest of the training state, of arrays.
            settings: What must be the same when the run is resumed; JSON.
            record: What else to remember; JSON.
            score: Error of the parameters, less being better; None if not measured.
        """
        if step in self._manager.all_steps():
            return self.path(step)
        trees = {_PARAMETERS: params, _PROGRESS: progress}
        _check_room(self.directory, trees)
        about = {
            "settings": dict(settings),
            "record": dict(record),
            "checksums": {name: checksum(tree) for name, tree in trees.items()},
        }
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
            **{_RECORD: ocp.args.JsonSave(about)},
        )
        metrics = None if score is None else {"score": float(score)}
        _ignore_late_answers()
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):  # Other threads may be writing still.
                self._clear(_UNFINISHED)
            reason = _reason_of(error)
            raise OSError(f"{self.path(step)} cannot be written: {reason}") from error
        self._clear()
        return self.path(step)

    def restore(
        self,
        params: Any = None,
        progress: Any = None,
        *,
        settings: Mapping[str, Any] | None = None,
        sharding: jax.sharding.Sharding | None = None,
        ignored: Collection[str] = (),
        step: int | str = "latest",
    ) -> Restored | None:
        """Restores a step, wherever it was saved.

        A damaged one is set aside with a warning, as STEP.damaged, and the latest good one
        takes its place. Where none is good, all are left as they are.

        Args:
            params: Parameters, or their shapes, of the structure to restore; None for
                those that are saved, whatever the network, as nested dictionaries.
            progress: The rest of the state, or its shapes; with `params` only.
            settings: Settings of the run that resumes; None for any.
            sharding: Where every array goes; by default the first local device.
            ignored: Dotted names of settings that may differ.
            step: "latest", "best" or a number, which has no substitute.

        Returns:
            The restored step; None if the directory holds no checkpoint.

        Raises:
            ValueError: if settings differ (all are named), or no checkpoint is readable.
        """
        first = self.find(step)
        if first is None:
            return None
        others = sorted(set(self._manager.all_steps()) - {first}, reverse=True)
        damaged: dict[int, Damaged] = {}
        for number in [first, *(others if isinstance(step, str) else [])]:
            try:
                restored = self._read(number, params, progress, settings, sharding, ignored)
            except Damaged as error:
                damaged[number] = error
                continue
            for error in damaged.values():
                text = f"{error}; that of step {number} is used instead"
                warnings.warn(text, stacklevel=3)
            self._set_aside(damaged)
            return restored
        raise damaged[first]

    def find(self, step: int | str) -> int | None:
        """Number of the "latest", "best" or numbered step; None if there is none.

        It is a ValueError if a numbered step does not exist.
        """
        if step == "latest":
            return self._manager.latest_step()
        if step == "best":
            # The manager calls none best when none was measured.
            return self._manager.best_step() or self._manager.latest_step()
        if isinstance(step, str) or step not in self._manager.all_steps():
            raise ValueError(
                f"{self.directory} has no checkpoint of step {step}, but of "
                f"{list(self._manager.all_steps())}"
            )
        return step

    def path(self, step: int) -> Path:
        """Folder of a step."""
        return self.directory / str(step)

    def close(self) -> None:
        """Releases the directory."""
        self._manager.close()

    def _set_aside(self, steps: Collection[int]) -> None:
        """Renames damaged steps, so that they can be saved again."""
        if self._read_only or not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = self.path(step).with_name(f"{step}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                self.path(step).rename(aside)
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()

    def _read(
        self,
        step: int,
        params: Any,
        progress: Any,
        settings: Mapping[str, Any] | None,
        sharding: jax.sharding.Sharding | None,
        ignored: Collection[str],
    ) -> Restored:
        """One step; raises `Damaged`, or ValueError if settings or shapes differ."""
        path = self.path(step)
        with _readable(path):
            args = ocp.args.Composite(**{_RECORD: ocp.args.JsonRestore()})
            about = self._manager.restore(step, args=args)[_RECORD]
            for name in ("settings", "record", "checksums"):
                if not isinstance(about[name], dict):
                    raise ValueError(f"its {name} are of another kind")
            saved = self._manager.item_metadata(step)[_PARAMETERS].tree
        if settings is not None:
            check_settings(about["settings"], settings, ignored, path)
        targets = {_PARAMETERS: saved}
        if params is not None:
            _check_shapes(path, saved, params)
            targets = {_PARAMETERS: params, _PROGRESS: progress}
        with _readable(path):
            args = ocp.args.Composite(
                **{
                    name: ocp.args.StandardRestore(_abstract(tree, sharding))
                    for name, tree in targets.items()
                }
            )
            state = self._manager.restore(step, args=args)
            for name in targets:
                if about["checksums"].get(name) != checksum(state[name]):
                    raise ValueError(
                        f"its {name} have another checksum than when they were saved"
                    )
        progress = state[_PROGRESS] if _PROGRESS in targets else None
        parts = (state[_PARAMETERS], progress, about["record"], about["settings"])
        return Restored(*parts, step, path)

    def _clear(self, *patterns: str) -> None:
        if jax.process_index() == 0:
            for pattern in (_DELETED, *patterns):
                for path in self.directory.glob(pattern):
                    shutil.rmtree(path)


def latest_step(directory: str | Path) -> int:
    """Number of updates of a run's latest checkpoint; 0 where there is none."""
    folder = Path(directory) / FOLDER
    if not folder.is_dir():
        return 0
    with contextlib.closing(RunCheckpoints(folder, read_only=True)) as run:
        return run.find("latest") or 0


def load_run_parameters(
    directory: str | Path, step: int | str = "best"
) -> tuple[Any, dict[str, Any], int]:
    """Parameters of a run, finished or in progress, their settings, and the step.

    The directory is the run's, or that of its checkpoints. Parameters are on the first
    local device. A step is as of `RunCheckpoints.restore`, but none is set aside.
    """
    directory = Path(directory)
    if (directory / FOLDER).is_dir():
        directory = directory / FOLDER
    if not directory.is_dir():
        raise ValueError(f"there is no checkpoint directory {directory}")
    with contextlib.closing(RunCheckpoints(directory, read_only=True)) as run:
        restored = run.restore(step=step)
    if restored is None:
        raise ValueError(f"{directory} holds no checkpoint")
    return restored.params, restored.settings, restored.step


def save_initialisation(
    path: str | Path,
    params: Any,
    model_config: Mapping[str, Any],
    card: Mapping[str, Any],
    metric: Metric | None = None,
) -> None:
    """Saves a meta-initialisation to be shipped.

    Args:
        path: Folder to create; a ValueError if it exists.
        params: Parameters, nested dictionaries of arrays.
        model_config: What builds the network; JSON.
        card: The model card: on what, how and how long it was trained; JSON.
        metric: Learned over tasks from these parameters, see `soap.measure_metric`.
    """
    check_is_new(path)
    text = json.dumps({"model": dict(model_config), "card": dict(card)}, indent=2)
    trees = {_PARAMETERS: params} | ({} if metric is None else {_METRIC: metric})
    me = jax.process_index()
    # From the calling process alone.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )

    def write(folder: Path) -> None:
        _check_room(folder.parent, trees)
        for name, tree in trees.items():
            with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
                tree = jax.tree.map(np.asarray, tree)
                checkpointer.save(Path(os.path.abspath(folder / name)), tree)
            # Orbax's marker holds the absolute path of this machine, not to be shipped.
            (folder / name / "commit_success.txt").write_text("committed\n")
        (folder / CARD).write_text(text + "\n")

    writing.write_together({Path(path): writing.FolderWriter(write)})


def check_is_new(path: str | Path) -> None:
    """Raises ValueError if the folder of an initialisation to write exists."""
    if Path(path).exists():
        raise ValueError(f"{path} exists already; an initialisation is not overwritten")


def load_initialisation(path: str | Path) -> tuple[Any, dict, dict]:
    """Parameters, model configuration and card that `save_initialisation` wrote.

    Parameters are on the first local device; the folder is only read. It is a ValueError
    if it does not hold a whole initialisation.
    """
    path = Path(path)
    try:
        card = json.loads((path / CARD).read_text())
        model, card = card["model"], card["card"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a saved initialisation: {CARD} is missing or damaged"
        ) from error
    return _load_tree(path / _PARAMETERS), model, card


def load_metric(path: str | Path) -> Metric | None:
    """The metric beside an initialisation, if one was learned; ValueError if damaged."""
    path = Path(path) / _METRIC
    return _load_tree(path) if path.exists() else None


def checksum(tree: Any) -> str:
    """SHA-256 of a tree of arrays: names, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        values = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _score(metrics: Mapping[str, float]) -> float:
    score = metrics["score"]
    return score if math.isfinite(score) else math.inf


def _check_shapes(path: Path, saved: Any, params: Any) -> None:
    """Raises ValueError, naming all that differ, unless two trees have the same shapes."""

    def shapes_of(tree):
        return {
            jax.tree_util.keystr(name, simple=True, separator="."): tuple(leaf.shape)
            for name, leaf in jax.tree.leaves_with_path(tree)
        }

    saved, shapes = shapes_of(saved), shapes_of(params)
    differing = [
        f"{name} was {saved.get(name)}, is {shapes.get(name)}"
        for name in sorted(saved.keys() | shapes.keys())
        if saved.get(name) != shapes.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} holds parameters of another network: " + "; ".join(differing)
        )


def _check_room(folder: Path, trees: Any) -> None:
    """Raises OSError, before anything is written, if the disk has no room for trees.

    Orbax writes in many threads, which do not end well on a full disk.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
    writing.check_room(folder, size + _OVERHEAD)


def _load_tree(path: Path) -> Any:
    """Loads a tree of dictionaries of arrays on the first local device."""
    path = Path(os.path.abspath(path))
    with _readable(path), ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(path).item_metadata.tree
        return checkpointer.restore(path, _abstract(shapes))


def _abstract(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    """Shapes to restore a tree into; by default on the first local device."""
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises `Damaged`, which names the path, for whatever is raised in the block."""
    _ignore_late_answers()
    try:
        yield
    except Exception as error:  # orbax and its backends raise very many kinds
        raise Damaged(
            f"{path} is not a whole, readable checkpoint: {_reason_of(error)}"
        ) from error


def _reason_of(error: Exception) -> str:
    """Kind and first line of an error."""
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}"


def _ignore_late_answers() -> None:
    """Tells nothing of what becomes of the other arrays once one has failed.

    TensorStore goes on with them, and answers to an event loop that Orbax has closed, or
    to a coroutine that it has left, at any time after; each error would be printed.
    """
    before = sys.unraisablehook
    if getattr(before, "func", None) is not _hook:
        sys.unraisablehook = functools.partial(_hook, before)


def _hook(before: Callable[[Any], None], raised: Any) -> None:
    code = getattr(raised.object, "cr_code", None)
    is_of_orbax = code is not None and _ORBAX in code.co_filename
    if not is_of_orbax and "Event loop is closed" not in str(raised.exc_value):
        before(raised)
