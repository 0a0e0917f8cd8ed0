"""Check by its pixels whether an image may be a chest film."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecxr.films.radiograph import Objection

TINY = 64
"""Fewest pixels of a film's shorter side; a smaller image is a thumbnail."""

_EXTREMES = 0.75
"""Largest share of black and white pixels; 5,000 chest films of three data sets have at most 0.49."""

_LEAST_RANGE = 16
"""Fewest grey levels of 255 between the percentiles 1 and 99; the same films have at least 92."""


def of_image(image: NDArray[np.uint8], shape: tuple[int, ...]) -> list[Objection]:
    """Return the objections that a film's pixels raise.

    Args:
        image: (S, S), the image that models' inputs are made from.
        shape: rows and columns of the film itself.
    """
    objections = []
    if min(shape) < TINY:
        objections.append(
            Objection("tiny", f"it has only {shape[0]} x {shape[1]} pixels, and a film has at least {TINY}")
        )
    counts = np.bincount(image.ravel(), minlength=256)
    share = counts.cumsum() / image.size
    low, high = np.searchsorted(share, (0.01, 0.99))
    extremes = (counts[0] + counts[255]) / image.size
    if high - low < _LEAST_RANGE:
        objections.append(
            Objection("blank", f"it is nearly blank, 98 % of its pixels are within {_LEAST_RANGE} of 255 grey levels")
        )
    elif extremes > _EXTREMES:
        objections.append(Objection("saturated", f"{extremes:.0%} of its pixels are fully black or white"))
    return objections
