"""Checks that runs are whole: DICOM's RLE and TIFF's PackBits."""

from __future__ import annotations

import struct
from itertools import pairwise


def fault_of_frame(stream: bytes, rows: int, columns: int) -> str | None:
    """Return what is wrong with a frame of DICOM's RLE, or None.

    The format is that of PS3.5 G.

    Args:
        stream: the frame, with its header of 64 bytes.
        rows: those of the image.
        columns: those of the image.
    """
    if len(stream) < 64:
        return "the frame has no header"
    count, *places = struct.unpack("<16L", stream[:64])
    if not 1 <= count <= 15:
        return None  # the decoder names it
    edges = [*places[:count], len(stream)]
    if edges[0] < 64 or sorted(edges) != edges:
        return "the segments are not in order"
    for first, last in pairwise(edges):
        if wrong := fault(stream[first:last], rows * columns):
            return wrong
    return None


def fault(data: bytes, length: int) -> str | None:
    """Return what is wrong with run-length encoded bytes, or None.

    The runs of damaged data have another length than the image, nearly always.

    Args:
        data: the runs.
        length: the number of bytes that they stand for.
    """
    position = pixel_count = 0
    size = len(data)
    while position < size and pixel_count < length:
        code = data[position]
        if code < 128:
            pixel_count += code + 1
            position += code + 2
        else:
            pixel_count += 257 - code if code > 128 else 0
            position += 2 if code > 128 else 1
    if pixel_count != length or position > size:
        return f"its runs hold {'more' if pixel_count > length else 'fewer'} pixels than the image"
    return "its runs end before its data" if any(data[position:]) else None
