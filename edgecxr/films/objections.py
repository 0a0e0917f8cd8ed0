"""What the pixels of a film say against its being a chest film."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Objection

TINY = 64
"""Pixels of the shorter side, below which an image is a thumbnail and no film."""

_EXTREMES = 0.75
"""Share of black and white pixels: at most 0.49 on any of 5,000 chest films of three data sets."""

_LEAST_RANGE = 16
"""Grey levels of 255 between the first and the last percentile: at least 92 on the same films."""


def of_image(image: NDArray[np.uint8], shape: tuple[int, ...]) -> list[Objection]:
    """Return what the pixels of a film say against it.

    Args:
        image: (S, S), what models see is made from.
        shape: rows and columns of the film itself.
    """
    found = []
    if min(shape) < TINY:
        found.append(Objection("tiny", f"it has only {shape[0]} x {shape[1]} pixels, and a film has at least {TINY}"))
    counts = np.bincount(image.ravel(), minlength=256)
    share = counts.cumsum() / image.size
    low, high = np.searchsorted(share, (0.01, 0.99))
    extremes = (counts[0] + counts[255]) / image.size
    if high - low < _LEAST_RANGE:
        found.append(
            Objection("blank", f"it is nearly blank, 98 % of its pixels are within {_LEAST_RANGE} of 255 grey levels")
        )
    elif extremes > _EXTREMES:
        found.append(Objection("saturated", f"{extremes:.0%} of its pixels are fully black or white"))
    return found
