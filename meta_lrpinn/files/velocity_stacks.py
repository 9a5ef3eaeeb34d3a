"""Many velocities on one grid, in memory or in a file that is read piece by piece."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from meta_lrpinn.files import cases
from meta_lrpinn.files.readers import names, one_line
from meta_lrpinn.physics.velocity import VelocityModel, check_no_slowness
from meta_lrpinn.runtime import optional

_UNITS = {"km/s": 1.0, "m/s": 1e-3}
_DEFAULT_NAME = "velocity"
# Models are read so many at a time, since those of a zarr file share chunks.
_BYTES_AT_ONCE = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """An array in a .npy or zarr file, of which slices are read; can be pickled."""

    path: str  # absolute, or a URL
    name: str | None = None  # of the array in a zarr group

    def open(self) -> Any:
        """The array with its shape, whose numbers are read when it is sliced."""
        if self.path.endswith(".npy"):
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        import zarr

        if self.name is None:
            return zarr.open_array(self.path, mode="r")
        return zarr.open_group(self.path, mode="r")[self.name]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.asarray(self.open()[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Velocities:
    """A stack of velocities on one grid, of which some are read at a time."""

    values: np.ndarray | ArrayFile  # (n, nz, nx) or (n, nz, ny, nx)
    number: int  # of models
    spacing: tuple[float, ...]  # (ndim,) in array order, km
    origin: tuple[float, ...] | None = None  # (ndim,) in coordinate order, km
    unit: str | None = "km/s"  # of the values; None: not said, so km/s
    first: int = 0  # row of the first model
    quality: np.ndarray | float | None = None  # Q of all, one number or on the grid

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[VelocityModel]:
        """The models.

        Raises:
            ValueError: if a value is no velocity; it says of which model.
        """
        source = self.values
        if isinstance(source, ArrayFile):
            source = source.open()
        rows = max(1, _BYTES_AT_ONCE // (8 * int(np.prod(source.shape[1:]))))
        last = self.first + self.number
        for start in range(self.first, last, rows):
            block = np.asarray(source[start : min(start + rows, last)])
            for index, values in enumerate(block, start):
                if self.unit not in (None, "km/s"):
                    values = values * _UNITS[self.unit]
                try:
                    model = VelocityModel(values, self.spacing, self.origin, self.quality)
                    if self.unit is None:
                        check_no_slowness(model)
                except ValueError as error:
                    raise ValueError(f"velocity {index} of the survey: {error}") from None
                yield model

    @property
    def grid(self) -> VelocityModel:
        """The first model, which stands for the grid of all."""
        return next(iter(self.part(0, 1)))

    def part(self, start: int, stop: int) -> "Velocities":
        """The models from `start` to `stop`; of an array only what they need."""
        if isinstance(self.values, ArrayFile):
            first = self.first + start
            return dataclasses.replace(self, first=first, number=stop - start)
        values = self.values[start:stop]
        return dataclasses.replace(self, values=values, number=len(values))


def open_velocities(
    given: str | os.PathLike | Velocities | VelocityModel | Sequence[VelocityModel],
    spacing: float | Sequence[float] | None = None,
    unit: str | None = None,
    quality: float | np.ndarray | None = None,
) -> Velocities:
    """Velocities in memory, or those that a file holds.

    A .npy file and a zarr array are read slice by slice, wherever they are needed. A .npz
    file is read whole, and any other velocity file is one model.

    Args:
        given: Models, or a file or URL, as FILE:NAME where it holds several arrays.
        spacing: Grid spacing [km], of files without it.
        unit: Of the velocities in a file, as for `load_velocity`.
        quality: Quality factor Q of all velocities, one number or on their grid.

    Raises:
        ValueError: if there is no velocity, or it has no spacing.
        FileNotFoundError: if there is no such file.
    """
    if quality is not None:
        found = open_velocities(given, spacing, unit)
        return dataclasses.replace(found, quality=quality)
    if isinstance(given, Velocities):
        return given
    if isinstance(given, VelocityModel):
        given = [given]
    if not isinstance(given, str | os.PathLike):
        return _of_models(list(given))
    if unit is not None and unit not in _UNITS:
        raise ValueError(f"unit must be one of {', '.join(_UNITS)}, got {unit!r}")
    text = os.fspath(given)
    path, name = text, None
    if "://" not in text:
        where, name = names.split_name(text, None)
        path = os.path.abspath(where)
        if not os.path.exists(path):
            raise FileNotFoundError(f"there is no velocity file {text}")
    elif ".zarr:" in text:
        path, _, name = text.rpartition(":")
    if path.endswith(".npy"):
        values, stored = ArrayFile(path), {}
    elif path.endswith(".npz"):
        values, stored = _of_npz(path, name)
    elif path.rstrip("/").endswith(".zarr"):
        values, stored = _of_zarr(path, name)
    else:
        return _of_models([cases.load_velocity(text, spacing=spacing, unit=unit)])
    spacing = stored.get("spacing") if spacing is None else spacing
    if spacing is None:
        raise ValueError(f"{text} has no grid spacing; add --spacing=dz,dx in km")
    return _of_stack(values, np.ravel(spacing), stored.get("origin"), unit)


def _of_models(models: list[VelocityModel]) -> Velocities:
    if not models:
        raise ValueError("a survey needs at least one model")
    if len({(m.shape, m.spacing, m.origin) for m in models}) != 1:
        raise ValueError("the models of a survey must share one grid")
    first, *others = models
    for other in others:
        same = (first.quality is None) == (other.quality is None)
        if not same or not np.array_equal(first.quality, other.quality):
            raise ValueError("the models of a survey must share one quality")
    values = np.stack([np.asarray(model.velocity) for model in models])
    quality = None if first.quality is None else np.asarray(first.quality)
    return Velocities(values, len(models), first.spacing, first.origin, quality=quality)


def _of_stack(
    values: np.ndarray | ArrayFile, spacing: np.ndarray, origin: Any, unit: str | None
) -> Velocities:
    """A stack by the number of axes: a section or a volume alone is a stack of one."""
    shape = values.shape if isinstance(values, np.ndarray) else values.open().shape
    ndim = 3 if len(shape) == 4 or (len(shape) == 3 and spacing.size == 3) else 2
    if len(shape) not in (ndim, ndim + 1) or 0 in shape:
        raise ValueError(
            f"velocities must have shape (n, nz, nx) or (n, nz, ny, nx), got {shape}"
        )
    if len(shape) == ndim:
        whole = values if isinstance(values, np.ndarray) else values[:]
        values, shape = whole[None], (1, *shape)
    steps = tuple(float(step) for step in np.broadcast_to(spacing, ndim))
    if origin is not None:
        origin = tuple(float(start) for start in np.ravel(origin))
    return Velocities(values, shape[0], steps, origin, unit)


def _of_npz(path: str, name: str | None) -> tuple[np.ndarray, Mapping[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            name = _chosen(name, file.files, path)
            keys = {"spacing": (f"{name}_spacing", "spacing"), "origin": ("origin",)}
            stored = {
                what: file[key]
                for what, some in keys.items()
                for key in [next((key for key in some if key in file), None)]
                if key is not None
            }
            return file[name], stored
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(one_line(f"cannot read {path}: {error}")) from None


def _of_zarr(path: str, name: str | None) -> tuple[ArrayFile, Mapping[str, Any]]:
    optional.require(("zarr",), "xarray", "reading zarr")
    import zarr

    try:
        found = zarr.open(path, mode="r")
    except Exception as error:  # Stores raise nearly anything.
        raise ValueError(one_line(f"cannot read {path}: {error}")) from None
    stored = dict(found.attrs)
    if isinstance(found, zarr.Group):
        name = _chosen(name, list(found.array_keys()), path)
        stored |= dict(found[name].attrs)
        axes = getattr(found[name].metadata, "dimension_names", None) or ()
        arrays = dict(found.arrays())
        lines = [np.asarray(arrays[axis][:]) for axis in axes[1:] if axis in arrays]
        if "spacing" not in stored and lines and all(len(line) > 1 for line in lines):
            stored["spacing"] = [float(line[1] - line[0]) for line in lines]
            stored.setdefault("origin", [float(line[0]) for line in lines[::-1]])
    return ArrayFile(path, name), stored


def _chosen(name: str | None, known: Sequence[str], path: str) -> str:
    """The name of the array of velocities."""
    if name is None:
        name = _DEFAULT_NAME if _DEFAULT_NAME in known or len(known) != 1 else known[0]
    if name not in known:
        raise ValueError(f"{path} has no array {name!r}; it holds {names.listed(known)}")
    return name
