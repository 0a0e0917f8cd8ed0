"""Films whose pixels line up in rows of another length.

Rows and Columns that are exchanged, or that are others with the same product, fit the number of pixels, so that the
length of the pixel data tells nothing. But a film hardly changes from one row to the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CLEAR = 1 / 2
"""The change from row to row, as a share of that by Columns, at which another length is believed.

By the right length it was 1.06 or more for 441 films and other images, but for one test pattern. Of 1,837 films with
exchanged sides 13 are not told: their sides, or one and twice the other, differ by one or two pixels. One that is a
whole multiple of the other is not told either.
"""

_PLAIN = 2.0  # at less than this times the change within a row the rows line up,
_SLIGHT = 0.05  # and at less than this times the film's contrast: a few edges, as in a test pattern
_BESIDE = 8  # part of a length: so far beside the right one the film is another
_PLACES, _LENGTH = 24, 512  # of what is compared
_SHORTEST, _MOST_UNEQUAL = 128, 4  # of rows, in pixels: smaller ones are no films; and of both sides


def other_row_length(pixels: NDArray[np.generic]) -> int | None:
    """Return the length of rows by which pixels line up.

    Args:
        pixels: (H, W), as they are stored.

    Returns:
        None if it is W, or unclear.
    """
    rows, columns = pixels.shape
    lengths = list(_lengths(rows * columns, columns))
    flat, furthest = pixels.reshape(-1), max([columns, *(length + max(columns, length) // 2 for length in lengths)])
    count = min(_LENGTH, flat.size - furthest)
    if not lengths or count < 1:
        return None
    starts = np.linspace(0, flat.size - furthest - count, _PLACES).astype(int)
    places = (starts[:, None] + np.arange(count)).ravel()
    here = flat[places].astype(np.float32)

    def change(distance: int) -> float:
        return float(np.abs(flat[places + distance] - here).mean())

    by_columns = change(columns)
    if by_columns <= _PLAIN * change(1) or by_columns <= _SLIGHT * float(np.abs(here - here.mean()).mean()):
        return None
    changes = ((change(length), length) for length in lengths)
    for least, length in sorted(pair for pair in changes if pair[0] < CLEAR * by_columns):
        # A pattern that repeats every few rows, as stripes of a detector or a grid do, also lines up by that many rows,
        # and by a length that is nearly theirs. Other lengths line up nowhere beside them.
        multiple = columns * max(1, round(length / columns))
        beside = (length - length // _BESIDE, length + length // _BESIDE)
        if least < CLEAR * min(map(change, (multiple, *beside))):
            return length
    return None


def _lengths(count: int, columns: int) -> Iterator[int]:
    """Yield the other lengths that rows of `count` pixels may have.

    Whole multiples and parts of `columns` are none, since the same columns lie below each other by them.
    """
    for side in range(_SHORTEST, int(np.sqrt(count)) + 1):
        if count % side == 0 and count // side <= _MOST_UNEQUAL * side:
            yield from (length for length in {side, count // side} if length % columns and columns % length)
