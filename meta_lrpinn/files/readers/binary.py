"""Raw binary files: numbers in a row, whose shape only the user knows."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from meta_lrpinn.files.readers.contents import Contents


def read(
    path: pathlib.Path, shape: Sequence[int] | None, dtype: str, order: str
) -> Contents:
    """The one array of a raw file.

    Args:
        path: The file.
        shape: (nz, nx) or (nz, ny, nx).
        dtype: NumPy's name of the numbers, as "float32" or ">f4" (big-endian).
        order: "C" (x fastest) or "F" (z fastest).

    Raises:
        ValueError: if the file has another size than the shape asks for.
    """
    if shape is None:
        raise ValueError("a raw file needs its shape, as shape=(nz, nx)")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', got {order!r}")
    try:
        kind = np.dtype(dtype)
        if kind.kind not in "fiu":
            raise TypeError
    except TypeError:
        raise ValueError(f"dtype must be a type of real numbers, got {dtype!r}") from None
    shape = tuple(np.atleast_1d(shape).tolist())
    if not shape or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"shape must be whole numbers from 1 up, got {shape}")
    expected = math.prod(shape) * kind.itemsize
    size = path.stat().st_size
    if size != expected:
        raise ValueError(
            f"shape {shape} of {kind.name} takes {expected} bytes, the file has {size}"
        )
    values = np.fromfile(path, kind).reshape(shape, order=order)
    return Contents({"velocity": values.astype(kind.newbyteorder("="))})
