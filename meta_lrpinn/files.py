"""Writing files all or nothing."""

import os
import pathlib
from collections.abc import Callable, Mapping
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
