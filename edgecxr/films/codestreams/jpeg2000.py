"""Decode large JPEG 2000 films at half their size.

A codestream also holds its image at half the size, a quarter and so on. Models see the mean over many pixels, so a film
of several thousand pixels is decoded at half its size, in a third of the time and a quarter of the memory. Pillow can
do that, pydicom's decoders cannot. Unusual and damaged films are left to the full decoder, which decides whether they
can be used.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.signatures import JPEG_2000

LEAST = 896
"""Fewest pixels of the shorter side after halving, four times what most models see; fewer give errors at edges."""

_FEWEST_BITS = 10
"""Halving rounds down, by half a grey value on average, which would be visible in 8 bits."""

_SIZ = struct.Struct(">HHH8LHBBB")  # marker, length, capabilities, sizes and offsets, components, first component
_START = JPEG_2000[0]
_COD, _COC, _TILE, _DATA = 0x52, 0x53, 0x90, 0x93
_RESERVED = re.compile(rb"\xff[\x90\x93-\xff]")  # without the two markers that may stand before and after packets
_SOP = 2  # in the style: packets are numbered, by any bytes
_RAW = 1 | 0x40  # in the style of blocks: bits that are not coded, or those of HTJ2K

_ZEROS = 16
"""Bytes of zero in a row that do not happen in coded data by chance."""


def halved(stream: bytes, rows: int, columns: int) -> NDArray[np.uint16] | None:
    """Decode a grey film at half its size.

    A sample of the smaller image is at the position of the first of its 2 x 2 pixels, not in their middle. With an odd
    number of rows or columns, the last sample covers one pixel that does not exist. So the samples are interpolated to
    their proper positions.

    Compared with the full decoder, a 224 px image of a film that is shown in its full range differs by 0.15 of 255 grey
    levels on average and by 5 in 99.9 % of its pixels; a 448 px image by 0.25 and 9. Those are films as they were seen.
    At hard edges from black to white, such as those of burnt-in marks, more is lost, and how much follows from the
    wavelets' low-pass filters for any length from 1,792 pixels on: at most 18 levels (448 px: 36) where one edge
    crosses a pixel, 36 (70) at a corner or a line, and 12 (24) more where the smaller image would leave the range and
    is clipped. Patterns of single pixels have no bound of use: one that was made for it differs by 143 at 448 px. A
    narrower window enlarges the differences.

    Args:
        stream: the whole codestream.
        rows: the number of rows that it must have.
        columns: the number of columns that it must have.

    Returns:
        (rows // 2, columns // 2) of the codestream's precision, 10 to 16 bits, the shorter side at least `LEAST`; None
        if the full decoder has to be used.
    """
    if min(rows, columns) < 2 * LEAST or not stream.startswith(_START) or len(stream) < 2 + _SIZ.size:
        return None
    _, _, _, *grid, components, precision, step_x, step_y = _SIZ.unpack_from(stream, 2)
    ordinary = grid[:4] == [columns, rows, 0, 0] and grid[6:] == [0, 0] and (components, step_x, step_y) == (1, 1, 1)
    bits = precision + 1  # the highest bit of this field marks signed values
    # Require the end marker: a truncated stream may still hold the whole smaller image.
    whole = b"\xff\xd9" in stream[-4:]
    style = _style(stream)
    if not ordinary or not whole or not _FEWEST_BITS <= bits <= 16 or style is None or style.levels < 1:
        return None
    values = _decoded(stream)
    if values is None or values.shape != (-(-rows // 2), -(-columns // 2)):
        return None
    image = _placed(_placed(values >> (16 - bits), rows).T, columns).T  # Pillow shifts values up to 16 bits
    return np.ascontiguousarray(np.rint(image), dtype=np.uint16)


class _Style(NamedTuple):
    """What a main header says of the coding.

    Attributes:
        levels: how often the image can be halved.
        end: where the main header ends.
        zeros: the most bytes of zero in a row that whole coded data may have; None if any number.
        plain: whether no markers are allowed within coded data.
    """

    levels: int
    end: int
    zeros: int | None
    plain: bool


def _style(stream: bytes) -> _Style | None:
    """Read the main header of a codestream, or return None."""
    coding_style, several = None, False
    for marker, position in _markers(stream, 2):
        if marker == _TILE:
            if coding_style is None:
                return None
            style, layers, levels, precincts, blocks = coding_style
            packets, count = _packets(stream, layers, levels, blocks, precincts)
            # Streams of raw bits and of HTJ2K may hold zeros; so may the headers of later layers, a bit for each block.
            zeros = None if several or blocks[2] & _RAW else _ZEROS + packets + (count // 8 if layers > 1 else 0)
            return _Style(levels, position, zeros, not style & _SOP)
        if marker == _COD and position + 14 <= len(stream):
            style, _, layers, _, levels, *blocks = struct.unpack_from(">BBHBBBBB", stream, position + 4)
            precincts = stream[position + 14 : position + 15 + levels] if style & 1 else b"\xff" * (levels + 1)
            coding_style = (style, layers, levels, precincts, blocks)
        several |= marker == _COC
    return None


def _markers(stream: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield a header's markers and places, up to tiles or data."""
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        yield marker, position
        (length,) = struct.unpack_from(">H", stream, position + 2)
        if marker in (_TILE, _DATA) or length < 2:
            return  # a search of the whole stream would be slow
        position += 2 + int(length)


def _packets(stream: bytes, layers: int, levels: int, blocks: Sequence[int], precincts: bytes) -> tuple[int, int]:
    """Return the most packets of a tile, and a component's blocks."""
    _, _, _, width, height, _, _, tile_width, tile_height, _, _, components, *_ = _SIZ.unpack_from(stream, 2)
    sides = min(width, tile_width), min(height, tile_height)
    packets = 0
    for level, exponents in enumerate(precincts[: levels + 1]):
        steps = (exponents & 15, exponents >> 4)
        across, down = (((side >> (levels - level)) >> step) + 2 for side, step in zip(sides, steps, strict=True))
        packets += across * down if min(steps) < 15 else 1
    across, down = ((side >> (2 + exponent)) + 2 for side, exponent in zip(sides, blocks[:2], strict=True))
    return packets * layers * components, across * down


def _decoded(stream: bytes) -> NDArray[Any] | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as image:
            if image.mode != "I;16":
                return None
            image.reduce = 1
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # the full decoder reports the error
        return None


def _placed(values: NDArray[Any], length: int) -> NDArray[np.float32]:
    """Interpolate (h, w) along its first axis to `length // 2` rows.

    They are at the middles of equal parts of the film's `length` pixels.
    """
    count = length // 2
    middles = ((np.arange(count) + 0.5) * (length / count) - 0.5) / 2
    first = np.floor(middles).astype(np.intp)
    share = (middles - first).astype(np.float32)[:, None]
    following = np.minimum(first + 1, len(values) - 1)
    image = values.astype(np.float32)
    return image[first] + share * (image[following] - image[first])


def fault(stream: bytes) -> str | None:
    """Return what is wrong with a JPEG 2000 stream, or None.

    Decoders are silent about damage to coded data. No byte above 0x8F follows one of 0xFF there (ISO 15444-1 A.1), and
    arithmetic codes have no zeros in a row: only packets without content are bytes of zero. Other damage is not found;
    it stays near its place.

    Args:
        stream: the codestream, or a JP2 file.
    """
    start = stream.find(_START)
    stream = stream[start:] if start > 0 else stream
    style = _style(stream) if start >= 0 and len(stream) > 2 + _SIZ.size else None
    if style is None:
        return None  # the decoder names it
    place = style.end
    while stream[place : place + 2] == bytes((0xFF, _TILE)) and place + 12 <= len(stream):
        (length,) = struct.unpack_from(">L", stream, place + 6)
        markers = dict(_markers(stream, place + 12))
        data, end = markers.get(_DATA, 0) + 2, place + length if length else max(place, stream.rfind(b"\xff\xd9"))
        if not place < data <= end <= len(stream):
            return "a tile breaks off"
        if style.plain and _RESERVED.search(stream, data, end):
            return "there is a marker within the coded data"
        zeros = None if _COD in markers or _COC in markers else style.zeros
        if zeros is not None and stream.find(bytes(zeros), data, end) >= 0:
            return f"there are {zeros} zeros in a row within the coded data"
        place = end
    return None
