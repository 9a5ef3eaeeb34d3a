"""Checkpoints of a training run, and the initialisations that are shipped.

A run's directory holds one folder per saved step: its parameters, the rest of the
training state, and the settings under which it was made. Orbax writes each into a
temporary folder and renames it when it is whole, so that a process killed while writing
loses that checkpoint only.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

FOLDER = "checkpoints"  # within the directory of a run
CARD = "card.json"
_PARAMETERS = "parameters"
_COMMITTED = "commit_success.txt"
_PROGRESS = "progress"
_RECORD = "record"
_DELETED = "deleted"
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
        with _readable(self.directory):
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
        """
        if step in self._manager.all_steps():
            return self.path(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    _PARAMETERS: ocp.args.StandardSave(params),
                    _PROGRESS: ocp.args.StandardSave(progress),
                    _RECORD: ocp.args.JsonSave(
                        {"settings": dict(settings), "record": dict(record)}
                    ),
                }
            ),
            metrics=None if score is None else {"score": float(score)},
            force=True,
        )
        self._manager.wait_until_finished()
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
            ValueError: if settings differ (all are named), or the checkpoint is
                unreadable.
        """
        number = self.find(step)
        if number is None:
            return None
        path = self.path(number)
        saved = self._record(number)
        check_settings(saved["settings"], settings, ignored, path)
        self._check_shapes(number, params)
        targets = {_PARAMETERS: params, _PROGRESS: progress}
        args = {
            name: ocp.args.StandardRestore(_abstract(tree, sharding))
            for name, tree in targets.items()
        }
        with _readable(path):
            state = self._manager.restore(number, args=ocp.args.Composite(**args))
        return Restored(
            params=state[_PARAMETERS],
            progress=state[_PROGRESS],
            record=saved["record"],
            step=number,
            path=path,
        )

    def parameters(self, step: int) -> Any:
        """Parameters of a step, nested dictionaries on the first local device."""
        with _readable(self.path(step)):
            shapes = self._manager.item_metadata(step)[_PARAMETERS].tree
            args = ocp.args.StandardRestore(_abstract(shapes, None))
            restored = self._manager.restore(
                step, args=ocp.args.Composite(**{_PARAMETERS: args})
            )
        return restored[_PARAMETERS]

    def settings(self, step: int) -> dict[str, Any]:
        """Settings under which a step was saved."""
        return self._record(step)["settings"]

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
        with _readable(self.path(step)):
            saved = self._manager.item_metadata(step)[_PARAMETERS].tree
        saved, given = _shapes(saved), _shapes(params)
        differing = [
            f"{name} was {saved.get(name)}, is {given.get(name)}"
            for name in sorted(saved.keys() | given.keys())
            if saved.get(name) != given.get(name)
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
        with _readable(self.path(step)):
            args = ocp.args.Composite(**{_RECORD: ocp.args.JsonRestore()})
            return self._manager.restore(step, args=args)[_RECORD]


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
        found = run.find(step)
        if found is None:
            raise ValueError(f"{directory} holds no checkpoint")
        return run.parameters(found), run.settings(found), found
    finally:
        run.close()


def save_tree(path: str | Path, tree: Any) -> None:
    """Saves one pytree of arrays as a new folder, from the calling process alone."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(Path(os.path.abspath(path)), jax.tree.map(np.asarray, tree))


def load_tree(path: str | Path) -> Any:
    """Loads a tree of dictionaries of arrays on the first local device.

    Raises:
        ValueError: if the folder is not a whole checkpoint.
    """
    path = Path(os.path.abspath(path))
    with _readable(path), ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(path).item_metadata.tree
        return checkpointer.restore(path, _abstract(shapes, None))


def save_initialisation(
    path: str | Path,
    params: Any,
    model_config: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Saves a meta-initialisation to be shipped.

    Args:
        path: Folder to create; it must not exist.
        params: Parameters, nested dictionaries of arrays.
        model_config: What builds the network; JSON.
        card: The model card: on what, how and how long it was trained; JSON.

    Raises:
        ValueError: if the folder exists.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists already; an initialisation is not overwritten")
    save_tree(path / _PARAMETERS, params)
    # Orbax's marker holds the absolute path of this machine, which is not to be shipped.
    (path / _PARAMETERS / _COMMITTED).write_text("committed\n")
    text = json.dumps({"model": dict(model_config), "card": dict(card)}, indent=2)
    (path / CARD).write_text(text + "\n")


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
    return load_tree(path / _PARAMETERS), model, card


def check_settings(
    saved: Mapping[str, Any],
    given: Mapping[str, Any],
    ignored: Collection[str] = (),
    path: str | Path = "the checkpoint",
) -> None:
    """Raise ValueError, naming all that differ, unless two settings agree.

    Args:
        saved: Settings of a checkpoint, nested dictionaries of JSON values.
        given: Settings at hand.
        ignored: Dotted names ("training.log_every") that may differ.
        path: Whose settings, for the message.
    """
    saved, given = dict(_flat(saved)), dict(_flat(given))
    names = sorted((saved.keys() | given.keys()) - set(ignored))
    absent = "(absent)"
    differing = [
        f"{name} was {saved.get(name, absent)}, is {given.get(name, absent)}"
        for name in names
        if saved.get(name, absent) != given.get(name, absent)
    ]
    if differing:
        raise ValueError(f"{path} was made under other settings: " + "; ".join(differing))


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    # Through JSON, so that a tuple given equals the list saved.
    if not prefix:
        settings = json.loads(json.dumps(settings))
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _score(metrics: Mapping[str, float]) -> float:
    score = metrics["score"]
    return score if math.isfinite(score) else math.inf


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _abstract(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # orbax and its backends raise very many kinds
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"{path} is not a whole, readable checkpoint: {type(error).__name__}: {reason}"
        ) from error
