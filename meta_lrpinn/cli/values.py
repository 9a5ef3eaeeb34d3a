"""Values of options that are more than one number: lists, ranges, positions, files."""

import math
import os
from typing import TYPE_CHECKING

from meta_lrpinn.cli.report import one_line

if TYPE_CHECKING:
    import numpy as np

# Of a range, so that its last number is there in spite of rounding.
_SLACK = 1e-6
# Times of samples may be this much nearer or farther than on average: they are rounded.
_UNEVEN = 0.01
_MOST_FREQUENCIES, _MOST_POSITIONS = 100_000, 1_000_000


def numbers(text: str, what: str) -> list[float]:
    """Numbers with commas between.

    Raises:
        ValueError: if they are not; it says of `what`.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{what} must be numbers with commas between, got {text!r}"
        ) from None


def amplitude(text: str) -> complex:
    """A complex number, with i or j.

    Raises:
        ValueError: if it is none.
    """
    try:
        return complex(text.replace(" ", "").replace("i", "j"))
    except ValueError:
        raise ValueError(
            f"amplitude must be a number such as 0.25j or 1-2j, got {text!r}"
        ) from None


def weights(text: str) -> "np.ndarray":
    """Complex numbers with commas between, as `amplitude` reads each.

    Raises:
        ValueError: if they are none.
    """
    import numpy as np

    try:
        found = [
            complex(part.replace(" ", "").replace("i", "j")) for part in text.split(",")
        ]
    except ValueError:
        raise ValueError(
            f"weights must be numbers with commas between, such as 1,-1, got {text!r}"
        ) from None
    return np.array(found)


def frequencies(text: str) -> list[float]:
    """A list, 3,4,5, or first:last:step with both ends, 2:15:0.5, or both [Hz].

    Raises:
        ValueError: if it is neither.
    """
    found: list[float] = []
    try:
        for part in text.split(","):
            if ":" not in part:
                found.append(float(part))
                continue
            first, last, step = (float(number) for number in part.split(":"))
            steps = (last - first) / step
            if not 0 <= steps < _MOST_FREQUENCIES:
                raise ValueError
            # Rounded, so that steps of 0.1 give 2.3 and not 2.3000000000000003.
            found += [round(first + i * step, 12) for i in range(int(steps + _SLACK) + 1)]
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(
            f"frequencies must be a list such as 3,4,5 or first:last:step such as "
            f"2:15:0.5 in Hz, got {text!r}"
        ) from None
    return found


def positions(text: str, ndim: int, what: str) -> "np.ndarray":
    """Positions (n, ndim) [km]: points, ranges of points, or a file of rows.

    Args:
        text: "x,z;x,z", "x0:x1:n,z", or the name of a text or .npy file.
        ndim: Coordinates of a position.
        what: What they are of, in messages: source or receiver.

    Raises:
        ValueError: if it is nothing of that.
    """
    import numpy as np

    if os.path.isfile(text):
        return _positions_of_file(text, ndim, what)
    rows = []
    for point in text.strip(";").split(";"):
        columns = [_coordinate(part, text, what) for part in point.split(",")]
        if len(columns) != ndim:
            order = "x,z" if ndim == 2 else "x,y,z"
            raise ValueError(
                f"{what} needs {ndim} coordinates in km, {order}, got {point!r}"
            )
        if math.prod(map(len, columns)) > _MOST_POSITIONS:
            raise ValueError(f"{point!r} are more than {_MOST_POSITIONS:,} {what}s")
        grid = np.broadcast_arrays(*np.ix_(*columns))
        rows.append(np.stack(grid, -1).reshape(-1, ndim))
    return np.concatenate(rows)


def samples(path: str) -> "tuple[np.ndarray, float | None]":
    """Samples of a text or .npy file, (n,), and their step where it has times [s].

    One column, or one row, holds samples; of two columns the first holds their times.

    Raises:
        ValueError: if it holds anything else.
    """
    import numpy as np

    try:
        rows = _rows(path)
        if rows.ndim == 2 and 1 in rows.shape:
            rows = rows.ravel()
        if rows.ndim == 1:
            return rows, None
        if rows.ndim != 2 or len(rows.T) != 2:
            raise ValueError(
                f"it must hold one column of samples, or two of times and samples, got "
                f"shape {rows.shape}"
            )
        times, values = rows.T
        step = float(np.mean(np.diff(times)))
        if not step > 0 or np.abs(np.diff(times) - step).max() > _UNEVEN * step:
            raise ValueError("the times of its first column are not evenly spaced")
        if abs(times[0]) > _UNEVEN * step:
            raise ValueError(f"its times begin at {times[0]:g} s; let them begin at zero")
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read samples from {path}: {one_line(error)}") from None
    return values, float(f"{step:.6g}")


def _rows(path: str) -> "np.ndarray":
    """The numbers of a text file, with commas or blanks between, or of a .npy file."""
    import numpy as np

    from meta_lrpinn.physics.grid_values import real_array

    if path.endswith(".npy"):
        rows = np.load(path, allow_pickle=False)
    else:
        with open(path) as file:
            lines = [line.replace(",", " ") for line in file if line.strip()]
        rows = np.loadtxt(lines) if lines else np.empty(0)
    if not rows.size:
        raise ValueError("it holds nothing")
    return real_array(rows, "it").astype(float)


def _coordinate(text: str, whole: str, what: str) -> "np.ndarray":
    """One number, or first:last:count."""
    import numpy as np

    try:
        if ":" not in text:
            return np.array([float(text)])
        first, last, count = text.split(":")
        if not 1 <= int(count) <= _MOST_POSITIONS:
            raise ValueError
        return np.linspace(float(first), float(last), int(count))
    except ValueError:
        raise ValueError(
            f"{what} must be numbers such as 1.0,0.025 or 0.2:2.2:9,0.025 in km (a range "
            f"has at most {_MOST_POSITIONS:,}), or a file, got {whole!r}"
        ) from None


def _positions_of_file(path: str, ndim: int, what: str) -> "np.ndarray":
    import numpy as np

    try:
        rows = _rows(path)
    except (ValueError, TypeError) as error:
        why = one_line(error)
        raise ValueError(f"cannot read {what}s from {path}: {why}") from None
    rows = np.atleast_2d(rows)
    if rows.ndim != 2 or rows.shape[1] != ndim:
        raise ValueError(
            f"{path} must hold {ndim} numbers a row, one row per {what}, "
            f"got shape {rows.shape}"
        )
    return rows
