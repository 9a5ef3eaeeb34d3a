"""What a reader gives: arrays by name, and the unit of lengths where a file says it."""

from __future__ import annotations

import dataclasses

import numpy as np

# Longer messages hide what they say; a damaged file can put anything into one.
_LONGEST_MESSAGE = 300
NUMBERS = "fiuc"  # kinds of arrays that are numbers


@dataclasses.dataclass(frozen=True)
class Contents:
    """The arrays of a file by name."""

    arrays: dict[str, np.ndarray]
    length_unit: str | None = None  # "km" or "m", where the file says it


def one_line(text: str) -> str:
    """The text in one printable line of at most 300 characters."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    if len(line) > _LONGEST_MESSAGE:
        line = line[: _LONGEST_MESSAGE - 1] + "…"
    return line


def without_unit_axes(value: np.ndarray) -> np.ndarray:
    """MATLAB knows no scalars or vectors: (1, 1) and (1, n) stand for them."""
    return value.squeeze() if min(value.shape, default=0) == 1 else value
