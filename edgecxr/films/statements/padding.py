"""Padding of a film's pixels that a DICOM file states (PS3.3 C.7.5.1.1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.statements.stated_numbers import number

if TYPE_CHECKING:
    from pydicom import Dataset


def padding_ends(dataset: Dataset, signed: bool, warnings: list[str]) -> tuple[float, float] | None:
    """Return the least and the largest value of padding, or None."""
    value, limit = (number(dataset, keyword, warnings) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None and limit is not None:
        warnings.append("the file gives PixelPaddingRangeLimit alone; pixels of that value were taken as padding")
    # The sign of these elements is often that of another pixel representation.
    wrapped = [
        end + 65536 if end < 0 and not signed else end - 65536 if end > 32767 and signed else end
        for end in (value, limit)
        if end is not None
    ]
    return (min(wrapped), max(wrapped)) if wrapped else None


def padded_values(dataset: Dataset, stored: NDArray[np.int64], warnings: list[str]) -> NDArray[np.bool_] | None:
    """Return which stored values are padding (PS3.3 C.7.5.1.1.2), or None."""
    ends = padding_ends(dataset, bool(stored.min() < 0), warnings)
    return None if ends is None else (stored >= ends[0]) & (stored <= ends[1])


def padding_words(dataset: Dataset, bits: int, width: int, signed: bool) -> NDArray[np.bool_] | None:
    """Return which words are padding that has more bits than are stored.

    Args:
        dataset: the file's elements.
        bits: those stored.
        width: bits of a word.
        signed: whether words are signed.

    Returns:
        (2 ** width,); None if padding is a stored value, or there is none.
    """
    words = np.arange(1 << width)
    if signed:
        words[1 << (width - 1) :] -= 1 << width
    ends = padding_ends(dataset, signed, [])
    lowest = -(1 << (bits - 1)) if signed else 0
    if ends is None or (lowest <= ends[0] and ends[1] < lowest + (1 << bits)):
        return None
    return (words >= ends[0]) & (words <= ends[1])
