"""NumPy's .npy and .npz files, without pickles."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from meta_lrpinn.files.readers.contents import NUMBERS, ArrayFile, Contents


def read(path: pathlib.Path, lazily: bool = False) -> Contents:
    """The arrays of a .npz file, or the one of a .npy file as `velocity`.

    Members that are no arrays, or pickles, are left out.

    Args:
        path: The file.
        lazily: Of a .npy file read nothing yet.

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
            if isinstance(value, np.ndarray) and value.dtype.kind in f"{NUMBERS}bU":
                arrays[key] = value
    if not arrays:
        raise ValueError("the archive holds no array of numbers")
    return Contents(arrays)
