"""Merging of several readers' labels of a film."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import UsageError
from edgecxr.vocabulary import FloatArray

MERGES = ("majority", "union", "mean")


def check_merge(merge: str) -> None:
    """Raise `UsageError` for an unknown way to merge readers."""
    if merge not in MERGES:
        raise UsageError(f"unknown merge {merge!r} (there are: {', '.join(MERGES)})")


def merge_readers(values: FloatArray, image: NDArray[np.intp], count: int, merge: str) -> FloatArray:
    """Merge the readings of each image.

    A reader counts only if the cell is not empty.

    Args:
        values: (R, L + 1) in [0, 1] or NaN; the last column is "No finding".
        image: (R,) image of each reading, in [0, count).
        count: number of images, N.
        merge: "majority" (more than half), "union" (any; for "No finding" all must agree) or "mean".

    Returns:
        (N, L + 1) in [0, 1], or NaN if no reader gave a value.
    """
    label_counts, total = (np.zeros((count, values.shape[1])) for _ in range(2))
    np.add.at(label_counts, image, ~np.isnan(values))
    np.add.at(total, image, np.nan_to_num(values))
    mean = total / np.maximum(label_counts, 1)
    merged = mean
    if merge == "majority":
        merged = np.where(mean > 0.5, 1.0, 0.0)
    elif merge == "union":
        # One reader with a finding outweighs those with "No finding".
        merged = np.where(mean > 0, 1.0, 0.0)
        merged[:, -1] = mean[:, -1] == 1
    result: FloatArray = np.where(label_counts > 0, merged, np.nan).astype(np.float32)
    return result
