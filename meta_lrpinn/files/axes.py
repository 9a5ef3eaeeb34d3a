"""Which axis of an array in a file is depth, y and x, and which way each runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from meta_lrpinn.files import units
from meta_lrpinn.files.readers.contents import Contents

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
    unit: str | None = None  # that its coordinates name

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
    """An array in a file: which of its axes is which, and how they run."""

    contents: Contents
    name: str
    unit: str  # of lengths beside it that say none
    is_custom: bool  # whether nothing but custom says which axis is which
    roles: tuple[str | None, ...]  # of the file's axes; None of a stack
    axes: tuple[Axis, ...]  # z, y, x
    notes: tuple[str, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The file's axes: of a stack, z, y, x."""
        keys = [" zyx".index(role or " ") for role in self.roles]
        return tuple(sorted(range(len(keys)), key=keys.__getitem__))

    @property
    def flipped(self) -> tuple[int, ...]:
        """Axes that run backwards, counted from the last."""
        ndim = len(self.axes)
        return tuple(i - ndim for i, axis in enumerate(self.axes) if axis.is_flipped)


def orient(
    contents: Contents,
    name: str,
    unit: str,
    indices: int = 0,
    transpose: bool = False,
    spacing: Any = None,
) -> Orientation:
    """Which axis of an array is which, and how they run.

    Lengths that name no unit are in `unit`. The user gives so many indices of a stack,
    whether x and z are the other way round than is the custom, and perhaps a spacing,
    of which three numbers mean a volume.

    Raises:
        ValueError: if the file does not say enough, or contradicts itself or the user.
    """
    labels = contents.dimensions.get(name, ())
    shape = contents.arrays[name].shape
    notes = ["transposed"] if transpose else []
    roles = named_roles(labels)
    is_custom = roles is None
    if roles and transpose:
        raise ValueError(
            f"its dimensions are named ({', '.join(labels)}), which says their order: "
            "leave out transpose"
        )
    if roles is None:
        is_volume = _is_volume(contents, name, spacing, len(shape) - indices)
        letters = "zyx" if is_volume else "zx"
        if transpose:
            letters = letters.translate(str.maketrans("xz", "zx"))
        roles = [*[None] * (len(shape) - len(letters)), *letters]
    space = {role: axis for axis, role in enumerate(roles) if role}
    if labels and not transpose and list(space) != sorted(space, reverse=True):
        notes.append(f"transposed from ({', '.join(labels[i] for i in space.values())})")
    if not labels:
        _check_not_swapped(contents, {role: shape[axis] for role, axis in space.items()})
    named = {role: labels[axis] if labels else "" for role, axis in space.items()}
    axes = tuple(
        _axis(contents, role, named[role], shape[space[role]], unit)
        for role in sorted(space, reverse=True)
    )
    for axis in axes:
        if axis.is_flipped:
            why = "it holds heights" if axis.is_up else "its coordinates decrease"
            notes.append(f"{axis.role} flipped ({why})")
        elif axis.is_up:
            notes.append("depths from heights")
    return Orientation(contents, name, unit, is_custom, tuple(roles), axes, tuple(notes))


def named_roles(labels: tuple[str, ...]) -> list[str | None] | None:
    """The role of every axis whose dimensions have names that say it, else None.

    Raises:
        ValueError: if they name no section and no volume.
    """
    roles = [_ROLES.get(label.strip().lower()) for label in labels]
    known = [role for role in roles if role]
    if not known:
        return None
    if len(roles) == 2 and len(known) == 1:  # the other one is what is left
        other = "x" if known == ["z"] else "z"
        return [role or other for role in roles]
    if sorted(known) not in (["x", "z"], ["x", "y", "z"]):
        raise ValueError(
            f"its dimensions are ({', '.join(labels)}): name them z and x, or z, y and x"
        )
    return roles


def _is_volume(contents: Contents, name: str, spacing: Any, left: int) -> bool:
    """Whether an array is a volume, or some of it, where its dimensions have no names.

    The spacing is the user's; `left` counts the axes that no index takes.
    """
    arrays, labels = contents.arrays, contents.dimensions.get(name, ())
    shape = arrays[name].shape
    if len(shape) < 2:
        raise ValueError(
            f"velocity must be a 2-D (nz, nx) or 3-D (nz, ny, nx) array, got shape {shape}"
        )
    key = spacing_key(contents, name)
    if spacing is not None or key:
        steps = np.size(arrays[key] if spacing is None else spacing)
    else:
        # Dimensions whose names say no role, as axis1, have coordinates all the same.
        axes = [("", label) for label in labels[-3:]] or [(role, "") for role in "zyx"]
        known = [_coordinate(contents, *axis) is not None for axis in axes]
        single = [f"d{role}" in arrays or f"{name}_d{role}" in arrays for role in "zyx"]
        steps = 3 if len(known) == sum(known) == 3 or all(single) else 2
    # Of one number, four axes are a stack of volumes, unless they are sections as
    # OpenFWI stores them, (n, 1, nz, nx).
    return left >= 3 and (steps == 3 or (steps == 1 and left == 4 and shape[-3] > 1))


def spacing_key(contents: Contents, name: str) -> str:
    """What a spacing that is stored as one array is called; empty if there is none."""
    keys = (f"{name}_spacing", "spacing")
    return next((key for key in keys if key in contents.arrays), "")


def _check_not_swapped(contents: Contents, counts: dict[str, int]) -> None:
    """Refuses coordinates that fit only an array with x and z swapped."""
    coordinates = {role: _coordinate(contents, role, "") for role in counts}
    sizes = {role: known[1].size for role, known in coordinates.items() if known}
    swapped = {**counts, "x": counts["z"], "z": counts["x"]}
    fits = all(sizes[role] == swapped[role] for role in sizes)
    if sizes and counts["x"] != counts["z"] and fits:
        raise ValueError(
            f"its shape is {tuple(counts.values())}, but it has {sizes.get('x', '?')} "
            f"coordinates of x and {sizes.get('z', '?')} of z: change transpose"
        )


def _coordinate(contents: Contents, role: str, label: str) -> tuple[str, np.ndarray] | None:
    """The coordinates of an axis, called as its dimension or, without one, by its role."""
    keys = [label] if label else [key for key in _ROLES if _ROLES[key] == role]
    for key in keys:
        value = contents.arrays.get(key)
        if value is not None and value.ndim == 1 and value.dtype.kind in "fiu":
            return key, np.asarray(value)
    return None


def _axis(contents: Contents, role: str, label: str, count: int, default: str) -> Axis:
    """An axis with its coordinates, where they are there and not of something else."""
    key, stored = _coordinate(contents, role, label) or ("", np.empty(0))
    if not key or stored.size != count:
        return Axis(role, count)
    unit = units.unit_beside(contents, key, units.LENGTHS)
    step = _even_step(stored)
    if step is None:
        return Axis(role, count, unit=unit)
    scale = units.LENGTHS[unit or default]
    is_up = role == "z" and _counts_heights(contents, key, stored)
    return Axis(role, count, step * scale, float(stored[0]) * scale, is_up, unit)


def _counts_heights(contents: Contents, key: str, stored: np.ndarray) -> bool:
    """Whether coordinates of depth count upwards.

    Raises:
        ValueError: if they are negative and nothing says so.
    """
    direction = contents.text(key, "positive").lower()
    if direction in ("up", "down"):
        return direction == "up"
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
