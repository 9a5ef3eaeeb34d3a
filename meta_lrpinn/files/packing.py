"""Numbers that stand for others: scale, offset and gaps, as netCDF's attributes say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from meta_lrpinn.physics.grid_values import real_array

# Keys that are those of the file's only array of velocities where no array is named.
_OF_FILE = ("scale_factor", "add_offset", "missing_value")


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the numbers of a file stand for others, as netCDF's attributes say."""

    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()  # numbers that stand for none
    lowest: float = -math.inf  # smaller ones stand for none
    highest: float = math.inf
    unsigned: bool = False  # whether signed integers stand for unsigned ones

    def unpacked(self, stored: np.ndarray) -> np.ndarray:
        """Floating-point numbers, NaN where there is none."""
        if self.unsigned and stored.dtype.kind == "i":
            stored = stored.view(stored.dtype.str.replace("i", "u"))
        values = real_array(stored, "velocity")
        if self == Packing():
            return values
        gaps = (stored < self.lowest) | (stored > self.highest)
        for number in self.missing:
            gaps |= stored == number
        with np.errstate(all="ignore"):  # infinite values are refused later
            scale, offset = values.dtype.type(self.scale), values.dtype.type(self.offset)
            return np.where(gaps, values.dtype.type(np.nan), values * scale + offset)


def packing(arrays: Mapping[str, Any], name: str) -> Packing:
    """How the numbers of an array are packed; as they are where nothing says it."""
    missing = [_number(arrays, name, key) for key in ("_FillValue", "missing_value")]
    lowest = _number(arrays, name, "valid_min")
    highest = _number(arrays, name, "valid_max")
    limits = arrays.get(f"{name}_valid_range")
    if limits is not None and limits.size == 2 and limits.dtype.kind in "fiu":
        lowest, highest = (float(limit) for limit in np.ravel(limits))
    scale = _number(arrays, name, "scale_factor", "scale")
    offset = _number(arrays, name, "add_offset", "offset")
    said = arrays.get(f"{name}__Unsigned")
    return Packing(
        scale=1.0 if scale is None else scale,
        offset=0.0 if offset is None else offset,
        missing=tuple(value for value in missing if value is not None),
        lowest=-math.inf if lowest is None else lowest,
        highest=math.inf if highest is None else highest,
        unsigned=said is not None and str(said.item()).lower() == "true",
    )


def _number(arrays: Mapping[str, Any], name: str, *keys: str) -> float | None:
    """The first of an array's attributes that is one number, else None."""
    for key in keys:
        for full in (f"{name}_{key}", *([key] if key in _OF_FILE else [])):
            value = arrays.get(full)
            if value is not None and value.dtype.kind in "fiu" and value.size == 1:
                return float(value.item())
    return None
