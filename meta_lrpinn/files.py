"""Writing files all or nothing, and one run at a time in a folder."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any


def write_together(writers: Mapping[pathlib.Path, Callable[[IO[Any]], None]]) -> None:
    """Writes files, all of them or none.

    Args:
        writers: Path to a function that writes a binary file; the folder of the path
            is created if need be.
    """
    partial = {
        path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in writers
    }
    try:
        for path, write in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial[path], "wb") as file:
                write(file)
        for path in writers:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            if path.exists():
                path.unlink()


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of a run's folder while the block runs.

    The lock belongs to an open file, `.lock` in the folder: the system lets go of it when
    the process ends, however it ends. It is refused within one process too. Several
    processes of one run must leave it to the first of them. Windows has no such locks,
    and none is taken there.

    Args:
        folder: The folder of the run; created if need be.

    Raises:
        BlockingIOError: If another run holds the folder; it names folder and process.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = folder / ".lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise BlockingIOError(
                f"{folder} is in use by another run (process {holder or 'unknown'}): "
                "wait for it or choose another folder"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        if _is_open_as(descriptor, path):
            break
        # The holder before us removed this file between our opening and locking it.
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def _is_open_as(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
