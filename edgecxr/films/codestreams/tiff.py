"""Checks that TIFF files are whole and of known kinds."""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

from edgecxr.films.codestreams import jpeg, runs

BIG_ENDIAN_BIG = b"MM\0+"
"""Start of a BigTIFF file that Pillow does not know."""

STARTS = (b"II*\0", b"MM\0*", b"II+\0", BIG_ENDIAN_BIG)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_OFFSETS, _ROWS, _COUNTS, _PLANAR, _TABLES, _FORMAT = 273, 278, 279, 284, 347, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_UNCOMPRESSED, _LZW, _JPEG, _DEFLATES, _PACKBITS = 1, 5, 7, (8, 32946), 32773
_UNSIGNED, _SIGNED = 1, 2


def unsupported(tags: Any) -> str | None:
    """Return why a TIFF file would be read wrongly, or None."""
    compressions = (_UNCOMPRESSED, _LZW, _JPEG, *_DEFLATES, _PACKBITS)
    if (compression := tags.get(_COMPRESSION, _UNCOMPRESSED)) not in compressions:
        return f"is compressed by TIFF's method {compression}, in which damage is not found"
    bits = max(tags.get(_BITS, (1,)))
    if _SIGNED in tags.get(_FORMAT, (_UNSIGNED,)) and bits <= 8:
        return "has signed pixels"
    if tags.get(_PLANAR, 1) == 2 and tags.get(_SAMPLES, 1) > 1 and bits != 8:  # Pillow takes their bytes for pixels
        return f"has colours one after the other, each of {bits} bits"
    return "has 1-bit pixels" if bits == 1 else None


def fault(tags: Any, file: BinaryIO) -> str | None:
    """Return what is wrong with a TIFF file's pixels, or None.

    libtiff stops when it has as many pixels as it needs, without a look at checksums or at what is left.

    Args:
        tags: those of Pillow's image.
        file: the file; its position is kept.

    Raises:
        Exception: nearly any, of a malformed file.
    """
    compression, tiled = tags.get(_COMPRESSION, _UNCOMPRESSED), _TILE_OFFSETS in tags
    if compression not in (_JPEG, *_DEFLATES, _PACKBITS):
        return None  # the decoder speaks
    height, planes = tags[_HEIGHT], tags.get(_SAMPLES, 1) if tags.get(_PLANAR, 1) == 2 else 1
    samples = 1 if planes > 1 else tags.get(_SAMPLES, 1)
    width, rows = tags[_TILE_WIDTH if tiled else _WIDTH], tags[_TILE_HEIGHT] if tiled else tags.get(_ROWS, height)
    row = (width * samples * max(tags.get(_BITS, (1,))) + 7) // 8
    offsets, counts = (tags[tag] for tag in ((_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)))
    strips = -(-height // rows)
    position = file.tell()
    try:
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
            file.seek(offset)
            data = file.read(count)
            if len(data) < count:
                return "it ends before its pixels"
            last = not tiled and number % strips == strips - 1
            length = row * (height - rows * (strips - 1) if last else min(rows, height) if not tiled else rows)
            if compression == _JPEG:
                tables = tags.get(_TABLES, b"")
                wrong = jpeg.fault(tables[:-2] + data[2:] if tables else data)
            else:
                wrong = runs.fault(data, length) if compression == _PACKBITS else _inflated(data, length)
            if wrong:
                return wrong
    finally:
        file.seek(position)
    return None


def _inflated(data: bytes, length: int) -> str | None:
    inflating = zlib.decompressobj()
    byte_count = len(inflating.decompress(data, length + 1))
    return None if byte_count == length and inflating.eof else "its pixels do not unpack to their size"
