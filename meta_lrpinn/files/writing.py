"""Writing files all or nothing, and one run at a time in a folder."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any


@dataclasses.dataclass(frozen=True)
class FolderWriter:
    """Writes a folder, whose path it is given, where others write into an open file."""

    write: Callable[[pathlib.Path], Any]


def write_together(
    writers: Mapping[pathlib.Path, Callable[[IO[Any]], Any] | FolderWriter],
) -> None:
    """Writes files, by functions that take an open binary file, and folders: all or none.

    What is at a path is replaced, and its parent is created if need be. What a killed
    process has left of the same files is removed.
    """
    partial = {path: path.with_name(_partial_name(path, os.getpid())) for path in writers}
    try:
        for path, writer in writers.items():
            _clear_partial(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                if isinstance(writer, FolderWriter):
                    writer.write(partial[path])
                else:
                    with open(partial[path], "wb") as file:
                        writer(file)
            except OSError as error:
                if error.errno is None or error.filename is not None:
                    raise
                # The system names no file where it is full.
                raise OSError(error.errno, error.strerror, str(path)) from error
        for path in writers:
            _replace(partial[path], path)
    finally:
        for path in partial.values():
            _remove(path)


def _partial_name(path: pathlib.Path, process: int | str) -> str:
    """Name of what is not whole yet, which says who writes it."""
    return f".{path.name}.{platform.node()}.{process}.partial"


def _clear_partial(path: pathlib.Path) -> None:
    """Removes what processes of this machine that have ended left of a file."""
    if sys.platform == "win32":  # where asking for a process ends it
        return
    start, end = _partial_name(path, "/").split("/")
    for left in path.parent.glob(".*.partial*"):
        process = left.name.removeprefix(start).removesuffix(".old").removesuffix(end)
        if left.name.startswith(start) and process.isdigit():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                _remove(left)
            except (OSError, OverflowError):  # of another user, or no process at all
                pass


def check_room(folder: pathlib.Path, needed: int) -> None:
    """Refuses, before they are written, bytes that a disk or a quota has no room for.

    Systems without `posix_fallocate` are not asked.

    Raises:
        OSError: if there is less room; it names the folder.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, needed))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from None


def check_file(path: pathlib.Path) -> None:
    """Refuses, before anything is computed, a place where no file can be written.

    Raises:
        ValueError: if a folder is there, a file is in the place of its folder, or the
            folder cannot be written to.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file; choose another name")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{path} needs a folder, {there} is a file")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission in {there}")


def _replace(new: pathlib.Path, path: pathlib.Path) -> None:
    """Puts something whole in the place of what is there."""
    if not path.is_dir():
        os.replace(new, path)
        return
    # No folder can be renamed onto one that holds something.
    old = new.with_name(f"{new.name}.old")
    os.replace(path, old)
    os.replace(new, path)
    _remove(old)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of a run's folder while the block runs.

    The folder is created if need be, and removed again where the block leaves nothing in
    it. The lock belongs to an open file, `.lock` in the folder: the system lets go of it
    when the process ends, however it ends. It is refused within one process too. Several
    processes of one run must leave it to the first of them. Windows has no such locks,
    and none is taken there.

    Raises:
        BlockingIOError: if another run holds the folder; it names folder and process.
    """
    folder = pathlib.Path(folder)
    is_new = not folder.exists()
    try:
        import fcntl
    except ImportError:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    path = folder / ".lock"
    descriptor = None
    # A holder before us may remove the file, or the folder, while we open and lock it.
    while descriptor is None:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = _lock(path, fcntl)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _lock(path: pathlib.Path, fcntl: Any) -> int:
    """The locked file, open.

    Raises:
        BlockingIOError: if another holds it.
        FileNotFoundError: if what is locked is no longer at the path.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
        raise FileNotFoundError(path)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise BlockingIOError(
            f"{path.parent} is in use by another run (process {holder or 'unknown'}): "
            "wait for it or choose another folder"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
