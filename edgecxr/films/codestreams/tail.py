"""Warning about films whose last rows are all of one value.

A stream that ended early, or lost its end on the way, decodes to that where its decoder does not speak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1 / 8
"""Share of the rows; of 7,112 real films one has more, and it has borders of the same black at both sides."""

FRAMED = 1 / 3
"""The same for films with a border of the same value elsewhere: that of a collimator, or of a square picture."""

_BORDER = 0.02  # share of the rows or columns


def tail(pixels: NDArray[Any], padded: bool = False) -> str | None:
    """Return a warning if a film's last rows have one value.

    Else None is returned.

    Args:
        pixels: (H, W), or (H, W, C), as they are stored: neither turned nor windowed.
        padded: whether the file says that pixels of the last one's value are padding. A film that is cut off ends in
            zeros, which are the usual padding, too: `FRAMED` counts for them. Other padding is none of a cut.
    """
    value = pixels[-1, -1]
    if not (pixels[-1] == value).all() or (padded and np.any(value)):
        return None
    same = pixels == value
    same = same if same.ndim == 2 else same.all(axis=-1)
    rows = same.all(axis=1)
    count = len(rows) if rows.all() else int(rows[::-1].argmin())
    if count == len(rows) or count < len(rows) * (FRAMED if padded or _framed(same) else LEAST):
        return None
    return f"the last {count / len(rows):.0%} of its rows have one value; the film may be cut off"


def _framed(same: NDArray[np.bool_]) -> bool:
    deep, wide = (int(np.ceil(_BORDER * side)) for side in same.shape)
    return any(bool(border.all()) for border in (same[:deep], same[:, :wide], same[:, -wide:]))
