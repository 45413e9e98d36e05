"""One matrix of a MATLAB v5 file, read strictly: numbers, logicals and sparse matrices, and nothing else.

Such a file is a head of 128 bytes and then elements: a type and a size of 4 bytes each, and the content, filled up to a
multiple of 8 bytes. A variable is an element that holds elements: flags, dimensions, name, values; it may be compressed.
The format is that of MathWorks' "MAT-File Format". Every size is judged before anything of that size is read, so that a
damaged or hostile file costs neither memory nor time.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy  # whose parts are loaded when first used: they take longer than the rest of the core

from .words import one_line

HEAD = 128  # bytes of text, version and byte order
NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
MATRIX, COMPRESSED = 14, 15
SPARSE, NUMERIC = 5, range(6, 16)
KINDS = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 16: "a function", 17: "an object"}
COMPLEX = 0x0800
MOST_VARIABLES, MOST_DIMENSIONS, MOST_NAME = 1000, 32, 4096
BLOCK = 2**16


class Damaged(Exception):
    """The content is not what the format promises; the reason, in a few words."""


def read_matrix(
    path: Path, key: str, check_shape: Callable[[tuple[int, ...]], None]
) -> np.ndarray | scipy.sparse.csc_array:
    """The matrix of this name.

    check_shape: raises for a shape that is not wanted; called before any value is read
    Raises OSError for a damaged file, ValueError if there is no such variable or it is no matrix of numbers; one sentence
    that names the file.
    """
    names: list[str] = []
    try:
        with open(path, "rb") as file:
            order = _byte_order(file.read(HEAD))
            size = path.stat().st_size
            while file.tell() < size:
                variable = _open_variable(file, size, order)
                after = file.tell() + variable.left
                flags, shape, name = _describe(variable, order)
                if name == key:
                    _check_kind(path, key, flags)
                    check_shape(shape)
                    return _values(variable, order, flags, shape)
                names.append(name)
                if len(names) > MOST_VARIABLES:
                    raise Damaged(f"it holds more than {MOST_VARIABLES} variables")
                file.seek(after)
    except (Damaged, zlib.error, struct.error) as error:
        raise OSError(f"{path} cannot be read as a MATLAB file ({one_line(error)}): copy the file again.") from error
    raise ValueError(
        f"{path} has no variable {key!r}; it holds {', '.join(filter(None, names)) or 'nothing'}"[:400]
        + ": name the right one as labels_key in the definition."
    )


def _byte_order(head: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if order is None or struct.unpack(order + "H", head[124:126]) != (0x0100,):
        raise Damaged("it begins neither as v5 nor as v7.3 does; in MATLAB, save it with -v7")
    return order


class _Part:
    """So many bytes of a file, from where it stands."""

    def __init__(self, file: BinaryIO, left: int):
        self.file, self.left = file, left

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise Damaged("a part of it is larger than what it lies in")
        self.left -= count
        return self.file.read(count)

    def finish(self) -> None:
        """Nothing guards plain bytes."""


class _Inflated:
    """The content of a compressed part; no more of it is made than is asked for."""

    def __init__(self, part: _Part):
        self.part, self.inflate = part, zlib.decompressobj()

    @property
    def left(self) -> int:
        return self.part.left

    def read(self, count: int) -> bytearray:
        content = bytearray()
        while len(content) < count:
            block = self.inflate.unconsumed_tail or self.part.read(min(BLOCK, self.part.left))
            made = self.inflate.decompress(block, count - len(content))
            if not made and (self.inflate.eof or not block):
                raise Damaged("a compressed part of it is cut off")
            content += made
        return content

    def finish(self) -> None:
        """Read to the checksum at the end, which tells whether all was as it was written."""
        while not self.inflate.eof:
            block = self.inflate.unconsumed_tail or self.part.read(min(BLOCK, self.part.left))
            if self.inflate.decompress(block, 1) or not block:
                raise Damaged("a compressed part of it does not end where its values do")


def _open_variable(file: BinaryIO, size: int, order: str) -> _Part | _Inflated:
    """The next variable of a file, from behind its type and size."""
    kind, length = struct.unpack(order + "II", file.read(8))
    if file.tell() + length > size:
        raise Damaged("it is cut off")
    part = _Part(file, length)
    if kind == MATRIX:
        return part
    if kind != COMPRESSED:
        raise Damaged(f"a variable has the unknown type {kind}")
    inflated = _Inflated(part)
    kind, _ = struct.unpack(order + "II", inflated.read(8))
    if kind != MATRIX:
        raise Damaged(f"a compressed variable has the unknown type {kind}")
    return inflated


def _describe(variable: _Part | _Inflated, order: str) -> tuple[int, tuple[int, ...], str]:
    """Flags, shape and name."""
    flags = _numbers(variable, order, 8)
    if flags.dtype.itemsize != 4 or len(flags) != 2:
        raise Damaged("a variable has no flags")
    shape = _numbers(variable, order, 4 * MOST_DIMENSIONS)
    if flags[0] & 0xFF == 17:  # an opaque object has a name where others have their shape
        return int(flags[0]), (), ""
    if shape.dtype.kind != "i" or len(shape) < 2 or (shape < 0).any():
        raise Damaged("a variable has no shape")
    return int(flags[0]), tuple(shape.tolist()), _numbers(variable, order, MOST_NAME).tobytes().decode("latin-1")


def _check_kind(path: Path, key: str, flags: int) -> None:
    kind = flags & 0xFF
    if kind != SPARSE and kind not in NUMERIC:
        raise ValueError(
            f"{path}: {key!r} holds {KINDS.get(kind, 'something else')}, but labels must be numbers 0 and 1."
        )
    if flags & COMPLEX:
        raise ValueError(f"{path}: {key!r} holds complex numbers, but labels must be numbers 0 and 1.")


def _values(variable: _Part | _Inflated, order: str, flags: int, shape: tuple[int, ...]):
    entries = math.prod(shape)
    if flags & 0xFF != SPARSE:
        values = _numbers(variable, order, 8 * entries)
        if len(values) != entries:
            raise Damaged(f"a matrix of the shape {shape} holds {len(values)} values")
        variable.finish()
        return values.reshape(shape, order="F")
    rows = _numbers(variable, order, 4 * max(entries, 1))
    starts = _numbers(variable, order, 4 * (shape[1] + 1))
    values = _numbers(variable, order, 8 * max(entries, 1))
    variable.finish()
    return sparse_matrix(values, rows, starts, shape)


def sparse_matrix(values: np.ndarray, rows: np.ndarray, starts: np.ndarray, shape) -> scipy.sparse.csc_array:
    """MATLAB's sparse matrix: values and their rows, column by column; `starts` says where each column begins.

    Raises Damaged where an index lies outside, which code that trusts it would follow anywhere in memory.
    """
    if len(starts) != shape[1] + 1 or not len(starts) or not starts[-1] <= min(len(rows), len(values)):
        raise Damaged("its sparse matrix is not whole")
    count = int(starts[-1])
    try:
        matrix = scipy.sparse.csc_array((values[:count], rows[:count], starts), shape=shape)
        matrix.check_format(full_check=True)
    except (ValueError, OverflowError) as error:
        raise Damaged(f"its sparse matrix contradicts itself: {one_line(error)}") from error
    places = np.repeat(np.arange(shape[1]), np.diff(starts)) * shape[0] + rows[:count]
    if len(np.unique(places)) < count:
        raise Damaged("its sparse matrix contradicts itself: it names a place more than once")
    return matrix


def _numbers(variable: _Part | _Inflated, order: str, most: int) -> np.ndarray:
    """The next element, of no more than `most` bytes."""
    tag = bytes(variable.read(8))
    kind, length = struct.unpack(order + "II", tag)
    if kind >> 16:  # a small element: type and size share four bytes, the content has the other four
        kind, length, content = kind & 0xFFFF, kind >> 16, tag[4:]
        if length > 4:
            raise Damaged("a small part of it is too large")
    elif length > most:
        raise Damaged(f"a part of it holds {length:,} bytes where at most {most:,} belong")
    else:
        content = variable.read(length)
        variable.read(-length % 8)
    kind = 1 if kind == 16 else kind  # a name in UTF-8
    if kind not in NUMBERS or length % np.dtype(NUMBERS[kind]).itemsize:
        raise Damaged(f"a part of it has the unknown type {kind} or is not whole")
    return np.frombuffer(content, np.dtype(order + NUMBERS[kind]), length // np.dtype(NUMBERS[kind]).itemsize)
