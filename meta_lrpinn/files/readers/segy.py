"""SEG-Y files of velocities in depth, of either byte order. Runs in a process of its own.

Samples run along z. A file whose traces fill a grid of inlines and crosslines is a cube:
crosslines run along x, inlines along y, in the order of their numbers. Coordinates are
those of the CDPs along these lines, in metres, or in feet if the measurement system says
so; a grid that is turned has x and y turned with it. Where they are there, sample
interval and delay are read as thousandths of the same unit, as exporters of depth
sections write them (rev. 1 knows only time); where cells would be a hundred times flatter
or taller than wide, z is left out. Angles are no coordinates here.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import segyio

from meta_lrpinn.files.readers.contents import Contents

# Of the headers of traces, in the order in which `read` takes them.
_FIELDS = (
    "INLINE_3D CROSSLINE_3D CDP_X CDP_Y SourceGroupScalar CoordinateUnits "
    "DelayRecordingTime TraceWeightingFactor TraceValueMeasurementUnit"
).split()
_FEET = 2  # in the binary header's measurement system
_METRES_PER_SECOND = 6  # in a trace's unit of values
# Neighbours may be this much nearer or farther than on average: coordinates are rounded.
_UNEVEN = 0.02
_LARGEST_FORMAT = 16  # of samples
_LENGTH = (0, 1)  # coordinate units: not said, or a length; beyond are angles
# Cells are not this much flatter or taller than wide: the interval is in another unit.
_ASPECT = 100.0


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The section, (nz, nx), or the cube, (nz, ny, nx), with coordinates if it has some.

    Raises:
        ValueError: if the traces have several inlines but do not fill a grid, or begin
            at different depths.
    """
    endian: Any = _endian(path)
    with segyio.open(str(path), ignore_geometry=True, endian=endian) as file:
        traces = np.array(file.trace.raw[:])  # (n_traces, nz)
        inline, crossline, x, y, scale, kind, delay, weight, unit = (
            file.attributes(getattr(segyio.TraceField, field))[:] for field in _FIELDS
        )
        interval = np.asarray(file.bin[segyio.BinField.Interval]).item()
        system = file.bin[segyio.BinField.MeasurementSystem]
    order, counts = _geometry(inline, crossline)
    if np.ptp(delay) != 0:
        raise ValueError("its traces begin at different delays")
    if weight.any():  # samples count 2^-N of what they are
        traces = traces * np.exp2(-weight[:, None].astype(np.float32))
    arrays = {"velocity": np.moveaxis(traces[order].reshape(*counts, -1), -1, 0)}
    if np.all(unit == _METRES_PER_SECOND):
        arrays["velocity_units"] = np.asarray("m/s")
    # A negative scalar divides, a positive one multiplies, zero does neither.
    scale = scale.astype(float)
    factor = np.where(scale < 0, -1 / np.minimum(scale, -1), np.maximum(scale, 1))
    points = np.stack([x, y], axis=-1) * factor[:, None]
    names = ("y", "x")[-len(counts) :]
    lines = _lines(points[order].reshape(*counts, 2))
    # Two bytes without a sign, which the library may take for one.
    step, first = (interval & 0xFFFF) / 1000, float(delay[0])
    if lines is not None and np.isin(kind, _LENGTH).all():
        arrays |= dict(zip(names, lines, strict=True))
        if all(1 / _ASPECT < step / abs(line[1] - line[0]) < _ASPECT for line in lines):
            arrays["z"] = first + step * np.arange(traces.shape[1])
        unit_name = np.asarray("ft" if system == _FEET else "m")
        arrays |= {f"{name}_units": unit_name for name in (*names, "z")}
    elif system == _FEET:
        arrays["length_unit"] = np.asarray("ft")
    if "z" not in arrays and first:
        arrays["first_sample"] = np.asarray(first / step if step else np.nan)
    return Contents(arrays, {"velocity": ("z", *names)})


def _endian(path: pathlib.Path) -> str:
    """The byte order in which the binary header's format is one there is."""
    with open(path, "rb") as file:
        code = file.read(3226)[3224:]
    is_little = code[1:] == b"\0" and 0 < int.from_bytes(code, "little") <= _LARGEST_FORMAT
    return "little" if is_little else "big"


def _geometry(
    inline: np.ndarray, crossline: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The order of the traces, and their number in y and x, or in x alone."""
    lines, crossings = np.unique(inline), np.unique(crossline)
    total = inline.size
    alone = min(lines.size, crossings.size) == 1
    # 2-D files number their traces in one of the fields, or in both alike.
    if alone or lines.size == crossings.size == total:
        return np.arange(total), (total,)
    pairs = np.unique(np.stack([inline, crossline]), axis=1).shape[1]
    if not pairs == total == lines.size * crossings.size:
        raise ValueError(
            f"its {total} traces do not fill the grid of its {lines.size} inlines and "
            f"{crossings.size} crosslines"
        )
    return np.lexsort((crossline, inline)), (lines.size, crossings.size)


def _lines(points: np.ndarray) -> list[np.ndarray] | None:
    """Coordinates along each axis of traces; None where they are not even."""
    lines = []
    for axis in range(points.ndim - 1):
        if points.shape[axis] < 2:
            return None
        steps = np.diff(points, axis=axis)
        lengths = np.linalg.norm(steps, axis=-1)
        mean = lengths.mean()
        if not mean > 0 or np.abs(lengths - mean).max() > max(_UNEVEN * mean, 1e-9):
            return None
        along = steps.reshape(-1, 2).mean(axis=0)
        length = np.linalg.norm(along)
        if length < (1 - _UNEVEN) * mean:  # a line that is bent
            return None
        # Coordinates grow along a line that runs east, or north.
        along = along / length * (1 if along[np.argmax(np.abs(along))] > 0 else -1)
        first = points.reshape(-1, 2)[0] @ along
        sign = 1 if np.mean(steps @ along) > 0 else -1
        lines.append(first + sign * mean * np.arange(points.shape[axis]))
    return lines
