"""What a reader gives: arrays by name, with the names of their dimensions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# Longer messages hide what they say; a damaged file can put anything into one.
_LONGEST_MESSAGE = 300
NUMBERS = "fiuc"  # kinds of arrays that are numbers
_LONGEST_TEXT = 200  # of an attribute that is kept


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
    as the dimension they belong to. Nothing is scaled, turned or converted here: that is
    done in one place for all formats, `files.layouts`.
    """

    arrays: dict[str, Any]  # of np.ndarray; those of slices of a file are ArrayFile
    dimensions: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    order: str = "zyx"  # of axes without names, slowest first; two axes have no y

    def labels(self, name: str) -> tuple[str, ...] | None:
        """Names of an array's dimensions, where the file says them."""
        return self.dimensions.get(name)


def add_attributes(
    arrays: dict[str, Any], prefix: str, attributes: Mapping[str, Any]
) -> None:
    """Adds numbers and texts among attributes as arrays, unless there are such arrays."""
    for key, given in attributes.items():
        value = np.asarray(given)
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
