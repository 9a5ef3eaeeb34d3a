"""Which axis of an array in a file is depth, y and x, and which way each runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_lrpinn.files import units
from meta_lrpinn.files.readers import Contents
from meta_lrpinn.physics.grid_values import real_array

Arrays = Mapping[str, Any]  # of arrays, or of what reads slices of them

_ROLES = {
    **dict.fromkeys(("z", "nz", "depth", "elevation", "height", "altitude"), "z"),
    **dict.fromkeys(("y", "ny", "northing"), "y"),
    **dict.fromkeys(("x", "nx", "easting", "distance", "offset", "lateral"), "x"),
}
_HEIGHTS = ("elevation", "height", "altitude")
# Neighbours may be this much nearer or farther than on average: coordinates are rounded.
_UNEVEN = 1e-3


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of space in a file."""

    role: str  # "x", "y" or "z"
    count: int
    step: float | None = None  # [km], negative where the file runs backwards
    start: float = 0.0  # coordinate of the first number in the file [km]
    is_up: bool = False

    @property
    def is_flipped(self) -> bool:
        """Whether the file's last number is the first of the model."""
        return self.step is not None and (self.step < 0) != self.is_up

    @property
    def first(self) -> float:
        """Coordinate of the first number once the axis increases downwards [km]."""
        if self.step is None:
            return 0.0
        last = self.start + (self.count - 1) * self.step
        ends = (-self.start, -last) if self.is_up else (self.start, last)
        return min(ends) + 0.0  # without the sign of zero


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Which axis of a file is which, and how they run."""

    order: tuple[int, ...]  # of the file's axes: of a stack, z, y, x
    axes: tuple[Axis, ...]  # z, y, x
    space: tuple[int, ...]  # axes of space, in the file's order
    stored_roles: tuple[str, ...]  # of these
    units: frozenset[str]  # that coordinates name
    notes: tuple[str, ...]

    @property
    def flipped(self) -> tuple[int, ...]:
        """Axes that run backwards, counted from the last."""
        ndim = len(self.axes)
        return tuple(i - ndim for i, axis in enumerate(self.axes) if axis.is_flipped)


def orient(
    contents: Contents,
    name: str,
    unit: str,
    *,
    indices: int = 0,
    transpose: bool = False,
    spacing: Any = None,
) -> Orientation:
    """Which axis of an array is which, and how they run.

    Args:
        contents: What the reader gave.
        name: The array.
        unit: Of coordinates that name none.
        indices: How many indices of a stack the user gives.
        transpose: Whether x and z are the other way round than is the custom.
        spacing: The user's, in numbers of which three mean a volume.

    Raises:
        ValueError: if the file does not say enough, or contradicts itself or the user.
    """
    arrays, labels = contents.arrays, contents.labels(name)
    shape = arrays[name].shape
    roles = named_roles(labels)
    if roles and transpose:
        raise ValueError(
            f"its dimensions are named ({', '.join(labels or ())}), which says their "
            "order: leave out transpose"
        )
    notes = ["transposed"] if transpose else []
    custom = contents.order
    if roles is None:
        roles = _customary_roles(
            arrays, name, shape, labels, custom, transpose, spacing, indices
        )
    space = [axis for axis, role in enumerate(roles) if role]
    stored_roles = tuple(role for role in roles if role)
    order = sorted(range(len(shape)), key=lambda axis: " zyx".index(roles[axis] or " "))
    customary = sorted(stored_roles, key=custom.index)
    if labels and not transpose and list(stored_roles) != customary:
        notes.append(f"transposed from ({', '.join(labels[axis] for axis in space)})")
    if not labels:
        _check_not_swapped(arrays, stored_roles, [shape[axis] for axis in space])
    found = {
        role: _axis(arrays, role, labels[axis] if labels else "", shape[axis], unit)
        for role, axis in zip(stored_roles, space, strict=True)
    }
    axes = tuple(found[role][0] for role in "zyx" if role in found)
    for axis in axes:
        if axis.is_flipped:
            why = "it holds heights" if axis.is_up else "its coordinates decrease"
            notes.append(f"{axis.role} flipped ({why})")
        elif axis.is_up:
            notes.append("depths from heights")
    return Orientation(
        tuple(order),
        axes,
        tuple(space),
        stored_roles,
        frozenset(used for _, used in found.values() if used),
        tuple(notes),
    )


def text_of(arrays: Arrays, name: str, *keys: str, of_file: bool = False) -> str:
    """The first of an array's attributes, or of the file's, that is a text."""
    for key in (*(f"{name}_{key}" for key in keys), *(keys if of_file else ())):
        value = arrays.get(key)
        if value is not None and value.dtype.kind == "U" and value.size == 1:
            return value.item().strip()
    return ""


def named_roles(labels: tuple[str, ...] | None) -> list[str | None] | None:
    """The role of every axis whose dimensions have names that say it, else None.

    Raises:
        ValueError: if they name no section and no volume.
    """
    roles = [_ROLES.get(label.strip().lower()) for label in labels or ()]
    known = [role for role in roles if role]
    if not known:
        return None
    if len(roles) == 2 and len(known) == 1:  # the other one is what is left
        other = "x" if known == ["z"] else "z"
        return [role or other for role in roles]
    if sorted(known) not in (["x", "z"], ["x", "y", "z"]):
        raise ValueError(
            f"its dimensions are ({', '.join(labels or ())}): name them z and x, or z, y "
            "and x"
        )
    return roles


def _customary_roles(
    arrays: Arrays,
    name: str,
    shape: tuple[int, ...],
    labels: tuple[str, ...] | None,
    custom: str,
    transpose: bool,
    spacing: Any,
    indices: int,
) -> list[str | None]:
    """Roles by the order that a format has, and whether three spacings say volume."""
    if len(shape) < 2:
        raise ValueError(
            f"velocity must be a 2-D (nz, nx) or 3-D (nz, ny, nx) array, got shape {shape}"
        )
    given = stored_steps(arrays, name) if spacing is None else spacing
    if given is not None:
        number = np.size(given)
    else:
        # Dimensions whose names say no role, as axis1, have coordinates all the same.
        axes = (
            [("", label) for label in labels[-3:]] if labels else [(r, "") for r in "zyx"]
        )
        known = [_coordinate(arrays, *axis) is not None for axis in axes]
        single = [f"d{role}" in arrays or f"{name}_d{role}" in arrays for role in "zyx"]
        number = 3 if len(known) == sum(known) == 3 or all(single) else 2
    left = len(shape) - indices
    # Of one number, four axes are a stack of volumes, unless they are sections as
    # OpenFWI stores them, (n, 1, nz, nx).
    is_volume = left >= 3 and (number == 3 or (number == 1 and left == 4 and shape[-3] > 1))
    letters = custom if is_volume else custom.replace("y", "")
    if transpose:
        letters = letters.translate(str.maketrans("xz", "zx"))
    return [*[None] * (len(shape) - len(letters)), *letters]


def _check_not_swapped(arrays: Arrays, roles: tuple[str, ...], counts: list[int]) -> None:
    """Refuses coordinates that fit only an array with x and z swapped."""
    sizes = {}
    for role in roles:
        if (found := _coordinate(arrays, role, "")) is not None:
            sizes[role] = found[1].size
    here = dict(zip(roles, counts, strict=True))
    swapped = {**here, "x": here["z"], "z": here["x"]}
    if sizes and here["x"] != here["z"] and all(
        sizes[role] == swapped[role] for role in sizes
    ):  # fmt: skip
        raise ValueError(
            f"its shape is {tuple(counts)}, but it has {sizes.get('x', '?')} coordinates "
            f"of x and {sizes.get('z', '?')} of z: change transpose"
        )


def _coordinate(arrays: Arrays, role: str, label: str) -> tuple[str, np.ndarray] | None:
    """The coordinates of an axis, called as its dimension or, without one, by its role."""
    keys = [label] if label else [key for key in _ROLES if _ROLES[key] == role]
    for key in keys:
        value = arrays.get(key)
        if value is not None and value.ndim == 1 and value.dtype.kind in "fiu":
            return key, np.asarray(value)
    return None


def _axis(
    arrays: Arrays, role: str, label: str, count: int, default: str
) -> tuple[Axis, str | None]:
    """An axis with its coordinates, and the unit that these name."""
    found = _coordinate(arrays, role, label)
    if found is None:
        return Axis(role, count), None
    key, stored = found
    if stored.size != count:  # which are of something else
        return Axis(role, count), None
    own = text_of(arrays, key, "units", "unit")
    unit = units.length_unit(own, f"the unit of {key}") if own not in ("", "1") else None
    scale = units.LENGTHS[unit or default]
    step = _even_step(stored)
    if step is None:
        return Axis(role, count), unit
    start = float(stored[0]) * scale
    is_up = role == "z" and _counts_heights(arrays, key, stored)
    return Axis(role, count, step * scale, start, is_up), unit


def _counts_heights(arrays: Arrays, key: str, stored: np.ndarray) -> bool:
    """Whether coordinates of depth count upwards.

    Raises:
        ValueError: if they are negative and nothing says so.
    """
    said = text_of(arrays, key, "positive").lower()
    if said in ("up", "down"):
        return said == "up"
    if key.lower() in _HEIGHTS:
        return True
    if stored.max() <= 0 and stored.min() < 0:
        raise ValueError(
            f"{key} runs from {stored[0]:g} to {stored[-1]:g}: store depths, positive "
            "down, or give it the attribute positive='up' (or 'down')"
        )
    return False


def _even_step(stored: np.ndarray) -> float | None:
    """The even step of coordinates, negative where they decrease; None without one."""
    if stored.size < 2:
        return None
    steps = np.diff(stored.astype(float))
    mean = float(steps.mean())
    if not abs(mean) > 0 or np.abs(steps - mean).max() > _UNEVEN * abs(mean):
        return None
    # Without their rounding, so that dz = dx where they were, and grids of files are equal.
    is_float = stored.dtype.kind == "f"
    digits = min(12, np.finfo(stored.dtype).precision) if is_float else 12
    return float(f"{mean:.{digits}g}")


def stored_steps(arrays: Arrays, name: str) -> np.ndarray | None:
    """A spacing that is stored as numbers, in the order of the file's axes."""
    for key in (f"{name}_spacing", "spacing"):
        if key in arrays:
            return real_array(arrays[key], key).ravel()
    return None
