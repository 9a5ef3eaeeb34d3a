"""Readers of array files, one per format; each gives arrays by name.

They know nothing of velocities and import neither JAX nor each other. `read` chooses one
by the ending of the file and says in one line why a file cannot be read. The libraries
behind MATLAB, HDF5, netCDF, zarr and SEG-Y run in a process of their own (`isolated`),
since damaged files have ended the process that read them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from meta_lrpinn.files.readers import binary, isolated, npz, rsf
from meta_lrpinn.files.readers.contents import ArrayFile, Contents, one_line
from meta_lrpinn.runtime import machine

RAW = (".bin", ".vp")
SEGY = (".sgy", ".segy")
GROUPED = (".h5", ".hdf5", ".mat")  # /GROUP/NAME is GROUP/NAME
SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".nc", ".zarr", *SEGY, ".rsf", *RAW)

__all__ = [
    "GROUPED",
    "RAW",
    "SEGY",
    "SUFFIXES",
    "ArrayFile",
    "Contents",
    "one_line",
    "read",
]

# Libraries, extra and name of the formats that need some.
_NEEDS = {
    "hdf5": (("h5py",), "hdf5", "HDF5"),
    "segy": (("segyio",), "segy", "SEG-Y"),
    "gridded": (("xarray", "h5netcdf"), "xarray", "netCDF"),
    "zarr_arrays": (("zarr",), "xarray", "zarr"),
}


def read(
    path: pathlib.Path | str,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str = "float32",
    order: str = "C",
    lazily: bool = False,
) -> Contents:
    """The arrays of a file.

    Args:
        path: The file; its ending, one of `SUFFIXES`, tells the format. Of zarr also a URL.
        name: The array that is wanted; a reader may leave out other large ones.
        shape: Of a raw file.
        dtype: Of a raw file.
        order: Of a raw file, "C" or "F".
        lazily: Of .npy and zarr give arrays that are read slice by slice, `ArrayFile`.

    Returns:
        The arrays by name; one without a name is called velocity.

    Raises:
        ValueError: if the file cannot be read; one line that names it.
    """
    where = pathlib.Path(path)
    suffix = where.suffix.lower()
    kind = _module(where, suffix)
    if kind in _NEEDS:
        libraries, extra, format_name = _NEEDS[kind]
        machine.require(libraries, extra, f"reading {format_name}")
    try:
        if suffix in RAW:
            return binary.read(where, shape, dtype, order)
        if suffix == ".rsf":
            return rsf.read(where)
        if kind is None:
            return npz.read(where, lazily)
        if kind == "zarr_arrays" and lazily:
            from meta_lrpinn.files.readers import zarr_arrays

            return zarr_arrays.read(path, name, lazily)
        return isolated.read(kind, where, name)
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error) or type(error).__name__
        if "pickle" in reason:
            reason = "it is not a NumPy file of numbers"
        raise ValueError(one_line(f"cannot read {path}: {reason}")) from None


def _module(path: pathlib.Path, suffix: str) -> str | None:
    """The module that runs in a process of its own."""
    if suffix == ".mat":
        return "hdf5" if _is_matlab_7_3(path) else "matlab"
    modules = {".nc": "gridded", ".zarr": "zarr_arrays", ".h5": "hdf5", ".hdf5": "hdf5"}
    return "segy" if suffix in SEGY else modules.get(suffix)


def _is_matlab_7_3(path: pathlib.Path) -> bool:
    """Whether a file is HDF5 behind 512 bytes."""
    with open(path, "rb") as file:
        start = file.read(520)
    return start[512:] == b"\x89HDF\r\n\x1a\n" or start.startswith(b"MATLAB 7.3")
