"""Tables of offsets of the frames of compressed pixel data.

Decoders follow them, but a broken one can be done without: fragments are in the order of their frames.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_fragments

_EXTENDED = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_HEADER = 8
"""Bytes of an item's tag and length, before its value."""


def without_broken_offsets(dataset: Dataset) -> bool:
    """Remove broken tables of offsets, in place.

    The fragments stay as they are. A table for more frames than the file says is not broken. A basic one of several
    frames is kept if they have several fragments, since nothing else says which belong together.

    Returns:
        Whether there was one.
    """
    if not dataset["PixelData"].is_undefined_length:
        return False
    frames = int(dataset.get("NumberOfFrames") or 1)
    table, *fragments = generate_fragments(dataset.PixelData)
    lengths = [len(fragment) for fragment in fragments]
    places = dict(zip(accumulate((_HEADER + length for length in lengths), initial=0), lengths, strict=False))
    broken = False
    if any(keyword in dataset for keyword in _EXTENDED) and not _extended_fits(dataset, places, frames):
        for keyword in _EXTENDED:
            dataset.pop(keyword, None)
        broken = True
    whole = len(table) % 4 == 0 and _fits(np.frombuffer(table, "<u4"), places, frames)
    if table and not whole and (frames == 1 or len(fragments) == frames):
        dataset["PixelData"].value = dataset.PixelData[:4] + bytes(4) + dataset.PixelData[_HEADER + len(table) :]
        broken = True
    return broken


def _fits(offsets: NDArray[np.unsignedinteger], places: dict[int, int], frames: int) -> bool:
    """Return whether offsets are those of fragments.

    Args:
        offsets: of each frame.
        places: offset of each fragment -> its length.
        frames: as many as the file says.
    """
    listed = offsets.tolist()
    if len(listed) < frames or not places.keys() >= set(listed):
        return False
    return len(set(listed)) == len(listed) and (frames > 1 or (listed[0] == 0 and sorted(listed) == listed))


def _extended_fits(dataset: Dataset, places: dict[int, int], frames: int) -> bool:
    tables = [dataset.get(keyword) for keyword in _EXTENDED]
    if not all(isinstance(table, bytes) and len(table) % 8 == 0 for table in tables):
        return False
    offsets, lengths = (np.frombuffer(table, "<u8") for table in tables)
    if len(offsets) != len(lengths) or not _fits(offsets, places, frames):
        return False
    # Each frame is in one fragment, which a byte may fill up.
    return all(
        places[place] - length in (0, 1) for place, length in zip(offsets.tolist(), lengths.tolist(), strict=True)
    )
