"""One tree of arrays on disk, by Orbax: saved, loaded, its checksum, and its errors."""

import contextlib
import functools
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from meta_lrpinn.files import writing

# Beside the arrays [bytes]: descriptions, and the rest of disk blocks.
_OVERHEAD = 2**20
_ORBAX = f"{os.sep}orbax{os.sep}"


class Damaged(ValueError):
    """A checkpoint that is not whole and readable."""


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return _ORBAX not in record.pathname


# Orbax logs the traces of errors that it raises as well, and notices about options.
logging.getLogger("absl").addFilter(_is_not_of_orbax)


def check_room(folder: Path, tree: Any) -> None:
    """Refuses, before anything is written, a tree that the disk has no room for.

    Orbax writes in many threads, which do not end well on a full disk.

    Raises:
        OSError: if there is less room; it names the folder.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    writing.check_room(folder, size + _OVERHEAD)


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
    with readable(path), ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(path).item_metadata.tree
        return checkpointer.restore(path, abstract(shapes))


def checksum(tree: Any) -> str:
    """SHA-256 of a tree of arrays: names, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def abstract(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    """Shapes to restore a tree into; by default on the first local device."""
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def ignore_late_answers() -> None:
    """Tells nothing of what becomes of the other arrays once one has failed.

    TensorStore goes on with them, and answers to an event loop that Orbax has closed, or
    to a coroutine that it has left, at any time after; each error would be printed.
    """
    before = sys.unraisablehook
    if getattr(before, "func", None) is _hook:
        return
    sys.unraisablehook = functools.partial(_hook, before)


def _hook(before: Callable[[Any], None], raised: Any) -> None:
    code = getattr(raised.object, "cr_code", None)
    is_of_orbax = code is not None and _ORBAX in code.co_filename
    if not is_of_orbax and "Event loop is closed" not in str(raised.exc_value):
        before(raised)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises `Damaged`, which names the path, for whatever is raised in the block."""
    ignore_late_answers()
    try:
        yield
    except Exception as error:  # orbax and its backends raise very many kinds
        raise Damaged(
            f"{path} is not a whole, readable checkpoint: {reason_of(error)}"
        ) from error


def reason_of(error: Exception) -> str:
    """Kind and first line of an error."""
    text = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {text}"
