"""Readers of array files, which give arrays by name.

They know nothing of velocities and import no JAX. `read` chooses one by the ending of the
file and says in one line why a file cannot be read. The libraries behind MATLAB, HDF5,
netCDF, zarr and SEG-Y run in a process of their own (`isolated`), since damaged files have
ended the process that read them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from meta_lrpinn.files.readers import arrays, grouped, isolated, rsf
from meta_lrpinn.files.readers.contents import Contents, one_line
from meta_lrpinn.runtime import machine

RAW = (".bin", ".vp")
SEGY = (".sgy", ".segy")
GROUPED = (".h5", ".hdf5", ".mat")  # /GROUP/NAME is GROUP/NAME
SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".nc", ".zarr", *SEGY, ".rsf", *RAW)

# Reader, library and extra of the formats that need one.
_NEEDS = {
    "HDF5": ("grouped.read_hdf5", "h5py", "hdf5"),
    "netCDF": ("grouped.read_netcdf", "h5py", "hdf5"),
    "SEG-Y": ("segy.read", "segyio", "segy"),
    "zarr": ("grouped.read_zarr", "zarr", "xarray"),
}
_FORMATS = {".h5": "HDF5", ".hdf5": "HDF5", ".zarr": "zarr", **dict.fromkeys(SEGY, "SEG-Y")}


def read(
    path: pathlib.Path | str,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str = "float32",
    order: str = "C",
    lazily: bool = False,
) -> Contents:
    """The arrays of a file; one without a name is called velocity.

    Args:
        path: The file; its ending, one of `SUFFIXES`, tells the format. Of zarr also a URL.
        name: The array that is wanted; a reader may leave out other large ones.
        shape, dtype, order: Of a raw file, as `arrays.read_raw` takes them.
        lazily: Of .npy and zarr give arrays that are read slice by slice, `ArrayFile`.

    Raises:
        ValueError: if the file cannot be read; one line that names it.
    """
    where = pathlib.Path(path)
    suffix = where.suffix.lower()
    reader = _reader_of(where, suffix)
    try:
        if suffix in RAW:
            return arrays.read_raw(where, shape, dtype, order)
        if suffix in (".npy", ".npz"):
            return arrays.read_numpy(where, lazily)
        if suffix == ".rsf":
            return rsf.read(where)
        if suffix == ".zarr" and (lazily or "://" in str(path)):
            return grouped.read_zarr(path, name, lazily)
        return isolated.read(reader, where, name)
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error) or type(error).__name__
        if "pickle" in reason:
            reason = "it is not a NumPy file of numbers"
        raise ValueError(one_line(f"cannot read {path}: {reason}")) from None


def _reader_of(path: pathlib.Path, suffix: str) -> str:
    """What reads a file in a process of its own; empty where none does.

    Raises:
        ValueError: if its library is not there.
    """
    kind = _FORMATS.get(suffix)
    if suffix in (".mat", ".nc"):
        with open(path, "rb") as file:
            start = file.read(520)
        # MATLAB has 512 bytes of its own in front.
        if b"\x89HDF\r\n\x1a\n" not in (start[:8], start[512:]):
            return "arrays.read_matlab" if suffix == ".mat" else "grouped.read_netcdf"
        kind = "HDF5" if suffix == ".mat" else "netCDF"
    if kind is None:
        return ""
    reader, library, extra = _NEEDS[kind]
    machine.require((library,), extra, f"reading {kind}")
    return reader
