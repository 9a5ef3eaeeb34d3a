"""HDF5 files, MATLAB 7.3 and netCDF-4 among them. Runs in a process of its own."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import h5py
import numpy as np

from meta_lrpinn.files.readers.contents import (
    NUMBERS,
    Contents,
    add_attributes,
    without_unit_axes,
)

# Stands where a dimension has no coordinates.
_BARE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers; those in groups are called GROUP/NAME.

    Dimensions are those of attached scales, or of labels.

    Args:
        path: The file.
        name: The dataset that is wanted: others of two axes and more are left out, if
            there is such a one. All by default.
    """
    arrays: dict[str, np.ndarray] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    with h5py.File(path, "r") as file:
        found: dict[str, h5py.Dataset] = {}
        _collect(file, "", found, 0)
        # MATLAB marks what it writes; its axes run the other way.
        matlab = any("MATLAB_class" in dataset.attrs for dataset in found.values())
        add_attributes(arrays, "", file.attrs)
        for key, dataset in found.items():
            is_large = dataset.ndim > 1 and math.prod(dataset.shape) > 9
            if name in found and key != name and is_large:
                continue
            value = _values(dataset)
            if value.dtype.kind not in NUMBERS:
                continue
            arrays[key] = without_unit_axes(value.T) if matlab else value
            add_attributes(arrays, f"{key}_", dataset.attrs)
            if dataset.ndim > 1 and not matlab:
                names = tuple(_name(dimension) for dimension in dataset.dims)
                dimensions |= {key: names} if any(names) else {}
    return Contents(arrays, dimensions)


def _name(dimension: Any) -> str:
    """Of a dimension: its label, or the scale that belongs to it."""
    scale = dimension[0].name.split("/")[-1] if len(dimension) else ""
    return dimension.label or scale


def _collect(
    group: h5py.Group, prefix: str, found: dict[str, h5py.Dataset], depth: int
) -> None:
    for key in group.keys():
        # Links lead to other files and round in circles: only what is stored here counts.
        if not isinstance(group.get(key, getlink=True), h5py.HardLink) or key[0] == "#":
            continue
        item = group[key]
        if isinstance(item, h5py.Dataset):
            if bytes(item.attrs.get("NAME", b"")).startswith(_BARE_DIMENSION):
                continue
            if item.dtype.kind in NUMBERS or item.dtype.names == ("real", "imag"):
                if item.attrs.get("MATLAB_class") not in (b"char", b"cell"):
                    found[prefix + key] = item
        elif isinstance(item, h5py.Group) and depth < 8:
            _collect(item, f"{prefix}{key}/", found, depth + 1)


def _values(dataset: h5py.Dataset) -> np.ndarray:
    stored = dataset.id.get_storage_size()
    # Chunks that were never written cost nothing in the file; deflate's limit is 1032.
    if dataset.size * dataset.dtype.itemsize > 1100 * max(stored, 1 << 20):
        raise ValueError(f"{dataset.name} claims {dataset.size} numbers but stores few")
    value = dataset[()]
    if not isinstance(value, np.ndarray):
        value = np.asarray(value)
    if value.dtype.names == ("real", "imag"):  # how MATLAB stores complex numbers
        return value["real"] + 1j * value["imag"]
    return value
