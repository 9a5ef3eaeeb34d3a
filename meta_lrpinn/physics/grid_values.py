"""What the values of a model on a grid may be: arrays, spacing, origin and extent.

Functions that check give the values in their form, or raise ValueError in one line.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

GRID_AXES = {2: ("z", "x"), 3: ("z", "y", "x")}
# Velocities beyond these, in km/s, belong to other units: a guard, far from any rock.
FASTEST = 100.0
SLOWEST = 0.1
# Below Q = 1 a wave dies within a wavelength; a smaller number is more likely 1/Q.
LEAST_QUALITY = 1.0
# From a micrometre to twice around the Earth, in km: other extents are in other units.
_SHORTEST_SIDE = 1e-9
_LONGEST_SIDE = 1e5


def real_array(values: Any, what: str) -> np.ndarray:
    """Anything that NumPy makes an array of, as a floating-point array.

    Args:
        values: Real numbers, none of them masked.
        what: What they are called in the message.
    """
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} has {np.ma.count_masked(values)} masked values: fill them first, "
            "as velocity.fill_nearest does"
        )
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be an array of real numbers") from None
    return array if array.dtype in (np.float32, np.float64) else array.astype(float)


def is_traced(array: Any) -> bool:
    """Whether an array has no values, inside `jit`, `vmap` or `grad`."""
    return isinstance(array, Tracer)


def axis_names(ndim: int) -> str:
    """Names of the coordinates, (x, z) or (x, y, z)."""
    return f"({', '.join(GRID_AXES[ndim][::-1])})"


def checked_velocity(velocity: Any) -> Any:
    """A velocity (nz, nx) or (nz, ny, nx) [km/s], as an array of floats.

    It is real, finite, of two or three axes, and of 0.1 to 100 km/s.
    """
    if not is_traced(velocity):
        array = real_array(velocity, "velocity")
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
    # Inside a transformation there are no values to look at, only shapes.
    if is_traced(velocity):
        return velocity
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(
            f"velocity must be finite, got {bad} NaN or infinite values of {array.size} "
            "(load_velocity fills them with fill='nearest')"
        )
    smallest, largest = float(array.min()), float(array.max())
    if smallest <= 0:
        raise ValueError(f"velocity must be positive, got {smallest:g} km/s")
    if largest > FASTEST:
        raise ValueError(
            f"velocity must be in km/s, but its largest value is {largest:g}: that looks "
            "like m/s or ft/s; say so with unit='m/s' or 'ft/s' where a file is read"
        )
    if smallest < SLOWEST:
        raise ValueError(
            f"velocity must be at least {SLOWEST} km/s, got {smallest:g}: is it slowness "
            "(s/km), slowness squared (s²/km²) or in another unit?"
        )
    return velocity


def checked_quality(quality: Any, velocity: Any) -> Any:
    """A quality factor Q on the grid of a checked velocity, finite and at least 1.

    It may be one number, or an array of the velocity's shape; None is for none.
    """
    if quality is None:
        return None
    if is_traced(quality):
        values = quality
    else:
        array = real_array(quality, "quality")
        smallest = float(np.min(array, initial=np.inf))
        if not (np.all(np.isfinite(array)) and smallest > 0):
            raise ValueError(
                "quality must be positive and finite (None for a lossless model), got "
                f"{array[~(np.isfinite(array) & (array > 0))].flat[0]:g}"
            )
        if smallest < LEAST_QUALITY:
            raise ValueError(
                f"quality must be at least {LEAST_QUALITY:g}, got {smallest:g}: is it 1/Q?"
            )
        values = quality if isinstance(quality, jax.Array) else array
    if values.shape not in ((), velocity.shape):
        raise ValueError(
            f"quality must be one number or have the shape of the velocity, "
            f"{velocity.shape}, got {values.shape}"
        )
    if values.shape == () and not is_traced(values):
        return np.full(velocity.shape, float(values))
    # Of one shape with the velocity, so that models can be stacked and interpolated alike.
    return jnp.broadcast_to(values, velocity.shape) if is_traced(values) else values


def checked_spacing(spacing: Any, ndim: int) -> tuple[float, ...]:
    """Positive finite steps in array order (ndim,) [km], from as many numbers or one."""
    steps = real_array(spacing, "spacing").ravel()
    if steps.size == 1:  # one number stands for all axes
        steps = np.repeat(steps, ndim)
    if steps.size != ndim:
        order = ", ".join(f"d{name}" for name in GRID_AXES[ndim])
        raise ValueError(
            f"spacing must be one number or {ndim}, ({order}), got {steps.size}"
        )
    for step in steps:
        if not (np.isfinite(step) and step > 0):
            raise ValueError(f"spacing must be positive, got {step:g} km")
    return tuple(float(step) for step in steps)


def check_extent(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Refuses a grid with a side shorter than a micrometre, or longer than 100,000 km."""
    for name, count, step in zip(GRID_AXES[len(shape)], shape, spacing, strict=True):
        extent = (count - 1) * step
        if extent > _LONGEST_SIDE:
            raise ValueError(
                f"the model is {extent:g} km long in {name}: is the spacing in metres?"
            )
        if extent < _SHORTEST_SIDE:
            raise ValueError(f"the model is only {extent:g} km long in {name}")


def checked_origin(origin: Any, ndim: int) -> tuple[float, ...]:
    """The first point, finite, in coordinate order (ndim,) [km]; zeros for None."""
    if origin is None:
        return (0.0,) * ndim
    start = real_array(origin, "origin").ravel()
    if start.size != ndim or not np.all(np.isfinite(start)):
        raise ValueError(
            f"origin must be {ndim} finite coordinates {axis_names(ndim)}, "
            f"got {', '.join(f'{value:g}' for value in start[:4])}"
        )
    return tuple(float(value) for value in start)
