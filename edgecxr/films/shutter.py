"""Display shutter of a DICOM file.

What is outside is not part of the film (PS3.3 C.7.6.11).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

_LEAST = 0.05
"""Least share of a film that a shutter leaves; one that leaves less is a mistake."""


def shutter(dataset: Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return which pixels a file's shutter leaves visible.

    Args:
        dataset: the file.
        shape: rows and columns of the decoded frame, which may be smaller than those of the file.

    Returns:
        (H, W), all true without a shutter; None if it is malformed or hides nearly all.
    """
    shapes = dataset.get("ShutterShape")
    if not shapes:
        return np.ones(shape[:2], bool)
    kinds = {str(kind).strip().upper() for kind in ([shapes] if isinstance(shapes, str) else shapes)}
    if not kinds <= {"RECTANGULAR", "CIRCULAR", "POLYGONAL"}:
        return None
    rows = (np.arange(shape[0]) + 0.5) * (int(dataset.Rows) / shape[0]) + 0.5  # as DICOM counts them, from 1
    columns = (np.arange(shape[1]) + 0.5) * (int(dataset.Columns) / shape[1]) + 0.5
    visible = np.ones(shape[:2], bool)
    try:
        if "RECTANGULAR" in kinds:
            upper, lower = float(dataset.ShutterUpperHorizontalEdge), float(dataset.ShutterLowerHorizontalEdge)
            left, right = float(dataset.ShutterLeftVerticalEdge), float(dataset.ShutterRightVerticalEdge)
            visible &= ((rows >= upper) & (rows <= lower))[:, None] & ((columns >= left) & (columns <= right))[None]
        if "CIRCULAR" in kinds:
            row, column = (float(value) for value in dataset.CenterOfCircularShutter)
            radius = float(dataset.RadiusOfCircularShutter)
            visible &= (rows[:, None] - row) ** 2 + (columns[None] - column) ** 2 <= radius**2
        if "POLYGONAL" in kinds:
            visible &= _inside([float(value) for value in dataset.VerticesOfThePolygonalShutter], rows, columns)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return visible if visible.mean() >= _LEAST else None


def _inside(vertices: list[float], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels are inside a polygon, by the even-odd rule."""
    corners = list(zip(vertices[0::2], vertices[1::2], strict=True))
    inside = np.zeros((len(rows), len(columns)), bool)
    for (row, column), (last_row, last_column) in zip(corners, corners[-1:] + corners[:-1], strict=True):
        if row == last_row:
            continue
        between = (rows < row) != (rows < last_row)
        crossing = (last_column - column) * (rows - row) / (last_row - row) + column
        inside ^= between[:, None] & (columns[None] < crossing[:, None])
    return inside
