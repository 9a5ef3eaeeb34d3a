"""SEG-Y files of velocities in depth. Runs in a process of its own.

Samples run along z. A file whose traces fill a grid of inlines and crosslines is a cube:
crosslines run along x, inlines along y, in the order of their numbers. Coordinates are
those of the CDPs, in metres, or in feet if the measurement system says so. Where they
are there, the sample interval is read as thousandths of the same unit, as exporters of
depth sections write it (rev. 1 knows only time); where cells would be a hundred times
flatter or taller than wide, the depth spacing is NaN. Angles are no coordinates here.
"""

from __future__ import annotations

import pathlib

import numpy as np
import segyio

from meta_lrpinn.files.readers.contents import Contents

_FOOT = 0.3048  # m
_FEET = 2  # in the binary header's measurement system
# Neighbours may be this much nearer or farther than on average: coordinates are rounded.
_UNEVEN = 0.02
_LENGTH = (0, 1)  # coordinate units: not said, or a length; beyond are angles
# Cells are not this much flatter or taller than wide: the interval is in another unit.
_ASPECT = 100.0


def read(path: pathlib.Path, name: str | None = None) -> Contents:
    """The section, (nz, nx), or the cube, (nz, ny, nx), with its spacing if it has one.

    Raises:
        ValueError: if the traces have several inlines but do not fill a grid.
    """
    with segyio.open(str(path), ignore_geometry=True) as file:
        traces = np.array(file.trace.raw[:])  # (n_traces, nz)
        fields = segyio.TraceField
        inline, crossline, x, y, scale, kind = (
            file.attributes(field)[:]
            for field in (
                fields.INLINE_3D,
                fields.CROSSLINE_3D,
                fields.CDP_X,
                fields.CDP_Y,
                fields.SourceGroupScalar,
                fields.CoordinateUnits,
            )
        )
        interval = np.asarray(file.bin[segyio.BinField.Interval]).item()
        system = file.bin[segyio.BinField.MeasurementSystem]
    order, counts = _geometry(inline, crossline)
    values = np.moveaxis(traces[order].reshape(*counts, -1), -1, 0)
    arrays = {"velocity": np.ascontiguousarray(values)}
    # A negative scalar divides, a positive one multiplies, zero does neither.
    scale = scale.astype(float)
    factor = np.where(scale < 0, -1 / np.minimum(scale, -1), np.maximum(scale, 1))
    points = np.stack([x, y], axis=-1) * factor[:, None]
    steps = _steps(points[order].reshape(*counts, 2))
    if steps is not None and np.isin(kind, _LENGTH).all():
        unit = _FOOT if system == _FEET else 1.0
        # Two bytes without a sign, which the library may take for one.
        depth = (interval & 0xFFFF) / 1000
        if not all(1 / _ASPECT < depth / step < _ASPECT for step in steps):
            depth = np.nan
        arrays["spacing"] = np.array([depth, *steps]) * unit
    return Contents(arrays, "m")


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


def _steps(points: np.ndarray) -> list[float] | None:
    """Distances between neighbours along each axis; None without even coordinates."""
    steps = []
    for axis in range(points.ndim - 1):
        if points.shape[axis] < 2:
            return None
        lengths = np.linalg.norm(np.diff(points, axis=axis), axis=-1)
        mean = lengths.mean()
        if not mean > 0 or np.abs(lengths - mean).max() > max(_UNEVEN * mean, 1e-9):
            return None
        steps.append(float(mean))
    return steps
