"""Wavefields to and from files: netCDF, zarr, HDF5 and NumPy, all with the same content."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from meta_lrpinn.files import writing
from meta_lrpinn.results.contents import Contents, contents
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    import xarray

    from meta_lrpinn.wavefield import Wavefield

SUFFIXES = (".nc", ".zarr", ".h5", ".npz")
# What a NumPy file has no place for: dimensions and attributes, as JSON.
_DESCRIPTION = "description"
_LIBRARIES = {
    ".nc": ("xarray", "h5netcdf"),
    ".h5": ("xarray", "h5netcdf"),
    ".zarr": ("xarray", "zarr"),
    ".npz": (),
}


def to_xarray(field: "Wavefield") -> "xarray.Dataset":
    """The dataset of a wavefield; see `Wavefield.to_xarray`."""
    machine.require(("xarray",), "xarray", "to_xarray")
    return _dataset(contents(field))


def save(field: "Wavefield", path: str | os.PathLike) -> None:
    """Writes a wavefield, all of it or nothing; see `Wavefield.save`."""
    path = pathlib.Path(path)
    check_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write to")
    writing.write_together({path: writer(contents(field), path)})


def check_path(path: pathlib.Path) -> None:
    """Refuses, before anything is computed, a file that cannot be written.

    Raises:
        ValueError: if its ending is none of `SUFFIXES`, a library is missing, or a folder
            that is no zarr store would be replaced.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"wavefields are written as {', '.join(SUFFIXES)}, got {path}")
    machine.require(_LIBRARIES[suffix], "xarray", f"writing {suffix}")
    # A store may be replaced; any other folder may hold somebody's work.
    is_store = suffix == ".zarr" and (path / "zarr.json").is_file()
    if path.is_dir() and not is_store:
        raise ValueError(f"{path} is a folder with something else in it")
    if suffix == ".zarr" and path.is_file():
        raise ValueError(f"{path} is a file, not a folder of zarr")
    if not is_store:
        writing.check_file(path)


def writer(
    parts: Contents, path: pathlib.Path
) -> "Callable[[IO[Any]], Any] | writing.FolderWriter":
    """What writes these contents in the format of a path, for `writing.write_together`."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        arrays = _arrays(parts)
        return lambda file: np.savez_compressed(file, **arrays)
    dataset = _dataset(parts)
    if suffix == ".zarr":
        return writing.FolderWriter(
            # Consolidated metadata is no part of zarr 3.
            lambda folder: dataset.to_zarr(folder, mode="w", consolidated=False)
        )
    if suffix == ".nc":
        dataset = _without_complex(dataset)
    # Complex numbers are no netCDF; other readers of HDF5 take them.
    options = {"engine": "h5netcdf", "invalid_netcdf": suffix == ".h5"}
    return lambda file: file.write(dataset.to_netcdf(None, **options))


def load_wavefield(path: str | os.PathLike) -> "xarray.Dataset":
    """What `Wavefield.save` wrote, as `Wavefield.to_xarray` gave it.

    Args:
        path: A file of any of its formats.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of a wavefield, or xarray is not installed.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no wavefield {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"wavefields end in {', '.join(SUFFIXES)}, got {path}")
    machine.require({"xarray", *_LIBRARIES[suffix]}, "xarray", f"reading {suffix}")
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                dataset = _dataset(_parts(dict(file)))
        else:
            from meta_lrpinn.files.readers import gridded

            dataset = gridded.open_dataset(path)
    except Exception as error:  # Libraries raise nearly anything.
        raise ValueError(f"cannot read {path}: {error}") from None
    if "scattered" not in dataset:
        raise ValueError(f"{path} holds no wavefield")
    return dataset


def _dataset(parts: Contents) -> "xarray.Dataset":
    import xarray  # optional, and slow to import

    return xarray.Dataset(*parts)


def _without_complex(dataset: "xarray.Dataset") -> "xarray.Dataset":
    # netCDF has no complex numbers: two variables, which our readers join again.
    from meta_lrpinn.files.readers import gridded

    for name, array in dataset.data_vars.items():
        if array.dtype.kind == "c":
            both = {
                f"{name}{gridded.REAL}": array.real,
                f"{name}{gridded.IMAGINARY}": array.imag,
            }
            both = {key: one.assign_attrs(array.attrs) for key, one in both.items()}
            dataset = dataset.drop_vars([name]).assign(both)
    return dataset


def _arrays(parts: Contents) -> dict[str, Any]:
    """The entries of a NumPy file: arrays, numbers among the attributes, the rest."""
    description: dict[str, Any] = {"attributes": parts.attributes}
    # Numbers stand there by their own names too, for whoever has NumPy alone.
    arrays: dict[str, Any] = {
        key: value for key, value in parts.attributes.items() if not isinstance(value, str)
    }
    for kind in ("variables", "coordinates"):
        described = description[kind] = {}
        for name, (dimensions, values, attributes) in getattr(parts, kind).items():
            arrays[name] = values
            described[name] = dimensions, attributes
    return {**arrays, _DESCRIPTION: json.dumps(description)}


def _parts(arrays: Mapping[str, np.ndarray]) -> Contents:
    # Cases and velocity files are NumPy files as well.
    if _DESCRIPTION not in arrays:
        raise ValueError("it was not written by Wavefield.save")
    description = json.loads(str(arrays[_DESCRIPTION]))
    variables, coordinates = (
        {
            name: (tuple(dimensions), arrays[name], attributes)
            for name, (dimensions, attributes) in description[kind].items()
        }
        for kind in ("variables", "coordinates")
    )
    return Contents(variables, coordinates, description["attributes"])
