"""NumPy's .npy and .npz files, without pickles."""

from __future__ import annotations

import pathlib

import numpy as np

from meta_lrpinn.files.readers.contents import Contents


def read(path: pathlib.Path) -> Contents:
    """The arrays of a .npz file, or the one of a .npy file as `velocity`.

    Members of the archive that are no arrays are left out.
    """
    with open(path, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return Contents({"velocity": loaded})
        arrays = {key: loaded[key] for key in loaded.files}
    # A member without NumPy's magic bytes comes out as bytes.
    arrays = {key: value for key, value in arrays.items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise ValueError("the archive holds no array")
    return Contents(arrays)
