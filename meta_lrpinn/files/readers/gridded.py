"""netCDF and zarr files through xarray. For velocities, in a process of its own.

Where all dimensions of an array have names that say which is which, such as (x, z), its
axes are put into the order z, y, x. The spacing is that of the coordinates.
"""

from __future__ import annotations

import pathlib

import numpy as np
import xarray

from meta_lrpinn.files.readers.contents import NUMBERS, Contents

# netCDF has no complex numbers: two arrays with these endings stand for one.
REAL, IMAGINARY = "_real", "_imag"
_AXES = {"z": "z", "depth": "z", "y": "y", "x": "x", "distance": "x", "offset": "x"}
_METRES = ("m", "meter", "meters", "metre", "metres")
_KILOMETRES = ("km", "kilometer", "kilometers", "kilometre", "kilometres")
# Neighbours may be this much nearer or farther than on average: coordinates are rounded.
_UNEVEN = 1e-3


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
        with open(path, "rb") as file:
            is_classic = file.read(3) == b"CDF"
        options = {"engine": "scipy" if is_classic else "h5netcdf"}
    dataset = xarray.load_dataset(path, **options)
    for name in [str(name) for name in dataset.variables]:
        base = name.removesuffix(REAL)
        if base != name and base + IMAGINARY in dataset:
            real, imaginary = dataset[name], dataset[base + IMAGINARY]
            joined = (real + 1j * imaginary).assign_attrs(real.attrs)
            dataset = dataset.drop_vars([name, base + IMAGINARY]).assign({base: joined})
    plain = {key: _plain(value) for key, value in dataset.attrs.items()}
    return dataset.assign_attrs(plain)


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers, each with NAME_spacing and NAME_origin where it has them.

    Args:
        path: The file or folder.
        name: The array that is wanted: others of two axes and more are left out, if
            there is such a one. All by default.
    """
    dataset = open_dataset(path)
    arrays: dict[str, np.ndarray] = {}
    units = set()
    for key, array in dataset.variables.items():
        other = name in dataset.variables and key != name and array.ndim > 1
        if array.dtype.kind not in NUMBERS or other:
            continue
        key, array = str(key), _deepest_first(array)
        arrays[key] = array.values
        if array.ndim < 2:
            continue
        # Of a stack the leading dimensions have no spacing.
        spatial = [dim for dim in array.dims if str(dim).lower() in _AXES] or array.dims
        coordinates = [dataset.coords[dim] for dim in spatial if dim in dataset.coords]
        steps = [_step(one) for one in coordinates]
        if len(steps) == len(spatial) and None not in steps:
            arrays[f"{key}_spacing"] = np.array(steps)
            starts = [float(one.values[0]) for one in coordinates]
            arrays[f"{key}_origin"] = np.array(starts[::-1])
            units |= {str(one.attrs.get("units", "")).lower() for one in coordinates}
    for key, value in dataset.attrs.items():
        number = np.asarray(value)
        if number.dtype.kind in NUMBERS and number.ndim < 2:
            arrays.setdefault(str(key), number)
    return Contents(arrays, _unit(units))


def _deepest_first(array: xarray.Variable) -> xarray.Variable:
    roles = [_AXES.get(str(dim).lower()) for dim in array.dims]
    spatial = [role for role in roles if role]
    if len(set(spatial)) != len(spatial):
        return array
    # Dimensions that are none of space stay in front, in their order.
    order = sorted(range(array.ndim), key=lambda axis: " zyx".find(roles[axis] or " "))
    return array.transpose(*(array.dims[axis] for axis in order))


def _step(coordinate: xarray.DataArray) -> float | None:
    """The even spacing of a coordinate that increases; None without one."""
    if coordinate.dtype.kind not in "fiu" or coordinate.size < 2:
        return None
    steps = np.diff(coordinate.values.astype(float))
    mean = float(steps.mean())
    if not mean > 0 or np.abs(steps - mean).max() > _UNEVEN * mean:
        return None
    # Without their rounding, so that dz = dx where they were, and grids of files are equal.
    is_float = coordinate.dtype.kind == "f"
    digits = min(12, np.finfo(coordinate.dtype).precision) if is_float else 12
    return float(f"{mean:.{digits}g}")


def _unit(units: set[str]) -> str | None:
    if units and units <= set(_METRES):
        return "m"
    return "km" if units and units <= set(_KILOMETRES) else None


def _plain(value):
    """A number, a text or a list, as the same attribute is after any format."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
