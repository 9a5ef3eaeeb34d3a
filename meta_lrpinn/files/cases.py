"""Files in and out: velocity models and cases, one reader per format.

A *case* is a velocity model with what a file says about a problem posed on it:
frequency, source, amplitude, background velocity, a known wavefield.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meta_lrpinn.files import case_values, readers, writing
from meta_lrpinn.files.readers import names
from meta_lrpinn.physics.grid_values import real_array
from meta_lrpinn.physics.velocity import VelocityModel, check_no_slowness, fill_nearest

SUFFIXES = readers.SUFFIXES

_VELOCITY_UNITS = {"km/s": 1.0, "m/s": 1e-3}
_LENGTH_UNITS = {"km": 1.0, "m": 1e-3}
_DEFAULT_NAMES = ("velocity", "vel", "v")
_CASE_KEYS = (
    "frequency",
    "source",
    "amplitude",
    "v0",
    "scattered",
    case_values.QUALITY,
    case_values.SURFACE,
)
# Arrays of a file that are never velocities, even when they have two axes.
_NOT_MODELS = (*_CASE_KEYS, "spacing", "origin", "source_x", "source_y", "source_z")
# Headers are rounded: a spacing given may differ by this much from the file's.
_SAME_SPACING = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A velocity model with what a file says about a problem posed on it."""

    model: VelocityModel
    frequency: float | None = None  # Hz
    source: np.ndarray | None = None  # (ndim,) or (n_sources, ndim) [km]
    amplitude: complex | None = None  # factor A of the background field
    background_velocity: complex | None = None  # v0 [km/s]
    free_surface: bool | None = None  # u = 0 at the top of the model
    scattered: np.ndarray | None = None  # (nz, nx) or (n_sources, nz, nx), complex


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
            file's own, which is `NAME_spacing`, `spacing` or `dz` with `dx`; that of a
            SEG-Y file must agree with it, whose CDP coordinates are measurements.
        unit: "km/s" or "m/s", of the velocities in the file. By default km/s, but a
            file with no value above 0.5 is refused, which may hold slowness squared.
        spacing_unit: "km" or "m", of all lengths, given or in the file. By default
            lengths are in km, but those in an "m/s" file are in metres.
        transpose: The file's array is (nx, nz) or (nx, ny, nz), and so are its spacing
            and its known field. The argument `spacing` is in the model's order.
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
        path,
        name,
        spacing,
        unit=unit,
        spacing_unit=spacing_unit,
        transpose=transpose,
        fill=fill,
        shape=shape,
        dtype=dtype,
        order=order,
    ).model


def load_case(
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
) -> Case:
    """Reads a velocity model and the problem stored beside it, if there is one.

    Next to `velocity` and `spacing` a file may hold `quality`, `frequency` [Hz], `source`
    [km] (or `source_x` with `source_z`), `amplitude`, `v0` [km/s] and `scattered` on the
    model's grid, one per source.

    Args:
        path: As for `load_velocity`, like all arguments.
        name: Which array to read; one that is not the default, or one section of a
            stack, has no problem beside it.
        spacing: Grid spacing.
        unit: "km/s", "m/s" or None.
        spacing_unit: "km" or "m".
        transpose: The file is (nx, nz).
        fill: "nearest" or None.
        shape: Of a raw file.
        dtype: Of a raw file.
        order: Of a raw file.

    Returns:
        The case; what the file does not hold is None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or its parts do not fit together.
    """
    _check_options(unit, spacing_unit, fill, transpose, spacing)
    path, name = names.split_name(path, name)
    if not names.is_there(path):
        raise FileNotFoundError(readers.one_line(f"there is no velocity file {path}"))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        text = f"cannot read {path}: velocity files end in {', '.join(SUFFIXES)}"
        raise ValueError(readers.one_line(text))
    is_raw, is_segy = suffix in readers.RAW, suffix in readers.SEGY
    if not is_raw and (shape is not None or (dtype, order) != ("float32", "C")):
        raise ValueError(f"shape, dtype and order are for raw files, not {path}")
    if is_segy and transpose:
        raise ValueError(f"transpose is not for SEG-Y, whose traces run down: {path}")
    name, index = names.split_index(name)
    if name is not None and suffix in readers.GROUPED:
        name = name.lstrip("/")
    contents = readers.read(path, name, shape, dtype, order)
    try:
        name = _choose(contents.arrays, name, path)
        arrays, name, is_default = _beside(contents.arrays, name)
        length = _length_scale(contents.length_unit, spacing_unit, unit)
        velocity = _section(real_array(arrays[name], name), index, transpose)
        own = _stored_spacing(arrays, name, transpose)
        if spacing is not None:
            given = real_array(spacing, "spacing") * _LENGTH_UNITS[spacing_unit or "km"]
            if is_segy and own is not None:
                _check_agreement(given, own * length, velocity.ndim)
        else:
            given = _own_spacing(own, velocity.ndim, len(index), name, is_segy) * length
        if velocity.ndim == 3 and given.size != 3 and not is_segy:
            raise ValueError(_ambiguous(name, velocity.shape))
        if unit == "m/s":
            velocity = velocity * velocity.dtype.type(_VELOCITY_UNITS[unit])
        if fill == "nearest":
            steps = np.broadcast_to(given, velocity.ndim) if given.size == 1 else given
            velocity = fill_nearest(velocity, steps)
        origin = _stored_origin(arrays, name, length)
        is_whole = is_default and not index
        quality = case_values.quality_of(arrays, transpose) if is_whole else None
        model = VelocityModel(velocity, given, origin, quality)
        if unit is None:
            check_no_slowness(model)
        if not is_whole:
            return Case(model)
        speed = _VELOCITY_UNITS[unit or "km/s"]
        return _stored_case(arrays, model, length, speed, transpose)
    except ValueError as error:
        text = str(error)
        text = text if text.startswith(str(path)) else f"{path}: {text}"
        raise ValueError(readers.one_line(text)) from None


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
    path, name = names.split_name(path, name)
    if not names.is_there(path):
        raise FileNotFoundError(readers.one_line(f"there is no quality file {path}"))
    if path.suffix.lower() not in set(SUFFIXES) - set(readers.RAW):
        raise ValueError(readers.one_line(f"cannot read a quality from {path}"))
    arrays = readers.read(path, name).arrays
    if name is None:
        name = (
            case_values.QUALITY if case_values.QUALITY in arrays else next(iter(arrays), "")
        )
        if len(arrays) != 1 and name != case_values.QUALITY:
            name = ""
    if name not in arrays:
        raise ValueError(
            f"{path} holds no quality {name!r}; it holds {names.listed(arrays)}"
        )
    return real_array(np.squeeze(arrays[name]), "quality")


def save_velocity(path: str | os.PathLike, model: VelocityModel) -> None:
    """Writes a model to an .npz file that `load_velocity` reads, all or nothing.

    Args:
        path: The file, ending in .npz; replaced if it exists.
        model: The model.

    Raises:
        FileNotFoundError: if there is no folder to write to.
        ValueError: if the path has another ending.
    """
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
        case_values.QUALITY: model.quality,
        "frequency": case.frequency,
        "source": case.source,
        "amplitude": case.amplitude,
        "v0": case.background_velocity,
        case_values.SURFACE: case.free_surface,
        "scattered": case.scattered,
    }
    contents = {key: value for key, value in contents.items() if value is not None}
    writing.write_together({path: lambda file: np.savez_compressed(file, **contents)})


def _check_options(
    unit: str | None,
    spacing_unit: str | None,
    fill: str | None,
    transpose: bool,
    spacing: Any,
) -> None:
    for what, value, choices in (
        ("unit", unit, ("km/s", "m/s", None)),
        ("spacing_unit", spacing_unit, ("km", "m", None)),
        ("fill", fill, ("nearest", None)),
        ("transpose", transpose, (True, False)),
    ):
        if value not in choices:
            expected = " or ".join(map(repr, choices))
            raise ValueError(f"{what} must be {expected}, got {value!r:.40}")
    if unit == "m/s" and spacing_unit is None and spacing is not None:
        # Cells of a kilometre and more are what nobody computes waves on.
        largest = np.max(real_array(spacing, "spacing"), initial=0.0)
        if largest >= 1:
            raise ValueError(
                f"is the spacing {largest:g} in metres, like the velocities? Say so with "
                "spacing_unit='m' or 'km'"
            )


def _section(values: np.ndarray, index: tuple[int, ...], transpose: bool) -> np.ndarray:
    """The part of an array that an index names, in the order (nz, nx) or (nz, ny, nx)."""
    for number in index:
        if values.ndim < 3:
            raise ValueError(f"an index leaves no section of shape {values.shape}")
        if number >= values.shape[0]:
            raise ValueError(f"there is no section {number} of {values.shape[0]}")
        values = values[number]
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim > 3:
        raise ValueError(
            f"it has shape {values.shape}: name one section, as in 'velocity[0]'"
        )
    return values.T if transpose else values


def _ambiguous(name: str, shape: tuple[int, ...]) -> str:
    return (
        f"{name} has shape {shape}: give three spacings, (dz, dy, dx), if it is a volume, "
        f"or name one section, as in '{name}[0]', if it is a stack"
    )


def _own_spacing(
    stored: np.ndarray | None, ndim: int, indices: int, name: str, is_segy: bool
) -> np.ndarray:
    """The spacing that a file holds, of a section where indices chose one."""
    why = " (no even CDP coordinates)" if is_segy else ""
    if stored is not None:
        if is_segy and np.isnan(stored[0]):
            why = " (no clear sample interval)"
        elif indices and stored.size == ndim + indices:
            return stored[indices:]
        else:
            return stored  # `VelocityModel` refuses any other number of them
    steps = "(dz, dy, dx)" if ndim == 3 else "(dz, dx) or one number"
    raise ValueError(f"it holds no grid spacing for {name}{why}: give it in km, {steps}")


def _length_scale(own: str | None, spacing_unit: str | None, unit: str | None) -> float:
    """km in one unit of the file's lengths."""
    default = "m" if unit == "m/s" else "km"
    return _LENGTH_UNITS[own or spacing_unit or default]


def _check_agreement(given: np.ndarray, stored: np.ndarray, ndim: int) -> None:
    """Refuses a spacing that contradicts the headers of a SEG-Y file."""
    given = np.broadcast_to(given, ndim) if given.size == 1 else given
    if given.size != ndim:
        return  # `VelocityModel` refuses it
    # The sample interval's unit is a custom: thousandths of a metre, or metres.
    differs = np.abs(given / stored - 1) > _SAME_SPACING
    differs[0] &= abs(given[0] / (1000 * stored[0]) - 1) > _SAME_SPACING
    if np.any(differs):
        texts = (", ".join(f"{step:g}" for step in steps) for steps in (given, stored))
        raise ValueError("spacing is ({}) km, but the headers say ({}) km".format(*texts))


def _choose(
    contents: Mapping[str, np.ndarray], name: str | None, path: pathlib.Path
) -> str:
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
            f"{path} has no velocity model {name[:40]!r}; it holds {names.listed(models)}"
        )
    for default in _DEFAULT_NAMES:
        if default in contents:
            return default
    if len(models) == 1:
        return models[0]
    if models:
        raise ValueError(
            f"{path} holds several models; name one of {names.listed(models)}, "
            f"as in '{path.name}:{models[0][:40]}'"
        )
    raise ValueError(
        f"{path} holds no velocity model: no 2-D or 3-D array of real numbers "
        f"among {names.listed(contents)}"
    )


def _beside(
    contents: Mapping[str, np.ndarray], name: str
) -> tuple[dict[str, np.ndarray], str, bool]:
    """What lies beside an array, in its struct or group first; its name there."""
    prefix = name[: max(name.rfind("."), name.rfind("/")) + 1]
    arrays = dict(contents)
    if prefix:
        inside = {k[len(prefix) :]: v for k, v in contents.items() if k.startswith(prefix)}
        arrays |= inside
    short = name[len(prefix) :]
    return arrays, short, short in _DEFAULT_NAMES


def _stored_spacing(
    contents: Mapping[str, np.ndarray], name: str, transpose: bool
) -> np.ndarray | None:
    """In the order of the model's axes and the unit of the file."""
    for key in (f"{name}_spacing", "spacing"):
        if key in contents:
            steps = real_array(contents[key], key).ravel()
            return steps[::-1] if transpose else steps
    # An array of three axes without dy is a stack of sections.
    for steps in (("dz", "dy", "dx"), ("dz", "dx")):
        for prefix in (f"{name}_", ""):
            keys = [prefix + step for step in steps]
            if all(key in contents and contents[key].size == 1 for key in keys):
                return np.array([real_array(contents[k], k).item() for k in keys])
    return None


def _stored_origin(
    contents: Mapping[str, np.ndarray], name: str, scale: float
) -> np.ndarray | None:
    for key in (f"{name}_origin", "origin"):
        if key in contents:
            return real_array(contents[key], key) * scale
    return None


def _stored_case(
    contents: Mapping[str, np.ndarray],
    model: VelocityModel,
    length: float,
    speed: float,
    transpose: bool,
) -> Case:
    """The case, with lengths and velocities converted by these factors."""
    source = case_values.source_of(contents, length)
    if source is not None:
        if source.size == 0:
            raise ValueError(f"source holds no point, its shape is {source.shape}")
        model.check_contains(source)
    amplitude = None
    if "amplitude" in contents:
        value = contents["amplitude"]
        if value.size != 1 or value.dtype.kind not in "fiuc":
            raise ValueError(f"amplitude must be one number, got shape {value.shape}")
        amplitude = complex(value.item())
        if not np.isfinite(amplitude):
            raise ValueError(f"amplitude must be finite, got {amplitude}")
    return Case(
        model=model,
        frequency=case_values.positive(contents, "frequency", "Hz"),
        source=source,
        amplitude=amplitude,
        background_velocity=case_values.background_of(contents, model, source, speed),
        free_surface=case_values.surface_of(contents),
        scattered=case_values.scattered_of(contents, model, source, transpose),
    )
