"""Files of arrays with attributes and dimensions: HDF5, netCDF, MATLAB 7.3 and zarr.

All but lazy reading runs in a process of its own. Where an array is named, other large
ones are left out.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meta_lrpinn.files.readers.contents import (
    NUMBERS,
    ArrayFile,
    Contents,
    add_attributes,
    without_unit_axes,
)

if TYPE_CHECKING:
    import h5py

# netCDF has no complex numbers: two arrays with these endings stand for one.
REAL, IMAGINARY = "_real", "_imag"
# Stands where a dimension of netCDF has no coordinates.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable"
_DEEPEST = 8  # groups within groups
# Arrays of more axes and numbers are left out where another one is wanted; MATLAB's
# positions and spacings have two axes.
_FEW = 9


class _Member(NamedTuple):
    """An array that is not read yet."""

    kind: str  # of its numbers, as of NumPy's types
    shape: tuple[int, ...]
    labels: tuple[str, ...]  # names of its dimensions; empty if there are none
    attributes: Mapping[str, Any]
    read: Callable[[], np.ndarray | ArrayFile]


def _contents(
    members: Mapping[str, _Member], attributes: Mapping[str, Any], name: str | None
) -> Contents:
    """The arrays of numbers; of large ones only that of a name, if it is there."""
    arrays: dict[str, Any] = {}
    dimensions: dict[str, tuple[str, ...]] = {}
    for key, member in members.items():
        is_large = len(member.shape) > 1 and math.prod(member.shape) > _FEW
        is_other = name in members and key != name
        if member.kind not in NUMBERS or (is_large and is_other):
            continue
        arrays[key] = member.read()
        if any(member.labels):
            dimensions[key] = member.labels
        add_attributes(arrays, f"{key}_", member.attributes)
    add_attributes(arrays, "", attributes)
    return Contents(arrays, dimensions)


def read_hdf5(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers; those in groups are called GROUP/NAME.

    Dimensions are those of attached scales, or of labels.
    """
    import h5py

    with h5py.File(path, "r") as file:
        datasets = dict(_datasets(file, "", 0))
        # MATLAB marks what it writes; its axes run the other way.
        matlab = any("MATLAB_class" in dataset.attrs for dataset in datasets.values())
        members = {key: _of_hdf5(dataset, matlab) for key, dataset in datasets.items()}
        return _contents(members, file.attrs, name)


def _datasets(
    group: h5py.Group, prefix: str, depth: int
) -> Iterator[tuple[str, h5py.Dataset]]:
    import h5py

    for key in group.keys():
        # Links lead to other files and round in circles: only what is stored here counts.
        if not isinstance(group.get(key, getlink=True), h5py.HardLink) or key[0] == "#":
            continue
        item = group[key]
        if isinstance(item, h5py.Group) and depth < _DEEPEST:
            yield from _datasets(item, f"{prefix}{key}/", depth + 1)
        elif isinstance(item, h5py.Dataset):
            is_text = item.attrs.get("MATLAB_class") in (b"char", b"cell")
            is_bare = _BARE_DIMENSION in str(item.attrs.get("NAME", ""))
            if item.shape is not None and not is_text and not is_bare:
                yield prefix + key, item


def _of_hdf5(dataset: h5py.Dataset, matlab: bool) -> _Member:
    is_complex = dataset.dtype.names == ("real", "imag")  # how MATLAB stores them

    def read() -> np.ndarray:
        stored = dataset.id.get_storage_size()
        # Chunks that were never written cost nothing in the file; deflate's limit is 1032.
        if dataset.size * dataset.dtype.itemsize > 1100 * max(stored, 1 << 20):
            raise ValueError(f"{dataset.name} claims {dataset.size} numbers but stores few")
        value = np.asarray(dataset[()])
        value = value["real"] + 1j * value["imag"] if is_complex else value
        return without_unit_axes(value.T) if matlab else value

    kind = "c" if is_complex else dataset.dtype.kind
    labels = () if matlab or dataset.ndim < 2 else tuple(map(_label, dataset.dims))
    return _Member(kind, dataset.shape, labels, dataset.attrs, read)


def _label(dimension: Any) -> str:
    """Of a dimension: its label, or the scale that belongs to it."""
    scale = dimension[0].name.split("/")[-1] if len(dimension) else ""
    return dimension.label or scale


def read_netcdf(path: pathlib.Path, name: str | None = None) -> Contents:
    """The arrays of numbers of netCDF, in HDF5 or classic, complex ones put together."""
    with open(path, "rb") as file:
        is_classic = file.read(3) == b"CDF"
    contents = (_read_classic if is_classic else read_hdf5)(path, name)
    arrays, dimensions = contents.arrays, contents.dimensions
    for key in [key.removesuffix(REAL) for key in arrays if key.endswith(REAL)]:
        if key + IMAGINARY in arrays:
            arrays[key] = arrays.pop(key + REAL) + 1j * arrays.pop(key + IMAGINARY)
            dimensions[key] = dimensions.get(key + REAL, ())
    return contents


def _read_classic(path: pathlib.Path, name: str | None) -> Contents:
    from scipy.io import netcdf_file

    with netcdf_file(path, mmap=False) as file:
        members = {
            key: _Member(
                variable.data.dtype.kind,
                variable.data.shape,
                variable.dimensions,
                variable._attributes,
                # In this machine's byte order.
                lambda data=variable.data: data.astype(data.dtype.newbyteorder("=")),
            )
            for key, variable in file.variables.items()
        }
        return _contents(members, file._attributes, name)


def read_zarr(
    path: pathlib.Path | str, name: str | None = None, lazily: bool = False
) -> Contents:
    """The arrays of numbers of a folder or URL; one without a group is `velocity`.

    `lazily` reads nothing yet of arrays of two axes and more.
    """
    import zarr

    store = zarr.open(str(path), mode="r")
    if isinstance(store, zarr.Array):
        member = _of_zarr(store, ArrayFile(str(path)), lazily)
        return _contents({"velocity": member}, {}, None)
    members = {
        key: _of_zarr(array, ArrayFile(str(path), key), lazily)
        for key, array in store.arrays()
    }
    return _contents(members, dict(store.attrs), name)


def _of_zarr(array: Any, file: ArrayFile, lazily: bool) -> _Member:
    attributes = dict(array.attrs)
    # Dimensions have their names among the attributes in version 2.
    labels = attributes.pop("_ARRAY_DIMENSIONS", None)
    labels = labels or getattr(array.metadata, "dimension_names", None) or ()
    # In version 2 the value of what was never written stands for what is missing.
    if array.metadata.zarr_format == 2 and array.fill_value:
        attributes.setdefault("_FillValue", array.fill_value)
    return _Member(
        array.dtype.kind,
        array.shape,
        tuple(str(label or "") for label in labels),
        attributes,
        lambda: file if lazily and array.ndim > 1 else np.asarray(array[...]),
    )
