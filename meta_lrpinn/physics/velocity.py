"""Velocity models on regular grids: the container and its interpolation.

Lengths are in km and velocities in km/s, depth z is positive down. A grid is
indexed (z, x) in 2D and (z, y, x) in 3D, and `spacing` follows the grid; points and
origins are in coordinate order, (x, z) or (x, y, z), always the exact reverse.
Outside its grid a model continues with its edge values.

Between nodes the squared slowness is multilinear, since it is what the Helmholtz equation
holds: a step between two nodes then scatters as one in the middle of their cell does, where
a multilinear velocity would put it at v_slow/(v_slow + v_fast) of the cell.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from meta_lrpinn.physics.grid_values import (
    GRID_AXES,
    axis_names,
    check_extent,
    checked_origin,
    checked_quality,
    checked_spacing,
    checked_velocity,
    is_traced,
    real_array,
)
from meta_lrpinn.runtime import host, programs
from meta_lrpinn.runtime.precision import Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False, init=False)
class VelocityModel:
    """Wave speed on a regular grid, a pytree whose leaves are velocity and quality.

    With a quality factor Q waves lose energy: the complex slowness at any one frequency
    is (1/v)(1 − i/2Q), which with e^{+iωt} damps a wave by e^{−ωx/2Qv} over a distance x
    (docs/theory.md).

    Values are checked when they are concrete; inside `jit`, `vmap` and `grad` only
    shapes are. Models stacked with `jax.tree.map` are meant for `jax.vmap`.

    Args:
        velocity: (nz, nx) or (nz, ny, nx) [km/s].
        spacing: Grid spacing in the order of the array's axes, (dz, dx) or
            (dz, dy, dx), or one number for all axes [km].
        origin: Coordinates of the first grid point, (x, z) or (x, y, z); zero by
            default [km].
        quality: Q, one number or an array of the velocity's shape, at least 1; None for
            a lossless model.

    Raises:
        ValueError: if the velocity is not a real, finite 2-D or 3-D array of 0.1 to
            100 km/s without masked values, or spacing, origin or quality do not fit it.
    """

    velocity: Any  # (nz, nx) or (nz, ny, nx) [km/s]
    spacing: tuple[float, ...]  # (ndim,) in array order [km]
    origin: tuple[float, ...]  # (ndim,) in coordinate order [km]
    quality: Any  # Q, of the velocity's shape, or None

    def __init__(
        self,
        velocity: Any,
        spacing: float | Sequence[float] | np.ndarray,
        origin: Sequence[float] | np.ndarray | None = None,
        quality: Any = None,
    ):
        velocity = checked_velocity(velocity)
        steps = checked_spacing(spacing, velocity.ndim)
        check_extent(velocity.shape, steps)
        start = checked_origin(origin, velocity.ndim)
        self._set(velocity, steps, start, checked_quality(quality, velocity))

    def _set(self, *values: Any) -> None:
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in np.shape(self.velocity))
        spacing = ", ".join(f"{d:g}" for d in dict.fromkeys(self.spacing))
        values = ""
        if isinstance(self.velocity, (np.ndarray, jax.Array)) and not is_traced(
            self.velocity
        ):
            values = f", {self.minimum:.3g} to {self.maximum:.3g} km/s"
            if self.quality is not None and not is_traced(self.quality):
                low, high = np.min(self.quality), np.max(self.quality)
                values += f", Q {low:.3g}" + (f" to {high:.3g}" if high > low else "")
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
    def minimum(self) -> float:
        """Smallest velocity [km/s]; traced where the velocity is."""
        return _extreme(np.min, self.velocity)

    @property
    def maximum(self) -> float:
        """Largest velocity [km/s]; traced where the velocity is."""
        return _extreme(np.max, self.velocity)

    @property
    def complex_velocity(self) -> Any:
        """v/(1 − i/2Q) on the grid [km/s], which waves see; real without a quality."""
        if self.quality is None:
            return self.velocity
        return self.velocity / (1 - 0.5j / self.quality)

    @property
    def squared_slowness(self) -> Any:
        """m = 1/v² on the grid [s²/km²], complex with a quality."""
        return 1 / self.complex_velocity**2

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

    def at(self, points: Array) -> jax.Array:
        """Velocity at points, that of the interpolated m; edge values outside.

        Differentiable in the velocity everywhere and in the points almost everywhere.

        Args:
            points: (..., ndim) coordinates (x, z) or (x, y, z) [km].

        Returns:
            (...,) [km/s].
        """
        return 1 / jnp.real(jnp.sqrt(self.squared_slowness_at(points)))

    def complex_velocity_at(self, points: Array) -> jax.Array:
        """v/(1 − i/2Q) at points, that of the interpolated m, (...,) [km/s]."""
        return 1 / jnp.sqrt(self.squared_slowness_at(points))

    def squared_slowness_at(self, points: Array) -> jax.Array:
        """m at points, multilinear between nodes; complex with Q, (...) [s²/km²]."""
        points = jnp.asarray(points)
        if points.ndim == 0 or points.shape[-1] != self.ndim:
            raise ValueError(
                f"points must have {self.ndim} coordinates {axis_names(self.ndim)} in "
                f"their last axis, got shape {points.shape}"
            )
        return _interpolate(self.squared_slowness, points, self.spacing, self.origin)

    def replace_velocity(self, velocity: Any) -> VelocityModel:
        """The same grid and quality with another velocity of the same shape [km/s]."""
        if np.shape(velocity) != self.shape:
            raise ValueError(
                f"velocity must have the shape of the model, {self.shape}, "
                f"got {np.shape(velocity)}"
            )
        return VelocityModel(velocity, self.spacing, self.origin, self.quality)

    def replace_quality(self, quality: Any) -> VelocityModel:
        """The same velocity with another quality, one number or an array, or none."""
        return VelocityModel(self.velocity, self.spacing, self.origin, quality)

    def check_contains(self, points: Any, what: str = "source") -> None:
        """Raises ValueError unless points lie in the model, edges included.

        Args:
            points: (ndim,) or (n, ndim) coordinates [km].
            what: What the points are called in the message.
        """
        points = real_array(points, what)
        if points.ndim not in (1, 2) or points.shape[-1] != self.ndim:
            raise ValueError(
                f"{what} must have {self.ndim} coordinates {axis_names(self.ndim)}, "
                f"got shape {points.shape}"
            )
        # Half a thousandth of a cell forgives float32 coordinates.
        slack = 5e-4 * np.array(self.spacing[::-1])
        lower, upper = self.lower, self.upper
        points = np.atleast_2d(points)
        is_inside = np.all((points >= lower - slack) & (points <= upper + slack), axis=-1)
        if is_inside.all():
            return
        values = ", ".join(map(str, _short(points[~is_inside][0])))
        extent = ", ".join(
            f"{name} {low} to {high} km"
            for name, low, high in zip(
                GRID_AXES[self.ndim][::-1], _short(lower), _short(upper), strict=True
            )
        )
        raise ValueError(f"{what} ({values}) lies outside the model, {extent}")

    def smoothed(self, length: float) -> VelocityModel:
        """The model with its slowness smoothed, which keeps travel times.

        Args:
            length: Standard deviation of the Gaussian, 0 to the size of the model [km].

        Raises:
            ValueError: if it is another.
        """
        if not (np.isfinite(length) and length >= 0):
            raise ValueError(f"smoothing length must be zero or more, got {length} km")
        if length == 0:
            return self
        longest = float(np.max(self.upper - self.lower))
        if length > longest:
            raise ValueError(
                f"smoothing length is {length:g} km, more than the model of {longest:g} "
                "km; is it in metres?"
            )
        slowness = scipy.ndimage.gaussian_filter(
            1.0 / host.in_double(self.complex_velocity),
            [length / step for step in self.spacing],
            mode="nearest",
        )
        return self._of_slowness(slowness, self.spacing)

    def window(
        self,
        x: tuple[float, float] | None = None,
        z: tuple[float, float] | None = None,
        *,
        y: tuple[float, float] | None = None,
    ) -> VelocityModel:
        """The part of the model between coordinates, which keep their values.

        Args:
            x: First and last x, both included [km]; everything when None.
            z: The same in depth.
            y: The same across, in 3D.

        Raises:
            ValueError: if fewer than two grid points are left on an axis.
        """
        if y is not None and self.ndim == 2:
            raise ValueError("a 2-D model has no y to window")
        limits = {"x": x, "y": y, "z": z}
        index, origin = [], []
        for name, axis, step in zip(
            GRID_AXES[self.ndim], self.axes(), self.spacing, strict=True
        ):
            first, last = limits[name] or (-np.inf, np.inf)
            slack = 1e-6 * step  # coordinates that were computed miss nodes by rounding
            kept = np.flatnonzero((axis >= first - slack) & (axis <= last + slack))
            if kept.size < 2:
                raise ValueError(
                    f"window {name} {first} to {last} km holds {kept.size} grid points "
                    f"of {_short(axis[:1])[0]} to {_short(axis[-1:])[0]} km: it needs 2"
                )
            index.append(slice(kept[0], kept[-1] + 1))
            origin.append(axis[kept[0]])
        part = tuple(index)
        quality = None if self.quality is None else self.quality[part]
        return VelocityModel(self.velocity[part], self.spacing, origin[::-1], quality)

    def resampled(self, spacing: float | Sequence[float]) -> VelocityModel:
        """The model interpolated (see `at`) on another grid with the same first point.

        The new grid ends at its last point inside the model. Smooth first when the new
        spacing is much the coarser.

        Args:
            spacing: New spacing, in the order of the array's axes, or one number [km].
        """
        spacing = checked_spacing(spacing, self.ndim)
        shape = []
        for name, count, old, new in zip(
            GRID_AXES[self.ndim], self.shape, self.spacing, spacing, strict=True
        ):
            extent = (count - 1) * old
            # Rounding must not cost the last node of a spacing that divides the extent.
            shape.append(int(np.floor(extent / new + 1e-6)) + 1)
            if shape[-1] < 2:
                raise ValueError(
                    f"spacing {new} km is larger than the model, {extent:g} km in {name}"
                )
        sizes = zip(shape, spacing, self.spacing, self.shape, strict=True)
        lines = (
            np.minimum(np.arange(n) * new / old, size - 1) for n, new, old, size in sizes
        )
        index = np.meshgrid(*lines, indexing="ij")
        squared = scipy.ndimage.map_coordinates(
            1 / host.in_double(self.complex_velocity) ** 2, index, order=1, mode="nearest"
        )
        return self._of_slowness(np.sqrt(squared), spacing)

    def _of_slowness(
        self, slowness: np.ndarray, spacing: tuple[float, ...]
    ) -> VelocityModel:
        """The model of a slowness, complex where this one has a quality [s/km]."""
        dtype = np.asarray(self.velocity).dtype
        quality = None
        if self.quality is not None:
            quality = -0.5 * np.real(slowness) / np.imag(slowness)
        velocity = (1.0 / np.real(slowness)).astype(dtype)
        return VelocityModel(velocity, spacing, self.origin, quality)


def _unflatten(static, children) -> VelocityModel:
    model = object.__new__(VelocityModel)
    velocity, quality = children
    model._set(velocity, *static, quality)
    return model


# Not a `flax.struct.PyTreeNode` as the other pytrees are: tracers, batches and
# placeholders have to get around the checks of `__init__`.
jax.tree_util.register_pytree_with_keys(
    VelocityModel,
    lambda model: (
        (
            (jax.tree_util.GetAttrKey("velocity"), model.velocity),
            (jax.tree_util.GetAttrKey("quality"), model.quality),
        ),
        (model.spacing, model.origin),
    ),
    _unflatten,
    lambda model: ((model.velocity, model.quality), (model.spacing, model.origin)),
)


@functools.partial(programs.jit_latest, static_argnames=("spacing", "origin"))
def _interpolate(
    values: jax.Array,
    points: jax.Array,
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
) -> jax.Array:
    """The sum over the corners of each point's cell, (...,), of the values' unit."""
    # Each axis contributes ((offset, weight) of its lower, of its upper node).
    nodes = []
    stride = 1
    for column, (count, step, start) in enumerate(
        zip(values.shape[::-1], spacing[::-1], origin, strict=True)
    ):
        position = (points[..., column] - start) / step
        position = jnp.clip(position, 0.0, count - 1.0)
        cell = jnp.clip(position.astype(jnp.int32), 0, count - 2)
        weight = position - cell.astype(position.dtype)
        offset = cell * stride
        nodes.append(((offset, 1.0 - weight), (offset + stride, weight)))
        stride *= count
    values = jnp.reshape(values, -1)
    terms = []
    for corner in itertools.product(*nodes):
        term = values.at[sum(offset for offset, _ in corner)].get(mode="clip")
        for _, weight in corner:
            term = term * weight
        terms.append(term)
    return functools.reduce(jnp.add, terms)


def _extreme(reduction: Callable[[Any], Any], velocity: Any) -> Any:
    value = reduction(velocity)  # of an array of JAX by its own method
    return value if is_traced(value) else float(value)


def _short(values: np.ndarray) -> list[float]:
    """Floats without the digits that only rounding put there."""
    return [round(float(value), 9) for value in values]


def fill_nearest(
    values: Any, spacing: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """Values with those masked, NaN or infinite replaced by their nearest neighbours.

    Args:
        values: (nz, nx) or (nz, ny, nx), masked or not.
        spacing: By which distances are measured; equal steps by default.

    Raises:
        ValueError: if they are not real numbers, or none is there to fill with.
    """
    data = real_array(np.ma.getdata(values), "velocity")
    missing = np.ma.getmaskarray(values) | ~np.isfinite(data)
    if not missing.any():
        return data
    if missing.all():
        raise ValueError("velocity has no value to fill the missing ones with")
    nearest = scipy.ndimage.distance_transform_edt(
        missing, sampling=spacing, return_distances=False, return_indices=True
    )
    return data[tuple(np.asarray(nearest))]


def transposition_hint(model: VelocityModel) -> str | None:
    """A line to show where depth seems to run along the last axis, else None.

    Velocity grows with depth in most rocks: the correlation with x should not exceed the
    one with z by far.
    """
    values = np.asarray(model.velocity, np.float64)
    if np.ptp(values) == 0:
        return None
    depth = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    vertical, horizontal = (
        np.corrcoef(np.broadcast_to(line, values.shape).ravel(), values.ravel())[0, 1]
        for line in (depth, np.arange(values.shape[-1]))
    )
    # On Marmousi, Overthrust, Red Sea, Hess and 180 random models: none is suspected, and
    # all but 19 are when transposed.
    if horizontal > 0.6 and abs(vertical) < 0.3:
        order = "(nx, nz)" if model.ndim == 2 else "(nx, ny, nz)"
        return f"velocity grows along x, not z: is the file {order}? Add transpose"
    return None
