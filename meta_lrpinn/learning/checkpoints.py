"""Checkpoints of a training run, and the initialisations that are shipped.

A run's directory holds one folder per saved step: its parameters, the rest of the
training state, and the settings under which it was made. Orbax writes each into a
temporary folder and renames it when it is whole, so that a process killed while writing
loses that checkpoint only. Checksums tell one that was damaged since; the one before
takes its place.
"""

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from meta_lrpinn.files import writing
from meta_lrpinn.learning import parameter_files
from meta_lrpinn.learning.soap import Metric
from meta_lrpinn.runtime.options import check_settings

FOLDER = "checkpoints"  # within the directory of a run
CARD = "card.json"
_PARAMETERS = "parameters"
_METRIC = "metric"
_COMMITTED = "commit_success.txt"
_PROGRESS = "progress"
_RECORD = "record"
_CHECKSUMS = "checksums"
_DELETED = "deleted"
_DAMAGED = ".damaged"  # a suffix
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Restored(NamedTuple):
    """What a restore gives."""

    params: Any  # pytree of arrays
    progress: Any  # pytree: the rest of the training state
    record: dict[str, Any]  # what was saved beside it: counters, not settings
    step: int
    path: Path


class RunCheckpoints:
    """The checkpoints of one run: the best one and the latest few are kept."""

    def __init__(self, directory: str | Path, *, keep: int = 2, read_only: bool = False):
        """Opens the directory, creating it and clearing what a killed process left.

        Args:
            directory: Folder of the checkpoints.
            keep: How many of the latest to keep beside the best.
            read_only: Leaves all as it is, for a look at a run in progress.

        Raises:
            ValueError: if the directory holds something else than checkpoints.
        """
        self.directory = Path(os.path.abspath(directory))
        self._read_only = read_only
        if not read_only:
            self._clear(_UNFINISHED)
            multihost_utils.sync_global_devices("checkpoint directory cleared")
        best = BestN(
            get_metric_fn=_score,
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            create=not read_only,
            preservation_policy=AnyPreservationPolicy([best, LatestN(keep)]),
            best_fn=_score,
            best_mode="min",
            # Renamed before being deleted, so that no half-deleted one is ever read.
            todelete_subdir=_DELETED,
            # Donated buffers must not change while they are written.
            enable_async_checkpointing=False,
        )
        with parameter_files.readable(self.directory):
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=options,
                item_handlers={
                    _PARAMETERS: ocp.StandardCheckpointHandler(),
                    _PROGRESS: ocp.StandardCheckpointHandler(),
                    _RECORD: ocp.JsonCheckpointHandler(),
                },
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
        """Saves one step; returns when it is on disk.

        Args:
            step: Number of updates done.
            params: Parameters.
            progress: The rest of the training state, a pytree of arrays.
            settings: What must be the same when the run is resumed; JSON.
            record: What else to remember; JSON.
            score: Error of the parameters, less being better; None if not measured.

        Raises:
            OSError: if it cannot be written, as on a full disk.
        """
        if step in self._manager.all_steps():
            return self.path(step)
        parts = {_PARAMETERS: params, _PROGRESS: progress}
        parameter_files.check_room(self.directory, parts)
        about = {
            "settings": dict(settings),
            "record": dict(record),
            _CHECKSUMS: {
                name: parameter_files.checksum(tree) for name, tree in parts.items()
            },
        }
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in parts.items()},
            **{_RECORD: ocp.args.JsonSave(about)},
        )
        metrics = None if score is None else {"score": float(score)}
        parameter_files.ignore_late_answers()
        try:
            self._manager.save(step, args=args, metrics=metrics, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):  # Other threads may be writing still.
                self._clear(_UNFINISHED)
            reason = parameter_files.reason_of(error)
            raise OSError(f"{self.path(step)} cannot be written: {reason}") from error
        self._clear()
        return self.path(step)

    def restore(
        self,
        params: Any,
        progress: Any,
        *,
        settings: Mapping[str, Any],
        sharding: jax.sharding.Sharding | None = None,
        ignored: Collection[str] = (),
        step: int | str = "latest",
    ) -> Restored | None:
        """Restores a step, wherever it was saved.

        A damaged one is set aside with a warning, as STEP.damaged, and the latest good one
        takes its place. Where none is good, all are left as they are.

        Args:
            params: Parameters, or their shapes, of the structure to restore.
            progress: The rest of the state, or its shapes.
            settings: Settings of the run that resumes.
            sharding: Where every array goes; by default the first local device.
            ignored: Dotted names of settings that may differ.
            step: "latest", "best" or a number.

        Returns:
            The restored step; None if the directory holds no checkpoint.

        Raises:
            ValueError: if settings differ (all are named), or no checkpoint is readable.
        """

        def read(number: int) -> Restored:
            return self._restored(number, params, progress, settings, sharding, ignored)

        restored = self._first_good(step, read)
        return None if restored is None else restored[1]

    def _first_good(
        self, step: int | str, read: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """A step and what is read of it, of the first that is not damaged.

        Args:
            step: "latest", "best" or a number, which has no substitute.
            read: What to read of a step; raises `Damaged`.
        """
        first = self.find(step)
        if first is None:
            return None
        others = sorted(set(self._manager.all_steps()) - {first}, reverse=True)
        damaged: dict[int, parameter_files.Damaged] = {}
        for number in [first, *(others if isinstance(step, str) else [])]:
            try:
                content = read(number)
            except parameter_files.Damaged as error:
                damaged[number] = error
                continue
            for error in damaged.values():
                text = f"{error}; that of step {number} is used instead"
                warnings.warn(text, stacklevel=4)
            self._set_aside(damaged)
            return number, content
        raise damaged[first]

    def _set_aside(self, steps: Collection[int]) -> None:
        """Renames damaged steps, so that they can be saved again."""
        if self._read_only or not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = self.path(step).with_name(f"{step}{_DAMAGED}")
                shutil.rmtree(aside, ignore_errors=True)
                self.path(step).rename(aside)
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()

    def _restored(
        self,
        number: int,
        params: Any,
        progress: Any,
        settings: Mapping[str, Any],
        sharding: jax.sharding.Sharding | None,
        ignored: Collection[str],
    ) -> Restored:
        """One step; raises `Damaged`, or ValueError if settings or shapes differ."""
        path = self.path(number)
        saved = self._record(number)
        check_settings(saved["settings"], settings, ignored, path)
        self._check_shapes(number, params)
        targets = {_PARAMETERS: params, _PROGRESS: progress}
        args = {
            name: ocp.args.StandardRestore(parameter_files.abstract(tree, sharding))
            for name, tree in targets.items()
        }
        with parameter_files.readable(path):
            state = self._manager.restore(number, args=ocp.args.Composite(**args))
            for name in targets:
                _check_sum(saved, name, state[name])
        return Restored(
            params=state[_PARAMETERS],
            progress=state[_PROGRESS],
            record=saved["record"],
            step=number,
            path=path,
        )

    def parameters(self, step: int | str) -> tuple[int, Any, dict[str, Any]] | None:
        """A step, its parameters, and the settings under which they were saved.

        The latest good step takes the place of a damaged one, with a warning.

        Args:
            step: "latest", "best" or a number.

        Returns:
            The number of the step, nested dictionaries of arrays on the first local
            device, and the settings; None if the directory holds no checkpoint.

        Raises:
            ValueError: if no checkpoint is readable.
        """

        def read(number: int) -> tuple[Any, dict[str, Any]]:
            saved = self._record(number)
            with parameter_files.readable(self.path(number)):
                shapes = self._manager.item_metadata(number)[_PARAMETERS].tree
                args = ocp.args.StandardRestore(parameter_files.abstract(shapes))
                restored = self._manager.restore(
                    number, args=ocp.args.Composite(**{_PARAMETERS: args})
                )[_PARAMETERS]
                _check_sum(saved, _PARAMETERS, restored)
            return restored, saved["settings"]

        good = self._first_good(step, read)
        return None if good is None else (good[0], *good[1])

    def find(self, step: int | str) -> int | None:
        """Number of the "latest", "best" or numbered step; None if there is none.

        Raises:
            ValueError: if a numbered step does not exist.
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

    def _check_shapes(self, step: int, params: Any) -> None:
        with parameter_files.readable(self.path(step)):
            saved = self._manager.item_metadata(step)[_PARAMETERS].tree
        saved, shapes = _shapes(saved), _shapes(params)
        differing = [
            f"{name} was {saved.get(name)}, is {shapes.get(name)}"
            for name in sorted(saved.keys() | shapes.keys())
            if saved.get(name) != shapes.get(name)
        ]
        if differing:
            raise ValueError(
                f"{self.path(step)} holds parameters of another network: "
                + "; ".join(differing)
            )

    def _clear(self, *patterns: str) -> None:
        if jax.process_index() == 0:
            for pattern in (_DELETED, *patterns):
                for path in self.directory.glob(pattern):
                    shutil.rmtree(path)

    def _record(self, step: int) -> dict[str, Any]:
        with parameter_files.readable(self.path(step)):
            args = ocp.args.Composite(**{_RECORD: ocp.args.JsonRestore()})
            about = self._manager.restore(step, args=args)[_RECORD]
            for name in ("settings", "record"):
                if not isinstance(about[name], dict):
                    raise ValueError(f"its {name} are of another kind")
            return about


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
    """Parameters of a run, finished or in progress, without knowing its network.

    Args:
        directory: The run's folder, or that of its checkpoints.
        step: "best", "latest" or a number.

    Returns:
        Parameters on the first local device, the settings they were trained under, and
        the step.

    Raises:
        ValueError: if there is no such checkpoint, or it is unreadable.
    """
    directory = Path(directory)
    if (directory / FOLDER).is_dir():
        directory = directory / FOLDER
    if not directory.is_dir():
        raise ValueError(f"there is no checkpoint directory {directory}")
    run = RunCheckpoints(directory, read_only=True)
    try:
        saved = run.parameters(step)
        if saved is None:
            raise ValueError(f"{directory} holds no checkpoint")
        number, params, settings = saved
        return params, settings, number
    finally:
        run.close()


def save_initialisation(
    path: str | Path,
    params: Any,
    model_config: Mapping[str, Any],
    card: Mapping[str, Any],
    metric: Metric | None = None,
) -> None:
    """Saves a meta-initialisation to be shipped.

    Args:
        path: Folder to create; it must not exist.
        params: Parameters, nested dictionaries of arrays.
        model_config: What builds the network; JSON.
        card: The model card: on what, how and how long it was trained; JSON.
        metric: Learned over tasks from these parameters, see `soap.measure_metric`.

    Raises:
        ValueError: if the folder exists.
    """
    check_is_new(path)
    path = Path(path)
    text = json.dumps({"model": dict(model_config), "card": dict(card)}, indent=2)

    trees = {_PARAMETERS: params} | ({} if metric is None else {_METRIC: metric})

    def write(folder: Path) -> None:
        parameter_files.check_room(folder.parent, trees)
        for name, tree in trees.items():
            parameter_files.save_tree(folder / name, tree)
            # Orbax's marker holds the absolute path of this machine, not to be shipped.
            (folder / name / _COMMITTED).write_text("committed\n")
        (folder / CARD).write_text(text + "\n")

    writing.write_together({path: writing.FolderWriter(write)})


def check_is_new(path: str | Path) -> None:
    """Raises ValueError if the folder of an initialisation to write exists."""
    if Path(path).exists():
        raise ValueError(f"{path} exists already; an initialisation is not overwritten")


def load_initialisation(path: str | Path) -> tuple[Any, dict, dict]:
    """Loads what `save_initialisation` wrote; the folder is only read.

    Returns:
        Parameters on the first local device, model configuration, and card.

    Raises:
        ValueError: if the folder does not hold a whole initialisation.
    """
    path = Path(path)
    try:
        card = json.loads((path / CARD).read_text())
        model, card = card["model"], card["card"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a saved initialisation: {CARD} is missing or damaged"
        ) from error
    return parameter_files.load_tree(path / _PARAMETERS), model, card


def load_metric(path: str | Path) -> Metric | None:
    """The metric beside an initialisation, if one was learned.

    Raises:
        ValueError: if it is damaged.
    """
    path = Path(path) / _METRIC
    return parameter_files.load_tree(path) if path.exists() else None


def _check_sum(saved: Mapping[str, Any], name: str, tree: Any) -> None:
    """Raises ValueError unless a tree is the one that was saved."""
    # A checkpoint of a version without checksums has none.
    if _CHECKSUMS in saved and saved[_CHECKSUMS].get(name) != parameter_files.checksum(
        tree
    ):
        raise ValueError(f"its {name} have another checksum than when they were saved")


def _score(metrics: Mapping[str, float]) -> float:
    score = metrics["score"]
    return score if math.isfinite(score) else math.inf


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }
