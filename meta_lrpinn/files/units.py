"""Units of lengths and velocities, as files and options name them."""

from __future__ import annotations

import re

import numpy as np

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


def length_unit(text: object, what: str = "spacing_unit") -> str:
    """The unit of a length that a text names, one of `LENGTHS`.

    Raises:
        ValueError: if it names none; it says of `what`.
    """
    return _named(text, LENGTHS, what)


def velocity_unit(text: object, what: str = "unit") -> str:
    """The unit of a velocity or a slowness that a text names, one of `VELOCITIES`.

    Raises:
        ValueError: if it names none; it says of `what`.
    """
    return _named(text, VELOCITIES, what)


def length_beside(unit: str) -> str:
    """The unit of lengths that go with velocities of a unit where nothing says it."""
    return {"m/s": "m", "s/m": "m", "s2/m2": "m", "ft/s": "ft", "us/ft": "ft"}.get(
        unit, "km"
    )


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


def _named(text: object, known: dict, what: str) -> str:
    plain = text.strip().lower() if isinstance(text, str) else ""
    for pattern, short in _SPELLINGS:
        plain = re.sub(pattern, short, plain)
    if plain not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {text!r:.40}")
    return plain
