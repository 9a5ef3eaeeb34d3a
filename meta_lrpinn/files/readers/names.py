"""How an array of a file is named: FILE:NAME, and NAME[3] for one section of a stack."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable


def is_there(path: str | os.PathLike) -> bool:
    """Whether there is such a file, or such a folder of zarr."""
    is_zarr = os.fspath(path).lower().endswith(".zarr")
    return os.path.isfile(path) or (is_zarr and os.path.isdir(path))


def split_name(path: str | os.PathLike, name: str | None) -> tuple[str, str | None]:
    """Splits FILE:NAME, but never the name of a file that has a colon itself.

    Of a URL, URL.zarr:NAME.
    """
    text = os.fspath(path)
    if name is None and ":" in text and not is_there(text):
        head, _, tail = text.rpartition(":")
        is_url = "://" in text and head.lower().endswith(".zarr")
        if (is_there(head) or is_url) and tail:
            return head, tail
    return text, name


def split_index(name: str | None) -> tuple[str | None, tuple[int, ...]]:
    """Splits NAME[3] or NAME[3,0]; a bare [3] is of the default array."""
    if not isinstance(name, str | None):
        raise ValueError(f"name must be text, got {name!r:.40}")
    match = re.fullmatch(r"(.*)\[(\d{1,9}(?:,\d{1,9})*)\]", name or "")
    if match is None:
        return name, ()
    return match[1] or None, tuple(int(number) for number in match[2].split(","))


def listed(names: Iterable[str]) -> str:
    """A few of the names, for a message."""
    names = sorted(name if len(name) <= 40 else f"{name[:39]}…" for name in names)
    shown = ", ".join(names[:8]) or "nothing"
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
