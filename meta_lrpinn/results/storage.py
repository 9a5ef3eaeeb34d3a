"""Wavefields as named arrays, and in files: netCDF, zarr, HDF5 and NumPy alike.

`Contents` is what `xarray.Dataset` takes, and what a NumPy file can hold without it.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meta_lrpinn.files import writing
from meta_lrpinn.files.readers.grouped import IMAGINARY, REAL
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    import xarray

    from meta_lrpinn.wavefield import Wavefield

# Dimensions, values, attributes.
Variable = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]

SUFFIXES = (".nc", ".zarr", ".h5", ".npz")
# What a NumPy file has no place for: dimensions and attributes, as JSON.
_DESCRIPTION = "description"
_LIBRARIES = {
    ".nc": ("xarray", "h5netcdf"),
    ".h5": ("xarray", "h5netcdf"),
    ".zarr": ("xarray", "zarr"),
    ".npz": (),
}
_LONG_NAMES = {
    "velocity": "velocity",
    "scattered": "scattered wavefield",
    "background": "background wavefield",
    "total": "total wavefield, NaN at nodes that hold a source",
    "amplitude": "factor A of the background wavefield",
    "v0": "velocity of the background wavefield, v/(1 - i/2Q)",
    "weights": "weights of the sources, which were fired together",
    "quality": "quality factor Q",
    "free_surface": "whether the total wavefield is zero at the top of the model",
    "error_estimate": "the solver's estimate of the relative L2 error of scattered",
}
_CONVENTIONS = (
    "total = scattered + background; time goes as exp(+i omega t); z is depth, positive "
    "down; background = A H0^(2)(k r) in 2D, A exp(-i k r)/r in 3D, with k = omega/v0"
)


class Contents(NamedTuple):
    """What `xarray.Dataset` is made of, in the order of its arguments."""

    variables: dict[str, Variable]
    coordinates: dict[str, Variable]
    attributes: dict[str, Any]  # numbers, texts and lists


def variable(
    dimensions: tuple[str, ...], values: Any, long_name: str = "", units: str = ""
) -> Variable:
    """An array with the names of its dimensions, what it is, and its unit."""
    attributes: dict[str, Any] = {"long_name": long_name, "units": units}
    known = {key: text for key, text in attributes.items() if text}
    return dimensions, np.asarray(values), known


def positions(what: str, points: np.ndarray) -> dict[str, Variable]:
    """Coordinates of one point, (ndim,), or several, (n, ndim) [km], axis by axis."""
    points = np.asarray(points, float)
    labels = (what,) if points.ndim == 2 else ()
    axes = "xyz" if points.shape[-1] == 3 else "xz"
    return {
        f"{what}_{axis}": variable(labels, column, f"{_in_words(axis)} of the {what}", "km")
        for axis, column in zip(axes, points.T, strict=True)
    }


def axes_of(model: VelocityModel) -> dict[str, Variable]:
    """Coordinates of the nodes along each axis of a grid [km], in array order."""
    names = "zyx" if model.ndim == 3 else "zx"
    return {
        axis: variable((axis,), values, _in_words(axis), "km")
        for axis, values in zip(names, model.axes(), strict=True)
    }


def _in_words(axis: str) -> str:
    return "depth" if axis == "z" else axis


def contents(
    field: "Wavefield", relative_l2: Mapping[str, np.ndarray] | None = None
) -> Contents:
    """All that a wavefield holds, except the function that evaluates it off the grid.

    Errors of every source, () or (n_sources,), are by the name of what the field was
    compared with.
    """
    model = field.model
    # Sources that were fired together have positions and weights, but one wavefield.
    points: tuple[str, ...] = ("source",) if np.ndim(field.source) == 2 else ()
    sources = points if field.has_source_axis else ()
    coordinates = axes_of(model)
    axes = tuple(coordinates)
    grid = (*sources, *axes)
    # u₀ is A H₀ in 2D and A e^{-ikr}/r in 3D, for an A without a unit.
    unit = {2: "1", 3: "1/km"}[model.ndim]
    waves = dict.fromkeys(("scattered", "background", "total"), unit)
    in_units = {"velocity": "km/s", "v0": "km/s", **waves}
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {
        "velocity": (axes, model.velocity),
        "scattered": (grid, field.scattered),
        "background": (grid, field.background),
        "total": (grid, field.total.filled(np.nan)),
        "amplitude": ((), field.amplitude),
        "v0": (points, field.background_velocity),
        "weights": (points, field.weights),
        "quality": (axes, model.quality),
        "free_surface": ((), 1 if field.free_surface else None),  # netCDF has no booleans
        "error_estimate": (sources, field.error_estimates),
    }
    variables = {
        name: variable(labels, values, _LONG_NAMES[name], in_units.get(name, ""))
        for name, (labels, values) in arrays.items()
        if values is not None
    }
    for compared, errors in (relative_l2 or {}).items():
        text = f"relative L2 distance of scattered from the {compared} field"
        values = np.reshape(np.asarray(errors, float), -1 if sources else ())
        variables[f"relative_l2_{compared}"] = variable(sources, values, text)
    coordinates["frequency"] = variable((), field.frequency, units="Hz")
    coordinates |= positions("source", field.source)
    return Contents(variables, coordinates, _attributes(field))


def _attributes(field: "Wavefield") -> dict[str, Any]:
    """Provenance; what is not known is left out."""
    attributes: dict[str, Any] = {
        "title": "Acoustic wavefield in the frequency domain",
        "conventions": _CONVENTIONS,
        "spacing": list(field.model.spacing),
        "origin": [float(value) for value in field.model.origin],
        "solver": field.solver,
        "settings": repr(field.settings),
        "elapsed": float(field.elapsed),
        "converged": None if field.converged is None else int(field.converged),
    }
    for part in filter(None, (field.stats, field.provenance)):
        attributes |= {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(part).items()
        }
    # No format of ours can store None.
    return {key: value for key, value in attributes.items() if value is not None}


def to_xarray(parts: Contents) -> "xarray.Dataset":
    """The dataset of these contents.

    Raises:
        ValueError: if xarray is not installed.
    """
    machine.require(("xarray",), "xarray", "to_xarray")
    import xarray  # optional, and slow to import

    return xarray.Dataset(*parts)


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
    dataset = to_xarray(parts)
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
    """What `Wavefield.save` wrote in any of its formats, as `to_xarray` gave it.

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
        dataset = _load(path, suffix)
    except Exception as error:  # Libraries raise nearly anything.
        raise ValueError(f"cannot read {path}: {error}") from None
    if "scattered" not in dataset:
        raise ValueError(f"{path} holds no wavefield")
    return dataset


def _load(path: pathlib.Path, suffix: str) -> "xarray.Dataset":
    import xarray

    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return to_xarray(_parts(dict(file)))
    options = {".zarr": {"engine": "zarr", "consolidated": False}}
    dataset = xarray.load_dataset(path, **options.get(suffix, {"engine": "h5netcdf"}))
    # Numbers and lists, as the same attributes are after any format.
    plain = {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in dataset.attrs.items()
    }
    return _with_complex(dataset).assign_attrs(plain)


# netCDF has no complex numbers: two variables, which our readers join again.


def _without_complex(dataset: "xarray.Dataset") -> "xarray.Dataset":
    for name, array in dataset.data_vars.items():
        if array.dtype.kind == "c":
            both = {f"{name}{REAL}": array.real, f"{name}{IMAGINARY}": array.imag}
            both = {key: part.assign_attrs(array.attrs) for key, part in both.items()}
            dataset = dataset.drop_vars([name]).assign(both)
    return dataset


def _with_complex(dataset: "xarray.Dataset") -> "xarray.Dataset":
    for name in [str(name) for name in dataset.variables]:
        base = name.removesuffix(REAL)
        if base != name and base + IMAGINARY in dataset:
            real, imaginary = dataset[name], dataset[base + IMAGINARY]
            joined = (real + 1j * imaginary).assign_attrs(real.attrs)
            dataset = dataset.drop_vars([name, base + IMAGINARY]).assign({base: joined})
    return dataset


def _arrays(parts: Contents) -> dict[str, Any]:
    """The entries of a NumPy file: arrays, numbers among the attributes, the rest."""
    # Numbers stand there by their own names too, for whoever has NumPy alone.
    arrays: dict[str, Any] = {
        key: value for key, value in parts.attributes.items() if not isinstance(value, str)
    }
    described = {}
    for kind in ("variables", "coordinates"):
        known = getattr(parts, kind)
        arrays |= {name: values for name, (_, values, _) in known.items()}
        described[kind] = {name: (dims, about) for name, (dims, _, about) in known.items()}
    described["attributes"] = parts.attributes
    return {**arrays, _DESCRIPTION: json.dumps(described)}


def _parts(arrays: Mapping[str, np.ndarray]) -> Contents:
    # Cases and velocity files are NumPy files as well.
    if _DESCRIPTION not in arrays:
        raise ValueError("it was not written by Wavefield.save")
    described = json.loads(str(arrays[_DESCRIPTION]))
    variables, coordinates = (
        {
            name: (tuple(dimensions), arrays[name], attributes)
            for name, (dimensions, attributes) in described[kind].items()
        }
        for kind in ("variables", "coordinates")
    )
    return Contents(variables, coordinates, described["attributes"])
