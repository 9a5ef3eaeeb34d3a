"""What a reader gives, arrays by name, and how people name one: FILE:NAME, NAME[3]."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

NUMBERS = "fiucb"  # kinds of arrays that are numbers, or true and false
_LONGEST_TEXT = 200  # of an attribute that is kept
# Longer messages hide what they say; a damaged file can put anything into one.
_LONGEST_MESSAGE = 300


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """An array in a .npy or zarr file, of which slices are read; can be pickled."""

    path: str  # absolute, or a URL
    name: str | None = None  # of the array in a zarr group

    def open(self) -> Any:
        """The array with its shape, whose numbers are read when it is sliced."""
        if self.path.endswith(".npy"):
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        import zarr

        if self.name is None:
            return zarr.open_array(self.path, mode="r")
        return zarr.open_group(self.path, mode="r")[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self.open().shape

    @property
    def dtype(self) -> np.dtype:
        """Type of its numbers."""
        return self.open().dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of numbers."""
        return int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self.open()[key])


@dataclasses.dataclass(frozen=True)
class Contents:
    """The arrays of a file as they are stored, and what it says about them.

    An attribute of the array `a` called `units` is the array `a_units`, one of the file
    is `units`; those that are texts are arrays of a text. Coordinates are arrays called
    as the dimension they belong to. Axes without names are z, x or z, y, x. Nothing is
    scaled, turned or converted here: that is done for all formats in `files.layouts`.
    """

    arrays: dict[str, Any]  # of np.ndarray; those of slices of a file are ArrayFile
    dimensions: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def text(self, name: str, *keys: str, of_file: bool = False) -> str:
        """The first of an array's attributes, or of the file's, that is a text, or ""."""
        for key in (*(f"{name}_{key}" for key in keys), *(keys if of_file else ())):
            value = self.arrays.get(key)
            if value is not None and value.dtype.kind == "U" and value.size == 1:
                return value.item().strip()
        return ""


def add_attributes(
    arrays: dict[str, Any], prefix: str, attributes: Mapping[str, Any]
) -> None:
    """Adds numbers and texts among attributes as arrays, unless there are such arrays."""
    for key, attribute in attributes.items():
        value = np.asarray(attribute)
        if value.dtype.kind == "S" or value.dtype == object:
            text = value.item() if value.size == 1 else ""
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
            value = np.asarray(text if isinstance(text, str) else "")
        is_text = value.dtype.kind == "U" and value.size == 1
        if is_text and not 0 < len(value.item()) <= _LONGEST_TEXT:
            continue
        if is_text or (value.dtype.kind in NUMBERS and value.ndim < 2):
            arrays.setdefault(f"{prefix}{key}", value)


def one_line(text: str) -> str:
    """The text in one printable line of at most 300 characters."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    if len(line) > _LONGEST_MESSAGE:
        line = line[: _LONGEST_MESSAGE - 1] + "…"
    return line


def without_unit_axes(value: np.ndarray) -> np.ndarray:
    """MATLAB knows no scalars or vectors: (1, 1) and (1, n) stand for them."""
    return value.squeeze() if min(value.shape, default=0) == 1 else value


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
