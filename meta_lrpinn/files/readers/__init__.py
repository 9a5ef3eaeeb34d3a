"""Readers of array files, one per format; each gives arrays by name.

They know nothing of velocities and import neither JAX nor each other. `read` chooses one
by the ending of the file and says in one line why a file cannot be read. The C libraries
behind HDF5, netCDF and SEG-Y run in a process of their own (`isolated`), since damaged
files have ended the process that read them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from meta_lrpinn.files.readers import binary, isolated, matlab, npz, rsf
from meta_lrpinn.files.readers.contents import Contents, one_line
from meta_lrpinn.runtime import optional

RAW = (".bin", ".vp")
SEGY = (".sgy", ".segy")
GROUPED = (".h5", ".hdf5", ".mat")  # /GROUP/NAME is GROUP/NAME
GRIDDED = (".nc", ".zarr")
SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5", *GRIDDED, *SEGY, ".rsf", *RAW)

__all__ = ["GRIDDED", "GROUPED", "RAW", "SEGY", "SUFFIXES", "Contents", "one_line", "read"]

# Libraries, extra and name of the formats that need some.
_NEEDS = {
    "hdf5": (("h5py",), "hdf5", "HDF5"),
    "segy": (("segyio",), "segy", "SEG-Y"),
    "gridded": (("xarray", "h5netcdf", "zarr"), "xarray", "netCDF and zarr"),
}


def read(
    path: pathlib.Path,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str = "float32",
    order: str = "C",
) -> Contents:
    """The arrays of a file.

    Args:
        path: The file; its ending, one of `SUFFIXES`, tells the format.
        name: The array that is wanted; a reader may leave out other large ones.
        shape: Of a raw file.
        dtype: Of a raw file.
        order: Of a raw file, "C" or "F".

    Returns:
        The arrays by name; one without a name is called velocity.

    Raises:
        ValueError: if the file cannot be read; one line that names it.
    """
    suffix = path.suffix.lower()
    kind = _isolated_kind(path, suffix)
    if kind is not None:
        libraries, extra, format_name = _NEEDS[kind]
        optional.require(libraries, extra, f"reading {format_name}")
    try:
        if suffix in RAW:
            return binary.read(path, shape, dtype, order)
        if kind is not None:
            return isolated.read(kind, path, name)
        reader = {".mat": matlab.read, ".rsf": rsf.read}.get(suffix, npz.read)
        return reader(path)
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error) or type(error).__name__
        if "pickle" in reason:
            reason = "it is not a NumPy file of numbers"
        raise ValueError(one_line(f"cannot read {path}: {reason}")) from None


def _isolated_kind(path: pathlib.Path, suffix: str) -> str | None:
    if suffix in SEGY:
        return "segy"
    if suffix in GRIDDED:
        return "gridded"
    if suffix in (".h5", ".hdf5") or (suffix == ".mat" and matlab.is_hdf5(path)):
        return "hdf5"
    return None
