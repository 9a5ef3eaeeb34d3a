"""MATLAB's .mat files of versions 4 to 7, by a parser that trusts no length it reads.

`scipy.io.loadmat` ends the process on some damaged files (SIGSEGV, SIGBUS), so that it
cannot be used on files of unknown origin. Format: MathWorks, "MAT-File Format", level 4
and level 5. Version 7.3 is HDF5 and has its own reader. Numbers and structs of one
element are read; text, cells, sparse arrays and objects are left out.
"""

from __future__ import annotations

import math
import pathlib
import struct
import zlib
from typing import Literal, TypeAlias

import numpy as np

from meta_lrpinn.files.readers.contents import Contents, without_unit_axes

ByteOrder: TypeAlias = Literal["<", ">"]

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL_STRUCT = 2
_NUMBER_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_LEVEL_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
_DEEPEST = 8  # structs within structs
_COMPLEX, _LOGICAL = 0x0800, 0x0200


def is_hdf5(path: pathlib.Path) -> bool:
    """Whether a file is one of MATLAB 7.3, which is HDF5 behind 512 bytes."""
    with open(path, "rb") as file:
        start = file.read(520)
    return start[512:] == b"\x89HDF\r\n\x1a\n" or start.startswith(b"MATLAB 7.3")


def read(path: pathlib.Path) -> Contents:
    """The arrays of numbers; the field `b` of a struct `a` is called `a.b`.

    Raises:
        ValueError: if the file is damaged or no .mat file.
    """
    data = path.read_bytes()
    arrays: dict[str, np.ndarray] = {}
    try:
        if len(data) >= 20 and 0 in data[:4]:
            _read_level_4(data, arrays)
        else:
            orders: dict[bytes, ByteOrder] = {b"IM": "<", b"MI": ">"}
            order = orders.get(data[126:128])
            if order is None:
                raise ValueError("it is no MATLAB file")
            _read_level_5(memoryview(data)[_HEADER:], order, arrays)
    except (struct.error, zlib.error, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"the MATLAB file is damaged ({type(error).__name__})") from None
    return Contents({key: without_unit_axes(value) for key, value in arrays.items()})


def _read_level_4(data: bytes, arrays: dict[str, np.ndarray]) -> None:
    position = 0
    while position < len(data):
        order: ByteOrder = "<"
        if struct.unpack_from("<i", data, position)[0] not in range(5000):
            order = ">"
        kind, rows, columns, imaginary, length = struct.unpack_from(
            f"{order}5i", data, position
        )
        machine, kind = divmod(kind, 1000)
        if machine not in (0, 1) or kind // 100 or min(rows, columns) < 0 or length < 1:
            raise ValueError("it is no MATLAB file, or a damaged one")
        dtype = np.dtype(_LEVEL_4[kind // 10]).newbyteorder(order)
        position += 20
        name = bytes(data[position : position + length]).rstrip(b"\0").decode("latin-1")
        position += length
        parts = []
        for _ in range(2 if imaginary else 1):
            size = rows * columns * dtype.itemsize
            part = _slice(memoryview(data), position, size)
            parts.append(np.frombuffer(part, dtype).reshape((rows, columns), order="F"))
            position += size
        if kind % 10 == 0:
            arrays[name] = _native(parts[0] if len(parts) == 1 else _join(parts))


def _read_level_5(
    data: memoryview, order: ByteOrder, arrays: dict[str, np.ndarray]
) -> None:
    position = 0
    while position < len(data):
        kind, body, position = _element(data, position, order)
        if kind == _COMPRESSED:
            # Deflate cannot grow by more than a factor of 1032, so memory is bounded.
            kind, body, _ = _element(memoryview(zlib.decompress(body)), 0, order)
        if kind == _MATRIX:
            _read_matrix(body, order, arrays, None, 0)


def _slice(data: memoryview, start: int, size: int) -> memoryview:
    if size < 0 or start + size > len(data):
        raise ValueError("the MATLAB file is damaged or cut short")
    return data[start : start + size]


def _element(
    data: memoryview, position: int, order: ByteOrder
) -> tuple[int, memoryview, int]:
    """Type and bytes of a data element, and where the next one starts."""
    (first,) = struct.unpack_from(f"{order}I", data, position)
    if first >> 16:
        # Up to four bytes are packed into the tag itself.
        size = first >> 16
        if size > 4:
            raise ValueError("the MATLAB file is damaged")
        return first & 0xFFFF, _slice(data, position + 4, size), position + 8
    (size,) = struct.unpack_from(f"{order}I", data, position + 4)
    body = _slice(data, position + 8, size)
    # All but compressed elements are padded to eight bytes.
    padded = size if first == _COMPRESSED else -(-size // 8) * 8
    return first, body, position + 8 + padded


def _numbers(data: memoryview, position: int, order: ByteOrder) -> tuple[np.ndarray, int]:
    kind, body, position = _element(data, position, order)
    dtype = np.dtype(_NUMBER_TYPES[kind]).newbyteorder(order)
    if len(body) % dtype.itemsize:
        raise ValueError("the MATLAB file is damaged")
    return np.frombuffer(body, dtype), position


def _read_matrix(
    data: memoryview,
    order: ByteOrder,
    arrays: dict[str, np.ndarray],
    name: str | None,
    depth: int,
) -> None:
    """Adds an array, or the fields of a struct, under its own name or the one given."""
    if not data:
        return  # an empty field
    flags, position = _numbers(data, 0, order)
    shape, position = _numbers(data, position, order)
    _, own, position = _element(data, position, order)
    name = bytes(own).decode("latin-1") if name is None else name
    shape = tuple(int(n) for n in shape)
    flags = int(flags[0])
    kind, count = flags & 0xFF, math.prod(shape)
    if min(shape, default=-1) < 0:
        raise ValueError("the MATLAB file is damaged")
    if kind == _CELL_STRUCT and count == 1 and depth < _DEEPEST:
        length, position = _numbers(data, position, order)
        _, names, position = _element(data, position, order)
        step = int(length[0])
        if step < 1:
            raise ValueError("the MATLAB file is damaged")
        for start in range(0, len(names), step):
            field = bytes(names[start : start + step]).split(b"\0")[0].decode("latin-1")
            _, body, position = _element(data, position, order)
            _read_matrix(body, order, arrays, f"{name}.{field}", depth + 1)
    elif kind in _CLASSES and not name.startswith("__"):
        parts = []
        for _ in range(2 if flags & _COMPLEX else 1):
            part, position = _numbers(data, position, order)
            if part.size != count:
                raise ValueError("the MATLAB file is damaged")
            parts.append(part.astype(_CLASSES[kind]).reshape(shape, order="F"))
        value = parts[0] if len(parts) == 1 else _join(parts)
        arrays[name] = value.astype(bool) if flags & _LOGICAL else value


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="))


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] + 1j * parts[1]
