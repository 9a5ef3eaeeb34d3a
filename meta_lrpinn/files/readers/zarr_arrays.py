"""zarr folders: groups of arrays with attributes, or one array alone."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import zarr

from meta_lrpinn.files.readers.contents import (
    NUMBERS,
    ArrayFile,
    Contents,
    add_attributes,
)

_NAMES = "_ARRAY_DIMENSIONS"  # of the dimensions, in version 2


def read(
    path: pathlib.Path | str, name: str | None = None, lazily: bool = False
) -> Contents:
    """The arrays of numbers as they are stored; one without a group is `velocity`.

    Args:
        path: The folder, or a URL.
        name: The array that is wanted: others of two axes and more are left out, if
            there is such a one. All by default.
        lazily: Read nothing yet of arrays of two axes and more.
    """
    found = zarr.open(str(path), mode="r")
    arrays: dict[str, Any] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    if isinstance(found, zarr.Array):
        members, name = {"velocity": found}, None
    else:
        members = dict(found.arrays())
    for key, array in members.items():
        attributes = dict(array.attrs)
        named: Any = attributes.pop(_NAMES, None)
        labels = named or getattr(array.metadata, "dimension_names", None)
        other = name in members and key != name and array.ndim > 1
        if array.dtype.kind not in f"{NUMBERS}b" or other:
            continue
        inside = None if isinstance(found, zarr.Array) else key
        lazy = lazily and array.ndim > 1
        arrays[key] = ArrayFile(str(path), inside) if lazy else np.asarray(array[...])
        if labels is not None:
            dimensions[key] = tuple(str(label or "") for label in labels)
        # In version 2 the value of what was never written stands for what is missing.
        if array.metadata.zarr_format == 2 and array.fill_value:
            attributes.setdefault("_FillValue", array.fill_value)
        add_attributes(arrays, f"{key}_", attributes)
    if isinstance(found, zarr.Group):
        add_attributes(arrays, "", dict(found.attrs))
    return Contents(arrays, dimensions)
