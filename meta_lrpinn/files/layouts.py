"""From an array as a file stores it to velocities on a grid, for every format alike.

A reader gives arrays by name, with the names of their dimensions (`readers.Contents`).
Here is decided which axis is depth, which way it runs, what the grid is in km, and what
the numbers are in km/s. What contradicts itself is refused; what had to be turned or
converted is noted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_lrpinn.files import units
from meta_lrpinn.files.axes import Axis, Orientation, named_roles, orient, spacing_key
from meta_lrpinn.files.readers.contents import Contents
from meta_lrpinn.files.units import LENGTHS, VELOCITIES
from meta_lrpinn.physics.grid_values import FASTEST, real_array
from meta_lrpinn.physics.velocity import fill_nearest

# Headers are rounded: what says the same may differ by this much.
_SAME_SPACING = 0.01
# Where nothing says the unit of lengths, cells of a kilometre and more, on which nobody
# computes waves, are in metres or feet, and those below a decimetre in kilometres.
_LARGEST_CELL, _SMALLEST_CELL = 1.0, 1e-4  # km
# All slower than this is soil, or slowness: few rocks are, and 1/v of them is.
_LIKE_SLOWNESS = 1.0  # km/s
# Rock is no faster, 8.5 km/s in the uppermost mantle; feet taken for metres often are.
_FASTEST_ROCK = 8.5  # km/s


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the user says about a file; the arguments of `load_velocity`."""

    spacing: Any = None
    unit: str | None = None
    spacing_unit: str | None = None
    transpose: bool = False
    fill: str | None = None
    shape: Sequence[int] | None = None
    dtype: str = "float32"
    order: str = "C"

    def __post_init__(self):
        if self.unit is not None:
            unit = units.named(self.unit, VELOCITIES, "unit")
            object.__setattr__(self, "unit", unit)
        if self.spacing_unit is not None:
            unit = units.named(self.spacing_unit, LENGTHS, "spacing_unit")
            object.__setattr__(self, "spacing_unit", unit)
        for what, choices in (("fill", ("nearest", None)), ("transpose", (True, False))):
            if (value := getattr(self, what)) not in choices:
                expected = " or ".join(map(repr, choices))
                raise ValueError(f"{what} must be {expected}, got {value!r:.40}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array of a file becomes velocities on a grid of depth, y and x."""

    order: tuple[int, ...]  # of the file's axes: of a stack, z, y, x
    stack: tuple[int, ...]  # sizes of the axes that are none of space
    flipped: tuple[int, ...]  # of z, y, x, counted from the last, as -1
    spacing: tuple[float, ...]  # (ndim,) in the order z, y, x [km]
    origin: tuple[float, ...]  # (ndim,) in coordinate order [km]
    unit: str = "km/s"  # of the numbers, once they are unpacked
    is_unit_known: bool = True
    length_unit: str = "km"  # of lengths in the file that say nothing else
    is_up: bool = False  # whether z counts heights in the file
    is_order_custom: bool = False  # whether nothing but custom says which axis is depth
    doubt: str = ""  # why its lengths may be in another unit than was assumed
    packing: units.Packing = units.Packing()
    fill: str | None = None
    notes: tuple[str, ...] = ()  # what was turned, unpacked or converted

    @property
    def ndim(self) -> int:
        """Space dimensions."""
        return len(self.spacing)

    def velocities(self, stored: np.ndarray) -> np.ndarray:
        """Numbers of the file as velocities, (..., nz, nx) or (..., nz, ny, nx) [km/s].

        Args:
            stored: The array, or some of its stack where that is its first axis.

        Raises:
            ValueError: if they look like slowness, or cells like metres, and nothing says
                what they are.
        """
        values = self.packing.unpacked(self.turned(stored))
        values = units.to_velocity(values, self.unit)
        if self.fill == "nearest" and not np.all(np.isfinite(values)):
            parts = values.reshape(-1, *values.shape[-self.ndim :])
            parts = [fill_nearest(part, self.spacing) for part in parts]
            values = np.reshape(parts, values.shape)
        largest = np.max(values, where=np.isfinite(values), initial=-math.inf)
        if not self.is_unit_known and 0 < largest < _LIKE_SLOWNESS:
            raise ValueError(
                f"velocity is at most {largest:.3g}: is it slowness (unit='s/km') or "
                "slowness squared (unit='s2/km2')? If it is velocity, say unit='km/s'"
            )
        if self.doubt and largest <= FASTEST:  # what is faster is refused by the model
            raise ValueError(self.doubt)
        return values

    def turned(self, stored: np.ndarray) -> np.ndarray:
        """The array with depth first of its axes in space, and all of them increasing."""
        return np.flip(np.transpose(stored, self.order), self.flipped)

    def beside(self, contents: Contents, key: str) -> np.ndarray:
        """Another array on the same grid, whose own leading axes stay in front.

        Its axes of space, (..., *space), are in the file's order or in that of its labels.
        """
        stored = np.asarray(contents.arrays[key][...])
        leading = stored.ndim - self.ndim
        if leading < 0:
            return stored
        order = np.argsort(np.argsort(self.order[len(self.stack) :])) + leading
        if roles := named_roles(contents.dimensions.get(key, ())):
            order = [roles.index(role) for role in "zyx" if role in roles]
        others = (axis for axis in range(stored.ndim) if axis not in order)
        return np.flip(np.transpose(stored, (*others, *order)), self.flipped)

    def hint(self, values: np.ndarray) -> str | None:
        """A question about velocities that no rock has, where a unit was only given."""
        largest = float(np.max(values, initial=0.0))
        if self.unit == "m/s" and largest > _FASTEST_ROCK:
            return f"velocity is up to {largest:.3g} km/s: is the file in ft/s?"
        return None


def lay_out(contents: Contents, name: str, reading: Reading, indices: int = 0) -> Layout:
    """Where the numbers of an array belong, and what they are.

    The user says what is in `reading`, and gives so many indices of a stack.

    Raises:
        ValueError: if the file does not say enough, or contradicts itself or the user.
    """
    unit = _velocity_unit(contents, name, reading)
    keys = ("length_unit", "length_units", "spacing_unit", "spacing_units")
    what = "its unit of length"
    stored_unit = units.unit_beside(contents, name, LENGTHS, what, keys, of_file=True)
    beside = units.BESIDE.get(unit or "", "km")
    default = stored_unit or reading.spacing_unit or beside
    has_spacing = reading.spacing is not None
    orientation = orient(
        contents, name, default, indices, reading.transpose, reading.spacing
    )
    of_axes = {axis.unit for axis in orientation.axes if axis.unit}
    used = of_axes | ({stored_unit} if stored_unit else set())
    _check_units(reading, used)
    notes = list(orientation.notes)
    stored = _stored_spacing(orientation, has_spacing)
    spacing = _spacing(orientation, stored, reading)
    if has_spacing and stored is not None and not _agree(spacing, stored):
        notes.append(f"spacing as given, not the file's {_listed(stored)} km")
    doubt = ""
    if reading.spacing_unit is None and (has_spacing or not used):
        doubt = _doubt_of_cells(spacing, "km" if has_spacing else default)
    converted = sorted((of_axes or {default}) - {"km"})
    if converted and not has_spacing:
        notes.append(f"lengths from {', '.join(converted)}")
    if unit not in (None, "km/s"):
        notes.append(f"velocity from {unit}")
    packing = units.packing(contents, name)
    if packing.scale != 1 or packing.offset != 0:
        notes.append(f"unpacked (scale {packing.scale:g}, offset {packing.offset:g})")
    shape, ndim = contents.arrays[name].shape, len(orientation.axes)
    return Layout(
        order=orientation.order,
        stack=tuple(shape[axis] for axis in orientation.order[: len(shape) - ndim]),
        flipped=orientation.flipped,
        spacing=tuple(spacing.tolist()),
        origin=_origin(orientation, spacing),
        unit=unit or "km/s",
        is_unit_known=unit is not None,
        length_unit=default,
        is_up=orientation.axes[0].is_up,
        is_order_custom=orientation.is_custom,
        doubt=doubt,
        packing=packing,
        fill=reading.fill,
        notes=tuple(notes),
    )


def _doubt_of_cells(spacing: np.ndarray, assumed: str) -> str:
    """What to say of cells that are too large, or too small for a unit that is not km."""
    if max(spacing) >= _LARGEST_CELL:
        others = "m, ft or km"
    elif min(spacing) < _SMALLEST_CELL and assumed != "km":
        others = "km, m or ft"
    else:
        return ""
    step = max(spacing) / LENGTHS[assumed]
    return f"is the spacing {step:g} in {others}? Say it with spacing_unit"


def _velocity_unit(contents: Contents, name: str, reading: Reading) -> str | None:
    """The unit of the numbers, where the user or the file says it."""
    keys = ("units", "unit", "velocity_unit")
    what = "its unit of velocity, unless unit is given,"
    stored = None
    try:
        stored = units.unit_beside(contents, name, VELOCITIES, what, keys, of_file=True)
    except ValueError:
        if not reading.unit:
            raise
    if stored and reading.unit and stored != reading.unit:
        raise ValueError(
            f"unit is {reading.unit}, but the file says that {name} is in {stored}: leave "
            "out unit, or correct the file"
        )
    unit = reading.unit or stored
    keys = ("long_name", "standard_name", "label", "description")
    called = " ".join([name, *(contents.text(name, key) for key in keys)]).lower()
    is_slowness = "slow" in called or "sloth" in called
    if is_slowness and not (unit and units.is_slowness(unit)):
        raise ValueError(
            f"{name} is called slowness: say unit='s/km' or unit='s2/km2', its square"
        )
    return unit


def _check_units(reading: Reading, lengths: set[str]) -> None:
    """Refuses lengths that a file names beside what the user says of it."""
    if reading.spacing_unit and reading.spacing is None:
        for stored in lengths - {reading.spacing_unit}:
            raise ValueError(
                f"spacing_unit is {reading.spacing_unit}, but the file says that its "
                f"lengths are in {stored}: leave out spacing_unit"
            )
    beside = units.BESIDE.get(reading.unit or "", "km")
    other = {"m": "ft", "ft": "m"}.get(beside)
    if other in lengths and reading.spacing_unit is None:
        raise ValueError(
            f"unit is {reading.unit}, but the file says that its lengths are in {other}: "
            f"give unit='{other}/s', or spacing_unit={other!r} too if both hold"
        )


def _spacing(
    orientation: Orientation, stored: np.ndarray | None, reading: Reading
) -> np.ndarray:
    """The spacing in the order z, y, x [km]: given, or stored, or of coordinates."""
    axes = orientation.axes
    even = np.array([math.nan if axis.step is None else abs(axis.step) for axis in axes])
    steps = even if stored is None else stored
    if reading.spacing is not None:
        steps = real_array(reading.spacing, "spacing").ravel()
        steps = _one_each(steps * LENGTHS[reading.spacing_unit or "km"], axes)
    elif np.isnan(steps).any():
        missing = (axis.role for axis in axes if axis.step is None)
        raise ValueError(
            f"it holds no grid spacing for {orientation.name} (no even coordinates of "
            f"{', '.join(missing)}): give it in km, ({_steps_of(axes)}) or one number"
        )
    if not _agree(steps, even):
        raise ValueError(
            f"spacing is ({_listed(steps)}) km, but the file's coordinates say "
            f"({_listed(even)}) km: leave out spacing, or correct the file"
        )
    return steps


def _stored_spacing(orientation: Orientation, has_other: bool) -> np.ndarray | None:
    """The spacing that a file holds as numbers, in the order z, y, x [km]."""
    contents, name, unit = orientation.contents, orientation.name, orientation.unit
    axes = orientation.axes
    key = spacing_key(contents, name)
    if not key:  # dz, dy and dx as numbers of their own
        for prefix in (f"{name}_", ""):
            keys = [f"{prefix}d{axis.role}" for axis in axes]
            if all(k in contents.arrays and contents.arrays[k].size == 1 for k in keys):
                return np.array([units.lengths(contents, k, unit).item() for k in keys])
        return None
    steps = units.lengths(contents, key, unit).ravel()
    roles = np.array([role or "" for role in orientation.roles])
    if steps.size == len(roles):
        steps = steps[roles != ""]
    if has_other and steps.size not in (1, len(axes)):
        return None  # it is of another array
    stored_roles = roles[roles != ""].tolist()
    return _one_each(steps, axes)[[stored_roles.index(axis.role) for axis in axes]]


def _one_each(steps: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    if steps.size not in (1, len(axes)):
        raise ValueError(
            f"spacing must be one number or {len(axes)}, ({_steps_of(axes)}), "
            f"got {steps.size}"
        )
    return np.broadcast_to(steps, len(axes))


def _steps_of(axes: Sequence[Axis]) -> str:
    return ", ".join(f"d{axis.role}" for axis in axes)


def _agree(steps: np.ndarray, others: np.ndarray) -> bool:
    """Whether steps are others, where these are numbers."""
    return not np.any(np.abs(steps - others) > _SAME_SPACING * np.abs(others))


def _listed(steps: np.ndarray) -> str:
    return ", ".join("uneven" if math.isnan(step) else f"{step:g}" for step in steps)


def _origin(orientation: Orientation, spacing: np.ndarray) -> tuple[float, ...]:
    """The first point in coordinate order [km]."""
    contents, axes = orientation.contents, orientation.axes
    for key in (f"{orientation.name}_origin", "origin"):
        if key not in contents.arrays:
            continue
        start = units.lengths(contents, key, orientation.unit).ravel()
        if start.size == len(axes) and np.all(np.isfinite(start)):
            for axis, step, value in zip(axes, spacing, start[::-1], strict=True):
                if axis.step is not None and abs(axis.first - value) > _SAME_SPACING * step:
                    raise ValueError(
                        f"{key} says {axis.role} begins at {value:g} km, its coordinates "
                        f"say {axis.first:g} km"
                    )
        return tuple(start.tolist())
    first = [axis.first for axis in axes]
    samples = contents.arrays.get("first_sample")  # of SEG-Y whose interval is in no unit
    if samples is not None and axes[0].step is None:
        first[0] = float(samples.item() * spacing[0])
    return tuple(first[::-1])
