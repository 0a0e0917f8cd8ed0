"""Display shutter of a DICOM file.

What is outside is not part of the film (PS3.3 C.7.6.11).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from edgecxr.errors import brief
from edgecxr.films.statements.view import aspect_of

_LEAST = 0.05
"""Least share of a film that a shutter leaves; one that leaves less is a mistake."""


MAX_CORNERS = 2048
"""Most corners of a polygon; it takes time for each, and a shutter has a few."""

_SHAPES = ("RECTANGULAR", "CIRCULAR", "POLYGONAL")
_FARTHEST = 1e6  # pixels; no coordinate of a shutter is larger


def shutter(dataset: Dataset, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Return which pixels a file's shutter leaves visible.

    Args:
        dataset: the file.
        shape: rows and columns of the decoded frame, which may be smaller than those of the file.

    Returns:
        (H, W), None if nothing is hidden; and warnings of what was applied and what ignored.
    """
    shapes = dataset.get("ShutterShape")
    kinds = {str(kind).strip().upper() for kind in ([shapes] if isinstance(shapes, str) else shapes or ())} - {""}
    others = sorted(kinds.difference(_SHAPES))
    notes = [f"the file's shutter of shape {brief(', '.join(others), 40)} is not supported; it was ignored"] * bool(
        others
    )
    if not kinds.intersection(_SHAPES):
        return None, notes
    try:
        visible = _visible(dataset, kinds, shape)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None, [*notes, "the file's shutter is malformed; it was ignored"]
    if visible is None:
        return None, [*notes, f"the file's shutter has more than {MAX_CORNERS} corners; it was ignored"]
    if visible.all():
        return None, notes
    if visible.mean() < _LEAST:
        return None, [*notes, "the file's shutter hides nearly all; it was ignored"]
    return visible, [*notes, "the file's shutter was applied"]


def _visible(dataset: Dataset, kinds: set[str], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    rows = (np.arange(shape[0]) + 0.5) * (int(dataset.Rows) / shape[0]) + 0.5  # as DICOM counts them, from 1
    columns = (np.arange(shape[1]) + 0.5) * (int(dataset.Columns) / shape[1]) + 0.5
    visible = np.ones(shape[:2], bool)
    if "RECTANGULAR" in kinds:
        upper, lower = float(dataset.ShutterUpperHorizontalEdge), float(dataset.ShutterLowerHorizontalEdge)
        left, right = float(dataset.ShutterLeftVerticalEdge), float(dataset.ShutterRightVerticalEdge)
        visible &= ((rows >= upper) & (rows <= lower))[:, None] & ((columns >= left) & (columns <= right))[None]
    if "CIRCULAR" in kinds:
        row, column = (float(value) for value in dataset.CenterOfCircularShutter)
        radius = float(dataset.RadiusOfCircularShutter)
        # The radius is one along a row (PS3.3 C.7.6.11.1.1); a circle of the body has fewer rows of higher pixels.
        heights = (rows[:, None] - row) * aspect_of(dataset)
        visible &= heights**2 + (columns[None] - column) ** 2 <= radius**2
    if "POLYGONAL" in kinds:
        if _corners(dataset) > MAX_CORNERS:
            return None
        visible &= _inside([float(value) for value in dataset.VerticesOfThePolygonalShutter], rows, columns)
    return visible


def _corners(dataset: Dataset) -> int:
    """Return a polygon's number of corners, before its numbers are parsed."""
    value = dataset.get_item("VerticesOfThePolygonalShutter")
    held = value.value if value is not None else ()
    numbers = held.count(b"\\") + 1 if isinstance(held, bytes) else len(held)
    return int(numbers) // 2


def _inside(vertices: list[float], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels are inside a polygon, by the even-odd rule.

    In each row, an edge that crosses it changes the pixels to its left. How often they are changed is summed up once,
    from the right, so that the time for an edge does not grow with the row's length.
    """
    if max(map(abs, vertices)) > _FARTHEST:
        raise ValueError("a corner that is far away")
    corners = list(zip(vertices[0::2], vertices[1::2], strict=True))
    changes = np.zeros((len(rows), len(columns) + 1), bool)
    for (row, column), (last_row, last_column) in zip(corners, corners[-1:] + corners[:-1], strict=True):
        if row == last_row:
            continue
        first, end = np.searchsorted(rows, sorted((row, last_row)))
        crossing = (last_column - column) * (rows[first:end] - row) / (last_row - row) + column
        changes[np.arange(first, end), np.searchsorted(columns, crossing)] ^= True
    return np.logical_xor.accumulate(changes[:, :0:-1], axis=1)[:, ::-1]
