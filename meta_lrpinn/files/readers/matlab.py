"""MATLAB's .mat files of versions 4 to 7, by SciPy. Runs in a process of its own.

`scipy.io.loadmat` ends the process on some damaged files (SIGSEGV, SIGBUS). Version 7.3
is HDF5 and has its own reader. Numbers, texts and structs of one element are read; cells,
sparse arrays and objects are left out.
"""

from __future__ import annotations

import pathlib
import warnings
from typing import Any

import numpy as np
import scipy.io

from meta_lrpinn.files.readers.contents import NUMBERS, Contents, without_unit_axes

_DEEPEST = 8  # structs within structs


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers; the field `b` of a struct `a` is called `a.b`.

    Args:
        path: The file.
        name: The array that is wanted; all are read all the same.

    Raises:
        ValueError: if the file is damaged or no .mat file.
    """
    del name
    arrays: dict[str, np.ndarray] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        loaded = scipy.io.loadmat(path)
    for key, value in loaded.items():
        if not key.startswith("__"):
            _add(arrays, key, value, 0)
    return Contents(arrays)


def _add(arrays: dict[str, np.ndarray], name: str, value: Any, depth: int) -> None:
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names and value.size == 1 and depth < _DEEPEST:
        for field in value.dtype.names:
            _add(arrays, f"{name}.{field}", value[field].item(), depth + 1)
    elif value.dtype.kind in NUMBERS or (value.dtype.kind == "U" and value.size == 1):
        arrays[name] = without_unit_axes(value)
