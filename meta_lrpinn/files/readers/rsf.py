"""Madagascar's .rsf files: a text header that names the file with the numbers.

Axis 1 runs fastest. A velocity model has depth on axis 1, x on axis 2 and y on axis 3,
unless labels of the axes say something else.
"""

from __future__ import annotations

import math
import os
import pathlib
import re

import numpy as np

from meta_lrpinn.files.readers.contents import Contents, add_attributes

# Between header and numbers where both are in one file (in="stdin").
_MARK = b"\x0c\x0c\x04"
_LONGEST_HEADER = 1 << 20
_KINDS = {("float", 4): "f4", ("float", 8): "f8", ("double", 8): "f8", ("int", 4): "i4"}


def read(path: pathlib.Path) -> Contents:
    """The model, (nz, nx) or (nz, ny, nx), with the coordinates of its axes.

    Raises:
        ValueError: if the header is incomplete or does not fit the numbers.
    """
    with open(path, "rb") as file:
        head, mark, _ = file.read(_LONGEST_HEADER).partition(_MARK)
    # A later parameter replaces an earlier one.
    pattern = r"(\w+)=(\"[^\"]*\"|'[^']*'|\S+)"
    text = head.decode("ascii", "replace")
    keys = {key: value.strip("\"'") for key, value in re.findall(pattern, text)}
    shape = _shape(keys)
    where = keys.get("in")
    if where is None:
        raise ValueError("the header names no file of numbers (in=)")
    # A data file in the header's own folder is named without one.
    binary, offset = path.parent / where, 0
    if where == "stdin":
        if not mark:
            raise ValueError("the numbers should follow the header, but none do")
        binary, offset = path, len(head) + len(_MARK)
    elif not os.path.isfile(binary):
        raise ValueError(f"there is no file of numbers {binary}")
    values = _numbers(binary, offset, keys, math.prod(shape)).reshape(shape[::-1])
    # In memory the last axis runs fastest; depth comes first here.
    arrays: dict[str, np.ndarray] = {"velocity": np.moveaxis(values, -1, 0)}
    axes = (1, *range(len(shape), 1, -1))
    labels = [keys.get(f"label{axis}", "").strip().lower() for axis in axes]
    if len({*labels, "", *arrays}) < len(labels) + 2:
        labels = [f"axis{axis}" for axis in axes]  # which says nothing
    for axis, label in zip(axes, labels, strict=True):
        if f"d{axis}" in keys:
            start, step = _number(keys, f"o{axis}", "0"), _number(keys, f"d{axis}")
            arrays[label] = start + step * np.arange(shape[axis - 1])
        add_attributes(arrays, f"{label}_", {"units": keys.get(f"unit{axis}", "")})
    texts = {"units": keys.get("unit", ""), "long_name": keys.get("label", "")}
    add_attributes(arrays, "velocity_", texts)
    return Contents(arrays, {"velocity": tuple(labels)})


def _number(keys: dict[str, str], key: str, default: str = "") -> float:
    text = keys.get(key, default)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key} must be a number, got {text[:40]!r}") from None


def _shape(keys: dict[str, str]) -> tuple[int, ...]:
    """(n1, n2) or (n1, n2, n3); axes of one point at the end are left out."""
    shape = []
    for axis in range(1, 10):
        text = keys.get(f"n{axis}", "1")
        if not (text.isascii() and text.isdigit() and 0 < int(text[:19]) < 2**40):
            raise ValueError(f"n{axis} must be a whole number from 1 up, got {text[:40]!r}")
        shape.append(int(text))
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise ValueError(f"it has {len(shape)} axes; a model has two or three")
    return tuple(shape)


def _numbers(
    path: pathlib.Path, offset: int, keys: dict[str, str], count: int
) -> np.ndarray:
    """The numbers, in this machine's byte order."""
    data_format = keys.get("data_format", "native_float")
    encoding, _, kind = data_format.partition("_")
    if encoding == "ascii":
        with open(path, "rb") as file:
            file.seek(offset)
            # Each number takes a digit and a blank at least, and hardly ever 64.
            words = file.read(64 * count).split()
        if len(words) != count:
            raise ValueError(f"it holds {len(words)} numbers instead of {count}")
        return np.array([float(word) for word in words], np.float32)
    esize = keys.get("esize", "8" if kind == "double" else "4")
    number = _KINDS.get((kind, int(esize) if esize.isdigit() else 0))
    if encoding not in ("native", "xdr") or number is None:
        raise ValueError(
            f"numbers of data_format {data_format[:40]!r} and esize {esize[:20]!r} cannot "
            "be read"
        )
    dtype = np.dtype(number).newbyteorder(">" if encoding == "xdr" else "=")
    expected, size = count * dtype.itemsize, path.stat().st_size - offset
    if size != expected:
        raise ValueError(f"its axes take {expected} bytes, the file has {size}")
    values = np.fromfile(path, dtype, count, offset=offset)
    return values.astype(dtype.newbyteorder("="))
