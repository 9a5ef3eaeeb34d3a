"""Files in and out: velocity models and cases, one reader per format.

A *case* is a velocity model with what a file says about a problem posed on it:
frequency, source, amplitude, background velocity, a known wavefield.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from meta_lrpinn.files import layouts, readers, units, writing
from meta_lrpinn.files.axes import orient
from meta_lrpinn.files.layouts import Layout, Reading
from meta_lrpinn.files.readers.contents import (
    ArrayFile,
    Contents,
    is_there,
    listed,
    one_line,
    split_index,
    split_name,
)
from meta_lrpinn.physics.grid_values import real_array
from meta_lrpinn.physics.problem import check_amplitude, check_frequency, check_velocity
from meta_lrpinn.physics.velocity import VelocityModel, transposition_hint

T = TypeVar("T")
SUFFIXES = readers.SUFFIXES

_DEFAULT_NAMES = ("velocity", "vel", "v")
# Arrays of a file that are never velocities, even when they have two axes.
_NOT_MODELS = frozenset(
    "frequency source source_x source_y source_z weights amplitude v0 scattered quality "
    "free_surface spacing origin".split()
)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A velocity model with what a file says about a problem posed on it."""

    model: VelocityModel
    frequency: float | None = None  # Hz
    source: np.ndarray | None = None  # (ndim,) or (n_sources, ndim) [km]
    weights: np.ndarray | None = None  # (n_sources,) of sources fired together
    amplitude: complex | None = None  # factor A of the background field
    background_velocity: complex | None = None  # v0 [km/s]
    free_surface: bool | None = None  # u = 0 at the top of the model
    scattered: np.ndarray | None = None  # (nz, nx) or (n_sources, nz, nx), complex
    notes: tuple[str, ...] = ()  # what was turned, unpacked or converted in reading


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """An array of velocities in a file, and what stands beside it."""

    path: str
    contents: Contents  # with the arrays beside it under their short names
    name: str
    index: tuple[int, ...]  # of a stack
    layout: Layout
    is_default: bool  # whether the problem in the file is that of this array

    @property
    def stored(self) -> np.ndarray | ArrayFile:
        """The whole array as it is in the file."""
        return self.contents.arrays[self.name]


def load_velocity(
    path: str | os.PathLike,
    name: str | None = None,
    spacing: float | Sequence[float] | None = None,
    *,
    unit: str | None = None,
    spacing_unit: str | None = None,
    transpose: bool = False,
    fill: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str = "float32",
    order: str = "C",
) -> VelocityModel:
    """Reads a velocity model from a file.

    Formats: .npy, .npz, .mat (also 7.3), .h5, .hdf5, .nc, .zarr, .sgy, .segy (2-D, or
    3-D by inline and crossline), .rsf, and raw .bin and .vp.

    An array of three axes may be a volume or a stack of sections, (5, 70, 70), so it is
    a volume only where three spacings say so, given or in the file. One section of a
    stack is named with its index: "FILE:NAME[3]". Leading axes of one point are dropped.

    Args:
        path: The file; "FILE:NAME" stands for a file and a name in it.
        name: Which array to read, as `marmousi`, `model.vp` (a field of a struct),
            `group/vp` or `velocity[3]`. By default `velocity` (or `vel`, `v`), else the
            only array of two or three axes.
        spacing: Grid spacing, (dz, dx) or (dz, dy, dx) or one number. Overrides the
            file's own, which is `NAME_spacing`, `spacing` or `dz` with `dx`; coordinates
            in the file must agree with it.
        unit: Of the velocities in the file, "km/s", "m/s" or "ft/s"; or of slowness,
            "s/km", "us/ft" or squared "s2/km2". By default the file's own, or km/s, but
            a file with no value above 1 is refused then, which may hold slowness.
        spacing_unit: "km", "m" or "ft", of all lengths, given or in the file. By default
            the file's own, or what goes with the unit of its velocities.
        transpose: The file's array is (nx, nz) or (nx, ny, nz), and so are its spacing
            and its known field, where no names of dimensions say it. The argument
            `spacing` is in the model's order.
        fill: "nearest" replaces NaN and infinite values by their nearest neighbours,
            which are refused otherwise.
        shape: Of a raw file, (nz, nx) or (nz, ny, nx).
        dtype: Of a raw file.
        order: Of a raw file, "C" or "F".

    Returns:
        The model in km and km/s.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as a velocity model.
    """
    return load_case(
        path, name, spacing, unit=unit, spacing_unit=spacing_unit, transpose=transpose,
        fill=fill, shape=shape, dtype=dtype, order=order,
    ).model  # fmt: skip


def load_case(
    path: str | os.PathLike,
    name: str | None = None,
    spacing: float | Sequence[float] | None = None,
    **options: Any,
) -> Case:
    """Reads a velocity model and the problem stored beside it, if there is one.

    Next to `velocity` and `spacing` a file may hold `quality`, `frequency` [Hz], `source`
    [km] (or `source_x` with `source_z`), `amplitude`, `v0` [km/s] and `scattered` on the
    model's grid, one per source.

    Arguments are those of `load_velocity`. An array that is not the default, or one
    section of a stack, has no problem beside it.

    Returns:
        The case; what the file does not hold is None. Its `notes` say what was turned,
        unpacked or converted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or its parts do not fit together.
    """
    opened = open_array(path, name, Reading(spacing=spacing, **options))
    with naming(opened.path):
        return _case_of(opened)


def open_array(
    path: str | os.PathLike,
    name: str | None,
    reading: Reading,
    lazily: bool = False,
) -> Opened:
    """Finds the array of velocities in a file, and where its numbers belong.

    Args:
        path: The file, as for `load_velocity`; of zarr also a URL.
        name: The array.
        reading: What the user says about the file.
        lazily: Of .npy and zarr read no velocities yet.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such array, or it is no model or stack.
    """
    text, name = split_name(path, name)
    if "://" not in text and not is_there(text):
        raise FileNotFoundError(one_line(f"there is no velocity file {text}"))
    suffix = pathlib.PurePath(text).suffix.lower()
    if suffix not in SUFFIXES:
        message = f"cannot read {text}: velocity files end in {', '.join(SUFFIXES)}"
        raise ValueError(one_line(message))
    raw = (reading.dtype, reading.order) != ("float32", "C") or reading.shape is not None
    if raw and suffix not in readers.RAW:
        raise ValueError(f"shape, dtype and order are for raw files, not {text}")
    if suffix in readers.SEGY and reading.transpose:
        raise ValueError(f"transpose is not for SEG-Y, whose traces run down: {text}")
    name, index = split_index(name)
    if name is not None and suffix in readers.GROUPED:
        name = name.lstrip("/")
    contents = readers.read(text, name, reading.shape, reading.dtype, reading.order, lazily)
    with naming(text):
        name = _choose(contents.arrays, name, text)
        contents, name, is_default = _beside(contents, name)
        layout = layouts.lay_out(contents, name, reading, len(index))
    return Opened(text, contents, name, index, layout, is_default)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the name of a file in front of what is wrong with it, in one line."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        text = text if text.startswith(path) else f"{path}: {text}"
        raise ValueError(one_line(text)) from None


def _case_of(opened: Opened) -> Case:
    """The one model that was opened, with its problem."""
    layout, arrays = opened.layout, opened.contents.arrays
    velocity = layout.velocities(one_of_stack(opened))
    velocity = velocity.reshape(velocity.shape[-layout.ndim :])
    is_whole = opened.is_default and not opened.index
    quality = quality_of(opened.contents, layout) if is_whole else None
    model = VelocityModel(velocity, layout.spacing, layout.origin, quality)
    hint = transposition_hint(model) if layout.is_order_custom else None
    notes = (*layout.notes, *filter(None, (layout.hint(velocity), hint)))
    if not is_whole:
        return Case(model, notes=notes)
    source = _source_of(opened.contents, layout)
    if source is not None:
        model.check_contains(source)
    weights = _weights_of(arrays, source)
    return Case(
        model=model,
        frequency=_checked(check_frequency, arrays, "frequency"),
        source=source,
        weights=weights,
        amplitude=_checked(check_amplitude, arrays, "amplitude"),
        background_velocity=_background_of(opened.contents, model, source, layout.unit),
        free_surface=_checked(_check_surface, arrays, "free_surface"),
        scattered=_scattered_of(opened.contents, layout, model, source, weights is None),
        notes=notes,
    )


def one_of_stack(opened: Opened) -> np.ndarray:
    """The array with one model of its stack, whose axes it keeps.

    Raises:
        ValueError: if the index names no one model.
    """
    layout, index = opened.layout, opened.index
    if len(index) > len(layout.stack):
        raise ValueError(f"an index leaves no section of shape {opened.stored.shape}")
    part: list[Any] = [slice(None)] * opened.stored.ndim
    for axis, size, number in zip(layout.order, layout.stack, index, strict=False):
        if number >= size:
            raise ValueError(f"there is no section {number} of {size}")
        part[axis] = slice(number, number + 1)
    if any(size != 1 for size in layout.stack[len(index) :]):
        name, shape = opened.name, opened.stored.shape
        may_be_volume = layout.is_order_custom and len(shape) - len(index) == 3
        volume = "give three spacings, (dz, dy, dx), if it is a volume, or "
        raise ValueError(
            f"{name} has shape {shape}: {volume if may_be_volume else ''}name one section, "
            f"as in '{name}[0]', if it is a stack"
        )
    return opened.stored[tuple(part)]


def load_quality(path: str | os.PathLike, name: str | None = None) -> np.ndarray:
    """Reads a quality factor Q, as `VelocityModel` takes it.

    Args:
        path: A file of any format but raw ones; "FILE:NAME" names an array in it.
        name: Which array; by default `quality`, else the only one.

    Returns:
        One number, (), or an array (nz, nx) or (nz, ny, nx).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no such array.
    """
    text, name = split_name(path, name)
    if not is_there(text):
        raise FileNotFoundError(one_line(f"there is no quality file {text}"))
    if pathlib.PurePath(text).suffix.lower() not in set(SUFFIXES) - set(readers.RAW):
        raise ValueError(one_line(f"cannot read a quality from {text}"))
    contents = readers.read(text, name)
    arrays = contents.arrays
    if name is None:
        names = [key for key in arrays if arrays[key].ndim > 1] or list(arrays)
        name = names[0] if len(names) == 1 and "quality" not in arrays else "quality"
    if name not in arrays:
        raise ValueError(f"{text} holds no quality {name!r}; it holds {listed(arrays)}")
    with naming(text):
        contents, name, _ = _beside(contents, name)
        stored = contents.arrays[name]
        if stored.size == 1:
            return real_array(stored, "quality").reshape(())
        axes = orient(contents, name, "km", spacing=np.ones(stored.ndim))
        values = units.packing(contents, name).unpacked(stored)
        return np.squeeze(np.flip(np.transpose(values, axes.order), axes.flipped))


def save_velocity(path: str | os.PathLike, model: VelocityModel) -> None:
    """Writes a model to an .npz file that `load_velocity` reads, as `save_case`."""
    save_case(path, Case(model))


def save_case(path: str | os.PathLike, case: Case) -> None:
    """Writes a case to an .npz file that `load_case` reads, all or nothing.

    Args:
        path: The file, ending in .npz; replaced if it exists.
        case: The case; fields that are None are left out.

    Raises:
        FileNotFoundError: if there is no folder to write to.
        ValueError: if the path has another ending.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"velocity models are written as .npz files, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write to")
    model = case.model
    contents = {
        "velocity": np.asarray(model.velocity),
        "spacing": np.array(model.spacing),
        "origin": np.array(model.origin),
        "quality": model.quality,
        "frequency": case.frequency,
        "source": case.source,
        "weights": case.weights,
        "amplitude": case.amplitude,
        "v0": case.background_velocity,
        "free_surface": case.free_surface,
        "scattered": case.scattered,
    }
    contents = {key: value for key, value in contents.items() if value is not None}
    writing.write_together({path: lambda file: np.savez_compressed(file, **contents)})


def _choose(contents: Mapping[str, Any], name: str | None, path: str) -> str:
    """The name of the array to read."""
    models = [
        key
        for key, value in contents.items()
        if value.ndim >= 2
        and value.dtype.kind in "fiu"
        and key not in _NOT_MODELS
        and not key.endswith("_spacing")
    ]
    if name is not None:
        if name in contents and name not in _NOT_MODELS:
            return name
        raise ValueError(
            f"{path} has no velocity model {name[:40]!r}; it holds {listed(models)}"
        )
    for default in _DEFAULT_NAMES:
        if default in contents:
            return default
    if len(models) == 1:
        return models[0]
    if models:
        raise ValueError(
            f"{path} holds several models; name one of {listed(models)}, "
            f"as in '{pathlib.PurePath(path).name}:{models[0][:40]}'"
        )
    raise ValueError(
        f"{path} holds no velocity model: no 2-D or 3-D array of real numbers "
        f"among {listed(contents)}"
    )


def _beside(contents: Contents, name: str) -> tuple[Contents, str, bool]:
    """What lies beside an array, in its struct or group first; its name there."""
    prefix = name[: max(name.rfind("."), name.rfind("/")) + 1]
    short = name[len(prefix) :]
    if prefix:
        arrays, dimensions = (
            known | {k[len(prefix) :]: v for k, v in known.items() if k.startswith(prefix)}
            for known in (contents.arrays, contents.dimensions)
        )
        contents = Contents(arrays, dimensions)
    return contents, short, short in _DEFAULT_NAMES


def quality_of(contents: Contents, layout: Layout) -> np.ndarray | None:
    """Q beside a velocity, one number or on its grid; None where there is none."""
    if "quality" not in contents.arrays:
        return None
    packing = units.packing(contents, "quality")
    values = packing.unpacked(layout.beside(contents, "quality"))
    return values.reshape(()) if values.size == 1 else values


def _checked(
    check: Callable[[Any], T], arrays: Mapping[str, np.ndarray], key: str
) -> T | None:
    """One number of a file, if `check` has nothing against it; None without one."""
    value = arrays.get(key)
    if value is None:
        return None
    if value.size != 1:
        raise ValueError(f"{key} must be one number, got shape {value.shape}")
    return check(value.item())


def _check_surface(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError(f"free_surface must be 0 or 1, got {value!r}"[:200])
    return bool(value)


def _background_of(
    contents: Contents, model: VelocityModel, source: np.ndarray | None, unit: str
) -> complex | None:
    """One velocity v₀ [km/s], complex with attenuation; None for the default, which is
    those at several sources."""
    stored = contents.arrays.get("v0")
    if stored is None:
        return None
    unit = units.unit_beside(contents, "v0", units.VELOCITIES) or unit
    # Beside slowness, v0 is a velocity in km/s all the same.
    scale = 1.0 if units.is_slowness(unit) else units.VELOCITIES[unit][0]
    if stored.dtype.kind not in "fiuc":
        raise ValueError("v0 must be a number")
    values = [check_velocity(value) for value in (np.ravel(stored) * scale).tolist()]
    if len(set(values)) == 1:
        return values[0]
    if source is None or source.ndim == 1 or len(source) != len(values):
        raise ValueError(f"v0 must be one number, got shape {stored.shape}")
    if not np.allclose(values, model.complex_velocity_at(source), rtol=1e-3):
        raise ValueError("v0 must be one number, or the velocities at the sources")
    return None


def _source_of(contents: Contents, layout: Layout) -> np.ndarray | None:
    """(ndim,) or (n_sources, ndim) [km]."""
    arrays, unit = contents.arrays, layout.length_unit
    if "source" in arrays:
        source = units.lengths(contents, "source", unit)
    elif "source_x" in arrays:
        if "source_z" not in arrays:
            raise ValueError("source_x needs source_z beside it")
        keys = [f"source_{axis}" for axis in "xyz" if f"source_{axis}" in arrays]
        columns = [units.lengths(contents, key, unit) for key in keys]
        try:
            source = np.stack(np.broadcast_arrays(*columns), axis=-1)
        except ValueError:
            raise ValueError(
                "source_x and source_z must be of one length, or one of them a number"
            ) from None
    else:
        return None
    if source.size == 0:
        raise ValueError(f"source holds no point, its shape is {source.shape}")
    if layout.is_up:
        raise ValueError(
            "z holds heights: is the source's a height or a depth? Leave it out of the file"
        )
    return source


def _weights_of(
    arrays: Mapping[str, np.ndarray], source: np.ndarray | None
) -> np.ndarray | None:
    """Weights of sources that are fired together, (n_sources,)."""
    if "weights" not in arrays:
        return None
    weights = np.asarray(arrays["weights"])
    if source is None or weights.shape != source.shape[:-1] or weights.ndim != 1:
        raise ValueError(f"weights must be one for each source, got shape {weights.shape}")
    if weights.dtype.kind not in "fiuc" or not np.all(np.isfinite(weights)):
        raise ValueError("weights must be finite numbers")
    return weights


def _scattered_of(
    contents: Contents,
    layout: Layout,
    model: VelocityModel,
    source: np.ndarray | None,
    has_source_axis: bool,
) -> np.ndarray | None:
    """The field on the model's grid, with a leading axis where each source has its own."""
    if "scattered" not in contents.arrays:
        return None
    field = layout.beside(contents, "scattered")
    if field.dtype.kind not in "fc":
        raise ValueError("scattered must be an array of complex numbers")
    leading = field.shape[:1] if field.ndim > model.ndim else ()
    if source is not None:
        leading = source.shape[:-1] if has_source_axis else ()
    expected = leading + model.shape
    alone = (1,) + model.shape
    if field.shape != expected and {field.shape, expected} != {alone, model.shape}:
        raise ValueError(
            f"scattered must have shape {expected} to fit the model and its sources, "
            f"got {field.shape}"
        )
    if field.size == 0 or not np.all(np.isfinite(field)):
        raise ValueError(f"scattered must be finite and not empty, shape {field.shape}")
    field = field.reshape(expected)
    return field if np.iscomplexobj(field) else field.astype(np.complex64)
