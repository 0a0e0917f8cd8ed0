"""Arrays in .npy format, whose header is checked before memory is used.

The format is that of https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.storage.reading import BadFile, open_file, size_of

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_LONGEST_HEADER = 10_000  # as NumPy's own limit
_MOST_AXES = 8
_BLOCK = 1 << 20
# Booleans, whole numbers, floats and text: no objects, which would be pickles, and no records.
_KIND = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|U\d{1,9})")


@dataclass(frozen=True)
class Header:
    """The header of an array, checked.

    Attributes:
        shape: its shape.
        dtype: its kind of number, or text.
        in_columns: whether the first index changes fastest, as in Fortran.
        begin: number of bytes of magic and header, before the first value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_columns: bool
    begin: int

    @property
    def count(self) -> int:
        """Number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(read: Callable[[int], bytes], available: int) -> Header:
    """Read the header of an array.

    Args:
        read: returns the next bytes of the file, fewer at its end.
        available: number of bytes of the whole file.

    Raises:
        BadFile: there is no such header, or its array has another number of bytes than the file.
    """
    begin = _exactly(read, 8)
    length_bytes = _LENGTH_BYTES.get(begin[6])
    if begin[:6] != _MAGIC or length_bytes is None:
        raise BadFile("it is no array in .npy format")
    length = int.from_bytes(_exactly(read, length_bytes), "little")
    if length > _LONGEST_HEADER:
        raise BadFile(f"its header has {length} bytes")
    text = _exactly(read, length).decode("utf-8" if begin[6] == 3 else "latin-1", errors="replace")
    header = _parsed(text, 8 + length_bytes + length)
    if header.begin + header.count != available:
        raise BadFile(
            f"it has {available} bytes, and {header.dtype} of shape {header.shape} has {header.begin + header.count}"
        )
    return header


def map_array(path: Path, check: Callable[[Header], None]) -> NDArray[Any]:
    """Return the array of a file, mapped from the disk and read-only.

    Args:
        path: the file.
        check: raises an error if the header is not that of the wanted array.

    Raises:
        BadFile: the file is no regular one, or not an array in .npy format, of the size that it claims.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        header = read_header(file.read, size_of(file))
        check(header)
        if not header.count:
            return np.empty(header.shape, header.dtype)
        order: Any = "F" if header.in_columns else "C"
        # The checked file itself: another one may have its name by now.
        return np.memmap(file, header.dtype, "r", header.begin, header.shape, order)


def read_values(read: Callable[[int], bytes], header: Header) -> NDArray[Any]:
    """Return the values that follow a header.

    Args:
        read: returns the next bytes of the file, fewer at its end.
        header: the header that was read before.

    Raises:
        BadFile: the file ends before, or there is not enough memory.
    """
    try:
        shape = header.shape[::-1] if header.in_columns else header.shape
        values = np.empty(shape, header.dtype)
        target = values.reshape(-1).view(np.uint8) if header.count else np.empty(0, np.uint8)
        for start in range(0, header.count, _BLOCK):
            block = _exactly(read, min(_BLOCK, header.count - start))
            target[start : start + len(block)] = np.frombuffer(block, np.uint8)
    except MemoryError as error:
        raise BadFile(f"there is no memory for {header.dtype} of shape {header.shape}") from error
    return values.T if header.in_columns else values


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    parts = []
    while count:
        part = read(count)
        if not part:
            raise BadFile("it ends too early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _parsed(text: str, begin: int) -> Header:
    if "\\" in text:  # Python warns of doubtful escapes, and no header needs any
        raise BadFile("its header is no description of an array")
    try:
        values = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise BadFile("its header is no description of an array") from error
    if not isinstance(values, dict) or set(values) != {"descr", "fortran_order", "shape"}:
        raise BadFile("its header is no description of an array")
    kind, in_columns, shape = values["descr"], values["fortran_order"], values["shape"]
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise BadFile("its values are neither numbers nor text")
    if type(in_columns) is not bool or type(shape) is not tuple or len(shape) > _MOST_AXES:
        raise BadFile("its header gives no shape")
    if not all(type(side) is int and 0 <= side < 1 << 48 for side in shape):
        raise BadFile("its header gives a shape that no array has")
    try:
        return Header(shape, np.dtype(kind), in_columns, begin)
    except TypeError as error:  # such as a text of more than 2 GiB
        raise BadFile("its values are neither numbers nor text") from error
