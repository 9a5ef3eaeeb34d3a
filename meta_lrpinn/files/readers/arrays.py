"""Files of arrays without dimensions: NumPy's, MATLAB's of versions 4 to 7, raw numbers."""

from __future__ import annotations

import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_lrpinn.files.readers.contents import (
    NUMBERS,
    ArrayFile,
    Contents,
    without_unit_axes,
)

_DEEPEST = 8  # structs within structs


def read_numpy(path: pathlib.Path, lazily: bool = False) -> Contents:
    """The arrays of a .npz file, or the one of a .npy file as `velocity`.

    Members that are no arrays, or pickles, are left out. `lazily` reads nothing yet of a
    .npy file.

    Raises:
        ValueError: if it holds no array of numbers.
    """
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY" and lazily:
            return Contents({"velocity": ArrayFile(os.path.abspath(path))})
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Contents({"velocity": loaded})
        arrays = {}
        for key in loaded.files:
            try:
                value = loaded[key]
            except ValueError as error:
                if "pickle" not in str(error) and "allow_pickle" not in str(error):
                    raise
                continue
            # A member without NumPy's magic bytes comes out as bytes.
            if isinstance(value, np.ndarray) and value.dtype.kind in f"{NUMBERS}U":
                arrays[key] = value
    if not arrays:
        raise ValueError("the archive holds no array of numbers")
    return Contents(arrays)


def read_raw(
    path: pathlib.Path, shape: Sequence[int] | None, dtype: str, order: str
) -> Contents:
    """The one array of a file of numbers in a row.

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
    expected, size = math.prod(shape) * kind.itemsize, path.stat().st_size
    if size != expected:
        raise ValueError(
            f"shape {shape} of {kind.name} takes {expected} bytes, the file has {size}"
        )
    values = np.fromfile(path, kind).reshape(shape, order=order)
    return Contents({"velocity": values.astype(kind.newbyteorder("="))})


def read_matlab(path: pathlib.Path, name: str | None = None) -> Contents:
    """The numbers, texts and structs of one element of a .mat file, by SciPy.

    The field `b` of a struct `a` is called `a.b`. Cells, sparse arrays and objects are
    left out. All arrays are read, whichever is wanted. To be run in a process of its own:
    `scipy.io.loadmat` ends it on some damaged files (SIGSEGV, SIGBUS).

    Raises:
        ValueError: if the file is damaged or no .mat file.
    """
    import scipy.io  # slow to import

    del name
    arrays: dict[str, np.ndarray] = {}

    def add(key: str, value: Any, depth: int) -> None:
        if not isinstance(value, np.ndarray):
            return
        if value.dtype.names and value.size == 1 and depth < _DEEPEST:
            for field in value.dtype.names:
                add(f"{key}.{field}", value[field].item(), depth + 1)
        elif value.dtype.kind in "fiuc" or (value.dtype.kind == "U" and value.size == 1):
            arrays[key] = without_unit_axes(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        loaded = scipy.io.loadmat(path)
    for key, value in loaded.items():
        if not key.startswith("__"):
            add(key, value, 0)
    return Contents(arrays)
