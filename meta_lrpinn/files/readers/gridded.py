"""netCDF files, by xarray. For velocities, in a process of its own."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import xarray

from meta_lrpinn.files.readers.contents import NUMBERS, Contents, add_attributes

# netCDF has no complex numbers: two arrays with these endings stand for one.
REAL, IMAGINARY = "_real", "_imag"


def open_dataset(path: pathlib.Path) -> xarray.Dataset:
    """All of a file in memory, with its complex numbers put together.

    Args:
        path: A netCDF file of any version, HDF5 with dimensions, or a zarr folder.

    Returns:
        The dataset; its attributes are numbers, texts and lists.
    """
    if path.is_dir():
        options = {"engine": "zarr", "consolidated": False}
    else:
        options = {"engine": _engine(path)}
    dataset = _without_parts(xarray.load_dataset(path, **options))
    plain = {key: _plain(value) for key, value in dataset.attrs.items()}
    return dataset.assign_attrs(plain)


def _without_parts(dataset: xarray.Dataset) -> xarray.Dataset:
    """Complex numbers instead of their real and imaginary parts."""
    for name in [str(name) for name in dataset.variables]:
        base = name.removesuffix(REAL)
        if base != name and base + IMAGINARY in dataset:
            real, imaginary = dataset[name], dataset[base + IMAGINARY]
            joined = (real + 1j * imaginary).assign_attrs(real.attrs)
            dataset = dataset.drop_vars([name, base + IMAGINARY]).assign({base: joined})
    return dataset


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers as they are stored, packed or not.

    Args:
        path: The file.
        name: The array that is wanted: others of two axes and more are left out, if
            there is such a one. All by default.
    """
    options = {"mask_and_scale": False, "decode_times": False, "decode_coords": False}
    dataset = _without_parts(xarray.load_dataset(path, engine=_engine(path), **options))
    arrays: dict[str, Any] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    for key, array in dataset.variables.items():
        key = str(key)
        other = name in dataset.variables and key != name and array.ndim > 1
        if array.dtype.kind in NUMBERS and not other:
            arrays[key] = array.values
            dimensions[key] = tuple(map(str, array.dims))
            add_attributes(arrays, f"{key}_", array.attrs)
    add_attributes(arrays, "", dataset.attrs)
    return Contents(arrays, dimensions)


def _engine(path: pathlib.Path) -> Any:
    with open(path, "rb") as file:
        return "scipy" if file.read(3) == b"CDF" else "h5netcdf"


def _plain(value):
    """A number, a text or a list, as the same attribute is after any format."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
