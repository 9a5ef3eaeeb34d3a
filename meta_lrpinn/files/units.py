"""What the numbers of a file mean: units of lengths and velocities, scale, offset, gaps."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from meta_lrpinn.files.readers.contents import Contents
from meta_lrpinn.physics.grid_values import real_array

_FOOT = 0.3048e-3  # km
LENGTHS = {"km": 1.0, "m": 1e-3, "cm": 1e-5, "ft": _FOOT}  # in km
# v = (factor · number)^power in km/s.
VELOCITIES = {
    "km/s": (1.0, 1.0),
    "m/s": (1e-3, 1.0),
    "ft/s": (_FOOT, 1.0),
    "s/km": (1.0, -1.0),
    "s/m": (1e3, -1.0),
    "us/ft": (1e-6 / _FOOT, -1.0),
    "s2/km2": (1.0, -0.5),
    "s2/m2": (1e6, -0.5),
}
# Lengths that go with velocities of a unit where nothing says it; with others, km.
BESIDE = {"m/s": "m", "s/m": "m", "s2/m2": "m", "ft/s": "ft", "us/ft": "ft"}
# Attributes of a file that are those of its array.
_OF_FILE = frozenset(("scale_factor", "add_offset", "missing_value"))
# What people write for them, in lower case and without blanks at the ends.
_SPELLINGS = (
    (r"kilomet(re|er)s?", "km"),
    (r"centimet(re|er)s?", "cm"),
    (r"met(re|er)s?", "m"),
    (r"feet|foot", "ft"),
    (r"microseconds?|usec|[µμ]s", "us"),
    (r"\b(seconds?|secs?)\b", "s"),
    (r"\(s/k?m\)\s*(\^|\*\*)?[2²]", lambda m: "s2/km2" if "k" in m[0] else "s2/m2"),
    (r"\^|\*\*", ""),
    ("²", "2"),
    ("⁻¹", "-1"),
    (r"[\s.*·]*s-1$", "/s"),
    (r"\s*(/|\bper\b)\s*", "/"),
)


def named(text: object, units: Mapping[str, object], what: str) -> str:
    """The unit that a text names, one of `LENGTHS` or `VELOCITIES`.

    Raises:
        ValueError: if it names none; it says of `what`.
    """
    plain = text.strip().lower() if isinstance(text, str) else ""
    for pattern, short in _SPELLINGS:
        plain = re.sub(pattern, short, plain)
    if plain not in units:
        raise ValueError(f"{what} must be one of {', '.join(units)}, got {text!r:.40}")
    return plain


def unit_beside(
    contents: Contents,
    name: str,
    units: Mapping[str, object],
    what: str = "",
    keys: Sequence[str] = ("units", "unit"),
    of_file: bool = False,
) -> str | None:
    """The unit that attributes of an array name, or of the file; None where none does.

    Raises:
        ValueError: if it is none of these units; it says of `what`.
    """
    text = contents.text(name, *keys, of_file=of_file)
    return None if text in ("", "1") else named(text, units, what or f"the unit of {name}")


def is_slowness(unit: str) -> bool:
    """Whether larger numbers of a unit are slower."""
    return VELOCITIES[unit][1] < 0


def to_velocity(values: np.ndarray, unit: str) -> np.ndarray:
    """Numbers of a unit as velocities [km/s], in their own precision."""
    factor, power = VELOCITIES[unit]
    with np.errstate(all="ignore"):  # what is not finite then is refused later
        if factor != 1.0:
            values = values * values.dtype.type(factor)
        return values if power == 1.0 else values**power


def lengths(contents: Contents, key: str, default: str) -> np.ndarray:
    """An array of lengths [km], in the unit that it says, or in a default one.

    Raises:
        ValueError: if it holds no real numbers, or its unit is none of a length.
    """
    unit = unit_beside(contents, key, LENGTHS) or default
    return real_array(contents.arrays[key], key).astype(float) * LENGTHS[unit]


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


def packing(contents: Contents, name: str) -> Packing:
    """How the numbers of an array are packed; as they are where nothing says it."""

    def number(*keys: str, default: float = math.nan) -> float:
        for key in (*(f"{name}_{key}" for key in keys), *_OF_FILE.intersection(keys)):
            value = contents.arrays.get(key)
            if value is not None and value.dtype.kind in "fiu" and value.size == 1:
                return float(value.item())
        return default

    lowest = number("valid_min", default=-math.inf)
    highest = number("valid_max", default=math.inf)
    limits = contents.arrays.get(f"{name}_valid_range")
    if limits is not None and limits.size == 2 and limits.dtype.kind in "fiu":
        lowest, highest = (float(limit) for limit in np.ravel(limits))
    missing = number("_FillValue"), number("missing_value")
    unsigned = contents.arrays.get(f"{name}__Unsigned")
    return Packing(
        scale=number("scale_factor", "scale", default=1.0),
        offset=number("add_offset", "offset", default=0.0),
        missing=tuple(value for value in missing if not math.isnan(value)),
        lowest=lowest,
        highest=highest,
        unsigned=unsigned is not None and str(unsigned.item()).lower() == "true",
    )
