"""Velocity models on regular grids: the container, interpolation, and files.

Lengths are in km and velocities in km/s, depth z is positive down. A grid is
indexed (z, x) in 2D and (z, y, x) in 3D, and `spacing` follows the grid; points and
origins are in coordinate order, (x, z) or (x, y, z), always the exact reverse.
Outside its grid a model continues with its edge values.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
import scipy.ndimage

SUFFIXES = (".npy", ".npz", ".mat", ".sgy", ".segy")

_GRID_AXES = {2: ("z", "x"), 3: ("z", "y", "x")}
_UNITS = {"km/s": 1.0, "m/s": 1e-3}
_CASE_KEYS = ("frequency", "source", "amplitude", "v0", "scattered")
# Arrays of a file that are never velocities, even when they have two axes.
_NOT_MODELS = (*_CASE_KEYS, "spacing", "origin", "source_x", "source_y", "source_z")
# Beyond this median, in km/s, a model can only be in m/s.
_LARGEST_MEDIAN = 100.0


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class VelocityModel:
    """Wave speed on a regular grid, a pytree whose only leaf is the velocity.

    Values are checked when the velocity is concrete; inside `jit`, `vmap` and `grad`
    only shapes are. Models stacked with `jax.tree.map` are meant for `jax.vmap`.

    Args:
        velocity: (nz, nx) or (nz, ny, nx) [km/s].
        spacing: Grid spacing in the order of the array's axes, (dz, dx) or
            (dz, dy, dx), or one number for all axes [km].
        origin: Coordinates of the first grid point, (x, z) or (x, y, z); zero by
            default [km].

    Raises:
        ValueError: If the velocity is not a real, finite, positive 2-D or 3-D array
            in km/s, or the spacing or origin do not fit it.
    """

    velocity: Any  # (nz, nx) or (nz, ny, nx), km/s
    spacing: tuple[float, ...]  # (ndim,) in array order, km
    origin: tuple[float, ...] | None = None  # (ndim,) in coordinate order, km

    def __post_init__(self):
        velocity = _checked_velocity(self.velocity)
        spacing = _checked_spacing(self.spacing, velocity.ndim)
        origin = _checked_origin(self.origin, velocity.ndim)
        object.__setattr__(self, "velocity", velocity)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "origin", origin)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in np.shape(self.velocity))
        spacing = ", ".join(f"{d:g}" for d in dict.fromkeys(self.spacing))
        values = ""
        if isinstance(self.velocity, (np.ndarray, jax.Array)) and not _is_traced(
            self.velocity
        ):
            values = f", {self.minimum:.3g} to {self.maximum:.3g} km/s"
        return f"VelocityModel({shape}, spacing {spacing} km{values})"

    @property
    def ndim(self) -> int:
        """Number of space dimensions, 2 or 3."""
        return len(self.spacing)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid, (nz, nx) or (nz, ny, nx)."""
        return tuple(self.velocity.shape[-self.ndim :])

    @property
    def lower(self) -> np.ndarray:
        """First corner of the model in coordinate order, (ndim,) [km]."""
        return np.array(self.origin)

    @property
    def upper(self) -> np.ndarray:
        """Last corner of the model in coordinate order, (ndim,) [km]."""
        cells = np.array(self.shape[::-1]) - 1
        return self.lower + cells * np.array(self.spacing[::-1])

    @property
    def minimum(self) -> float | jax.Array:
        """Smallest velocity [km/s]; a float when the velocity is concrete."""
        if _is_traced(self.velocity):
            return jnp.min(self.velocity)
        return float(np.min(self.velocity))

    @property
    def maximum(self) -> float | jax.Array:
        """Largest velocity [km/s]; a float when the velocity is concrete."""
        if _is_traced(self.velocity):
            return jnp.max(self.velocity)
        return float(np.max(self.velocity))

    def axes(self) -> tuple[np.ndarray, ...]:
        """Grid coordinates along each array axis: (z, x) or (z, y, x) [km]."""
        return tuple(
            start + step * np.arange(count)
            for start, step, count in zip(
                self.origin[::-1], self.spacing, self.shape, strict=True
            )
        )

    def grid_points(self) -> np.ndarray:
        """Coordinates of all grid points, (size, ndim), in C order of the grid [km]."""
        axes = np.meshgrid(*self.axes(), indexing="ij")
        return np.stack([axis.ravel() for axis in axes[::-1]], axis=-1)

    def at(self, points: jax.Array) -> jax.Array:
        """Velocity at points, multilinear between grid points, edge values outside.

        Differentiable in the velocity everywhere and in the points almost everywhere.

        Args:
            points: (..., ndim) coordinates (x, z) or (x, y, z) [km].

        Returns:
            (...,) velocities [km/s].
        """
        points = jnp.asarray(points)
        if points.ndim == 0 or points.shape[-1] != self.ndim:
            raise ValueError(
                f"points must have {self.ndim} coordinates {_names(self.ndim)} in "
                f"their last axis, got shape {points.shape}"
            )
        return _interpolate(self, points)

    def replace_velocity(self, velocity: Any) -> VelocityModel:
        """The same grid with another velocity of the same shape [km/s]."""
        if np.shape(velocity) != self.shape:
            raise ValueError(
                f"velocity must have the shape of the model, {self.shape}, "
                f"got {np.shape(velocity)}"
            )
        return VelocityModel(velocity, self.spacing, self.origin)

    def check_contains(self, points: Any, what: str = "source") -> None:
        """Raises unless every point lies in the model, edges included.

        Args:
            points: (ndim,) or (n, ndim) coordinates [km].
            what: What the points are called in the message.

        Raises:
            ValueError: If a point lies outside or has the wrong number of coordinates.
        """
        points = _real_array(points, what)
        if points.ndim not in (1, 2) or points.shape[-1] != self.ndim:
            raise ValueError(
                f"{what} must have {self.ndim} coordinates {_names(self.ndim)}, "
                f"got shape {points.shape}"
            )
        # Half a thousandth of a cell forgives float32 coordinates.
        slack = 5e-4 * np.array(self.spacing[::-1])
        lower, upper = self.lower, self.upper
        for point in np.atleast_2d(points):
            if not np.all((point >= lower - slack) & (point <= upper + slack)):
                values = ", ".join(f"{value!s}" for value in _short(point))
                extent = ", ".join(
                    f"{name} {low} to {high} km"
                    for name, low, high in zip(
                        _GRID_AXES[self.ndim][::-1],
                        _short(lower),
                        _short(upper),
                        strict=True,
                    )
                )
                raise ValueError(f"{what} ({values}) lies outside the model, {extent}")

    def smoothed(self, length: float) -> VelocityModel:
        """The model with its slowness smoothed, which keeps travel times.

        Args:
            length: Standard deviation of the Gaussian [km]; zero changes nothing.
        """
        if not (np.isfinite(length) and length >= 0):
            raise ValueError(f"smoothing length must be zero or more, got {length} km")
        if length == 0:
            return self
        velocity = np.asarray(self.velocity)
        slowness = scipy.ndimage.gaussian_filter(
            1.0 / velocity.astype(np.float64),
            [length / step for step in self.spacing],
            mode="nearest",
        )
        return self.replace_velocity((1.0 / slowness).astype(velocity.dtype))

    def window(
        self,
        x: tuple[float, float] | None = None,
        z: tuple[float, float] | None = None,
        *,
        y: tuple[float, float] | None = None,
    ) -> VelocityModel:
        """The part of the model between coordinates, which keep their values.

        Args:
            x: First and last x [km]; everything when None. Grid points between them,
                both included, are kept.
            z: The same in depth.
            y: The same across, in 3D.

        Raises:
            ValueError: If fewer than two grid points are left on an axis.
        """
        if y is not None and self.ndim == 2:
            raise ValueError("a 2-D model has no y to window")
        limits = {"x": x, "y": y, "z": z}
        index, origin = [], []
        for name, axis, step in zip(
            _GRID_AXES[self.ndim], self.axes(), self.spacing, strict=True
        ):
            first, last = limits[name] or (-np.inf, np.inf)
            slack = 1e-6 * step
            kept = np.flatnonzero((axis >= first - slack) & (axis <= last + slack))
            if kept.size < 2:
                raise ValueError(
                    f"window {name} {first} to {last} km holds {kept.size} grid points "
                    f"of {_short(axis[:1])[0]} to {_short(axis[-1:])[0]} km: it needs 2"
                )
            index.append(slice(kept[0], kept[-1] + 1))
            origin.append(axis[kept[0]])
        return VelocityModel(self.velocity[tuple(index)], self.spacing, origin[::-1])

    def resampled(self, spacing: float | Sequence[float]) -> VelocityModel:
        """The model interpolated on another grid with the same first point.

        The new grid ends at its last point inside the model. Smooth first when the new
        spacing is much the coarser.

        Args:
            spacing: New spacing, in the order of the array's axes, or one number [km].
        """
        spacing = _checked_spacing(spacing, self.ndim)
        shape = []
        for name, count, old, new in zip(
            _GRID_AXES[self.ndim], self.shape, self.spacing, spacing, strict=True
        ):
            extent = (count - 1) * old
            shape.append(int(np.floor(extent / new + 1e-6)) + 1)
            if shape[-1] < 2:
                raise ValueError(
                    f"spacing {new} km is larger than the model, {extent:g} km in {name}"
                )
        velocity = np.asarray(self.velocity)
        index = np.meshgrid(
            *(
                np.minimum(np.arange(n) * new / old, count - 1)
                for n, new, old, count in zip(
                    shape, spacing, self.spacing, self.shape, strict=True
                )
            ),
            indexing="ij",
        )
        values = scipy.ndimage.map_coordinates(
            velocity.astype(np.float64), index, order=1, mode="nearest"
        )
        return VelocityModel(values.astype(velocity.dtype), spacing, self.origin)


def _unflatten(static, children) -> VelocityModel:
    # Tracers, batches and placeholders pass through here: nothing may be checked.
    model = object.__new__(VelocityModel)
    object.__setattr__(model, "velocity", children[0])
    object.__setattr__(model, "spacing", static[0])
    object.__setattr__(model, "origin", static[1])
    return model


jax.tree_util.register_pytree_with_keys(
    VelocityModel,
    lambda model: (
        ((jax.tree_util.GetAttrKey("velocity"), model.velocity),),
        (model.spacing, model.origin),
    ),
    _unflatten,
    lambda model: ((model.velocity,), (model.spacing, model.origin)),
)


@jax.jit
def _interpolate(model: VelocityModel, points: jax.Array) -> jax.Array:
    """The sum over the corners of each point's cell, (...,) [km/s]."""
    # Each axis contributes ((offset, weight) of its lower, of its upper node).
    nodes = []
    stride = 1
    for column, (count, step, start) in enumerate(
        zip(model.shape[::-1], model.spacing[::-1], model.origin, strict=True)
    ):
        position = (points[..., column] - start) / step
        position = jnp.clip(position, 0.0, count - 1.0)
        cell = jnp.clip(position.astype(jnp.int32), 0, count - 2)
        weight = position - cell.astype(position.dtype)
        offset = cell * stride
        nodes.append(((offset, 1.0 - weight), (offset + stride, weight)))
        stride *= count
    values = jnp.reshape(model.velocity, -1)
    total = 0.0
    for corner in itertools.product(*nodes):
        term = values.at[sum(offset for offset, _ in corner)].get(mode="clip")
        for _, weight in corner:
            term = term * weight
        total = total + term
    return total


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
    velocity = _real_array(contents[name], f"{path}: {name}")
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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **contents)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _is_traced(array: Any) -> bool:
    return isinstance(array, jax.core.Tracer)


def _names(ndim: int) -> str:
    return f"({', '.join(_GRID_AXES[ndim][::-1])})"


def _short(values: np.ndarray) -> list[float]:
    """Floats without the digits that only rounding put there."""
    return [round(float(value), 9) for value in values]


def _real_array(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be an array of real numbers") from None
    return array if array.dtype in (np.float32, np.float64) else array.astype(float)


def _checked_velocity(velocity: Any) -> Any:
    if not _is_traced(velocity):
        array = _real_array(velocity, "velocity")
        if not isinstance(velocity, jax.Array):
            velocity = array
    if velocity.ndim not in (2, 3):
        raise ValueError(
            "velocity must be a 2-D (nz, nx) or 3-D (nz, ny, nx) array, "
            f"got shape {velocity.shape}"
        )
    if min(velocity.shape) < 2:
        raise ValueError(
            f"velocity needs at least 2 points per axis, got shape {velocity.shape}"
        )
    if _is_traced(velocity):
        return velocity
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(
            f"velocity must be finite, got {bad} NaN or infinite values of {array.size}"
        )
    if array.min() <= 0:
        raise ValueError(f"velocity must be positive, got {array.min():g} km/s")
    median = np.median(array)
    if median > _LARGEST_MEDIAN:
        raise ValueError(
            f"velocity must be in km/s, but its median is {median:g}: that looks like "
            "m/s; divide by 1000 (or read the file with unit='m/s')"
        )
    return velocity


def _checked_spacing(spacing: Any, ndim: int) -> tuple[float, ...]:
    steps = _real_array(spacing, "spacing").ravel()
    if steps.size == 1:
        steps = np.repeat(steps, ndim)
    if steps.size != ndim:
        order = ", ".join(f"d{name}" for name in _GRID_AXES[ndim])
        raise ValueError(
            f"spacing must be one number or {ndim}, ({order}), got {steps.size}"
        )
    for step in steps:
        if not (np.isfinite(step) and step > 0):
            raise ValueError(f"spacing must be positive, got {step:g} km")
    return tuple(float(step) for step in steps)


def _checked_origin(origin: Any, ndim: int) -> tuple[float, ...]:
    if origin is None:
        return (0.0,) * ndim
    start = _real_array(origin, "origin").ravel()
    if start.size != ndim or not np.all(np.isfinite(start)):
        raise ValueError(
            f"origin must be {ndim} finite coordinates {_names(ndim)}, got {origin}"
        )
    return tuple(float(value) for value in start)


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
            return _real_array(contents[key], f"{path}: {key}")
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
            return _real_array(contents[key], key) * scale
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
    value = _real_array(contents[key], key)
    if value.size != 1:
        raise ValueError(f"{key} must be one number, got shape {value.shape}")
    number = float(value.item()) * scale
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{key} must be positive, got {number} {unit}")
    return number


def _stored_source(contents: Mapping[str, np.ndarray], scale: float) -> np.ndarray | None:
    """(ndim,) or (n_sources, ndim)."""
    if "source" in contents:
        source = _real_array(contents["source"], "source")
    elif "source_x" in contents:
        if "source_z" not in contents:
            raise ValueError("source_x needs source_z beside it")
        columns = [
            _real_array(contents[key], key)
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
