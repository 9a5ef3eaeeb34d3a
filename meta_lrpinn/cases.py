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
import scipy.io

from meta_lrpinn import files
from meta_lrpinn.velocity import VelocityModel, real_array

SUFFIXES = (".npy", ".npz", ".mat", ".sgy", ".segy")

_UNITS = {"km/s": 1.0, "m/s": 1e-3}
_CASE_KEYS = ("frequency", "source", "amplitude", "v0", "scattered")
# Arrays of a file that are never velocities, even when they have two axes.
_NOT_MODELS = (*_CASE_KEYS, "spacing", "origin", "source_x", "source_y", "source_z")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A velocity model with what a file says about a problem posed on it."""

    model: VelocityModel
    frequency: float | None = None  # Hz
    source: np.ndarray | None = None  # (ndim,) or (n_sources, ndim), km
    amplitude: complex | None = None  # factor A of the background field
    background_velocity: float | None = None  # v0, km/s
    scattered: np.ndarray | None = None  # (nz, nx) or (n_sources, nz, nx), complex


def load_velocity(
    path: str | os.PathLike,
    name: str | None = None,
    spacing: float | Sequence[float] | None = None,
    *,
    unit: str = "km/s",
) -> VelocityModel:
    """Reads a velocity model from a .npy, .npz, .mat, .sgy or .segy file.

    Args:
        path: The file; "FILE:NAME" stands for a file and a name in it.
        name: Which array of an .npz or .mat file to read. By default `velocity` (or
            `vel`, `v`), else the only 2-D or 3-D array.
        spacing: Grid spacing, (dz, dx) or (dz, dy, dx) or one number [km]. Overrides
            the file's own, which is `NAME_spacing` or `spacing`; .npy and SEG-Y files
            have none.
        unit: "km/s", or "m/s" where everything in the file is in metres. The argument
            `spacing` is in km all the same.

    Returns:
        The model in km and km/s.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read as a velocity model.
    """
    return load_case(path, name, spacing, unit=unit).model


def load_case(
    path: str | os.PathLike,
    name: str | None = None,
    spacing: float | Sequence[float] | None = None,
    *,
    unit: str = "km/s",
) -> Case:
    """Reads a velocity model and the problem stored beside it, if there is one.

    Next to `velocity` and `spacing` an .npz or .mat file may hold `frequency` [Hz],
    `source` [km] (or `source_x` with `source_z`), `amplitude`, `v0` [km/s] and
    `scattered` on the model's grid, one per source.

    Args:
        path: As for `load_velocity`, like all arguments.
        name: Which array to read; one that is not the default has no problem beside it.
        spacing: Grid spacing [km].
        unit: "km/s" or "m/s".

    Returns:
        The case; what the file does not hold is None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or its parts do not fit together.
    """
    if unit not in _UNITS:
        raise ValueError(f"unit must be 'km/s' or 'm/s', got {unit!r}")
    path, name = _split_name(path, name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no velocity file {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot read {path}: velocity files end in {', '.join(SUFFIXES)}")
    contents = _read(path, suffix)
    name = _choose(contents, name, path)
    scale = _UNITS[unit]
    if spacing is None:
        spacing = _stored_spacing(contents, name, path) * scale
    velocity = real_array(contents[name], f"{path}: {name}")
    if unit == "m/s":
        velocity = velocity * velocity.dtype.type(scale)
    try:
        model = VelocityModel(velocity, spacing, _stored_origin(contents, name, scale))
        return _stored_case(contents, model, scale, name in _default_names())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def save_velocity(path: str | os.PathLike, model: VelocityModel) -> None:
    """Writes a model to an .npz file that `load_velocity` reads, all or nothing.

    Args:
        path: The file, ending in .npz; replaced if it exists.
        model: The model.
    """
    save_case(path, Case(model))


def save_case(path: str | os.PathLike, case: Case) -> None:
    """Writes a case to an .npz file that `load_case` reads, all or nothing.

    Args:
        path: The file, ending in .npz; replaced if it exists.
        case: The case; fields that are None are left out.
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
        "frequency": case.frequency,
        "source": case.source,
        "amplitude": case.amplitude,
        "v0": case.background_velocity,
        "scattered": case.scattered,
    }
    contents = {key: value for key, value in contents.items() if value is not None}
    files.write_together({path: lambda file: np.savez_compressed(file, **contents)})


def _split_name(
    path: str | os.PathLike, name: str | None
) -> tuple[pathlib.Path, str | None]:
    """Splits FILE:NAME, but never the name of a file that has a colon itself."""
    text = os.fspath(path)
    if name is None and not os.path.isfile(text) and ":" in text:
        head, _, tail = text.rpartition(":")
        if os.path.isfile(head) and tail:
            return pathlib.Path(head), tail
    return pathlib.Path(text), name


def _read(path: pathlib.Path, suffix: str) -> Mapping[str, np.ndarray]:
    """The arrays of a file by name; a file of one nameless array calls it velocity."""
    if suffix in (".sgy", ".segy"):
        return {"velocity": _read_segy(path)}
    try:
        if suffix == ".mat":
            return _read_matlab(path)
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"velocity": loaded}
            return {key: loaded[key] for key in loaded.files}
    except NotImplementedError:
        raise ValueError(
            f"cannot read {path}: it is a MATLAB 7.3 file; save it with -v7"
        ) from None
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error).splitlines() or [type(error).__name__]
        if "pickle" in reason[0]:
            reason = ["it is not a NumPy file of numbers"]
        raise ValueError(f"cannot read {path}: {reason[0]}") from None


def _read_matlab(path: pathlib.Path) -> dict[str, np.ndarray]:
    # MATLAB knows no scalars or vectors: (1, 1) and (1, n) stand for them.
    contents = scipy.io.loadmat(path)
    return {
        key: value.squeeze() if min(value.shape, default=0) == 1 else value
        for key, value in contents.items()
        if isinstance(value, np.ndarray) and not key.startswith("__")
    }


def _read_segy(path: pathlib.Path) -> np.ndarray:
    """Traces along x and samples along z, (nz, nx)."""
    try:
        import segyio
    except ImportError:
        raise ValueError(
            "reading SEG-Y needs segyio: pip install 'meta_lrpinn[segy]'"
        ) from None
    try:
        with segyio.open(str(path), ignore_geometry=True) as file:
            return np.array(file.trace.raw[:]).T
    except Exception as error:  # Readers raise nearly anything.
        reason = str(error).splitlines() or [type(error).__name__]
        if "pickle" in reason[0]:
            reason = ["it is not a NumPy file of numbers"]
        raise ValueError(f"cannot read {path}: {reason[0]}") from None


def _default_names() -> tuple[str, ...]:
    return ("velocity", "vel", "v")


def _choose(
    contents: Mapping[str, np.ndarray], name: str | None, path: pathlib.Path
) -> str:
    """The name of the array to read."""
    models = [
        key
        for key, value in contents.items()
        if value.ndim in (2, 3)
        and value.dtype.kind in "fiu"
        and key not in _NOT_MODELS
        and not key.endswith("_spacing")
    ]
    if name is not None:
        if name in contents and name not in _NOT_MODELS:
            return name
        raise ValueError(
            f"{path} has no velocity model {name!r}; it holds {_listed(models)}"
        )
    for default in _default_names():
        if default in contents:
            return default
    if len(models) == 1:
        return models[0]
    if models:
        raise ValueError(
            f"{path} holds several models; name one of {_listed(models)}, "
            f"as in '{path.name}:{models[0]}'"
        )
    raise ValueError(
        f"{path} holds no velocity model: no 2-D or 3-D array of real numbers "
        f"among {_listed(contents)}"
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _stored_spacing(
    contents: Mapping[str, np.ndarray], name: str, path: pathlib.Path
) -> np.ndarray:
    for key in (f"{name}_spacing", "spacing"):
        if key in contents:
            return real_array(contents[key], f"{path}: {key}")
    steps = ("dz", "dy", "dx") if contents[name].ndim == 3 else ("dz", "dx")
    if all(key in contents and contents[key].size == 1 for key in steps):
        return np.array([float(contents[key].item()) for key in steps])
    raise ValueError(
        f"{path} holds no grid spacing for {name}: give it in km, "
        f"({', '.join(steps)}) or one number"
    )


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
    scale: float,
    is_default: bool,
) -> Case:
    if not is_default:
        return Case(model)
    source = _stored_source(contents, scale)
    if source is not None:
        model.check_contains(source)
    amplitude = None
    if "amplitude" in contents:
        value = np.asarray(contents["amplitude"])
        if value.size != 1 or value.dtype.kind not in "fiuc":
            raise ValueError(f"amplitude must be one number, got shape {value.shape}")
        amplitude = complex(value.item())
        if not np.isfinite(amplitude):
            raise ValueError(f"amplitude must be finite, got {amplitude}")
    return Case(
        model=model,
        frequency=_stored_positive(contents, "frequency", "Hz"),
        source=source,
        amplitude=amplitude,
        background_velocity=_stored_positive(contents, "v0", "km/s", scale),
        scattered=_stored_scattered(contents, model, source),
    )


def _stored_positive(
    contents: Mapping[str, np.ndarray], key: str, unit: str, scale: float = 1.0
) -> float | None:
    if key not in contents:
        return None
    value = real_array(contents[key], key)
    if value.size != 1:
        raise ValueError(f"{key} must be one number, got shape {value.shape}")
    number = float(value.item()) * scale
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{key} must be positive, got {number} {unit}")
    return number


def _stored_source(contents: Mapping[str, np.ndarray], scale: float) -> np.ndarray | None:
    """(ndim,) or (n_sources, ndim)."""
    if "source" in contents:
        source = real_array(contents["source"], "source")
    elif "source_x" in contents:
        if "source_z" not in contents:
            raise ValueError("source_x needs source_z beside it")
        columns = [
            real_array(contents[key], key)
            for key in ("source_x", "source_y", "source_z")
            if key in contents
        ]
        try:
            source = np.stack(np.broadcast_arrays(*columns), axis=-1)
        except ValueError:
            raise ValueError(
                "source_x and source_z must be of one length, or one of them a number"
            ) from None
    else:
        return None
    return source.astype(np.float64) * scale


def _stored_scattered(
    contents: Mapping[str, np.ndarray],
    model: VelocityModel,
    source: np.ndarray | None,
) -> np.ndarray | None:
    """The field on the model's grid, with a leading axis where the source has one."""
    if "scattered" not in contents:
        return None
    field = np.asarray(contents["scattered"])
    if field.dtype.kind not in "fc":
        raise ValueError("scattered must be an array of complex numbers")
    leading = field.shape[:1] if field.ndim > model.ndim else ()
    if source is not None:
        leading = source.shape[:-1]
    expected = leading + model.shape
    alone = (1,) + model.shape
    if field.shape != expected and {field.shape, expected} != {alone, model.shape}:
        raise ValueError(
            f"scattered must have shape {expected} to fit the model and its sources, "
            f"got {field.shape}"
        )
    if not np.all(np.isfinite(field)):
        raise ValueError("scattered must be finite")
    field = field.reshape(expected)
    return field if np.iscomplexobj(field) else field.astype(np.complex64)
