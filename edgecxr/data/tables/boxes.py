"""Boxes around findings, read from tables and scaled to 224 px."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import Box
from edgecxr.data.tables.table import Table, listing, read_table
from edgecxr.errors import InputError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.vocabulary import FloatArray

BOXES = "boxes.csv"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
COLUMNS = ("id", "label", *CORNERS)

_LABELS = ("label", "finding", "class_name", "finding label")
_SIZED = ("x", "y", "w", "h")
ALIASES = {"Infiltrate": "Infiltration"}
"""Names of findings in NIH's list of boxes -> in its table of labels."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The K boxes around findings of a prepared data set.

    They are sorted by image, label and corners. A finding may have several boxes, also of several readers. An image may
    have a finding without a box.

    Attributes:
        image: (K,) rows of the prepared data set.
        label: (K,) columns of its labels.
        corners: (K, 4) float32 x_min, y_min, x_max, y_max in pixels of the 224 px image, continuous, in [0, 224].
    """

    image: NDArray[np.intp]
    label: NDArray[np.intp]
    corners: FloatArray

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.image)


def film_corners(table: Table, columns: Sequence[str] = CORNERS, sized: bool = False) -> NDArray[np.float64]:
    """Return the corners in a table of boxes.

    Args:
        table: one box per row.
        columns: names of the columns x_min, y_min, x_max, y_max, which must exist.
        sized: whether the last two columns hold width and height instead.

    Returns:
        (R, 4) x_min, y_min, x_max, y_max in pixels of the film; NaN if all four cells are empty.

    Raises:
        InputError: a cell is not a number, or the four are not a box; reason "dataset".
    """
    corners = np.stack([table.numbers(column) for column in columns], axis=1)
    given = (~np.isnan(corners)).sum(axis=1)
    if sized:
        corners[:, 2:] += corners[:, :2]
    wrong = np.flatnonzero(((given > 0) & (given < 4)) | (corners[:, 2:] < corners[:, :2]).any(axis=1))
    if len(wrong):
        cells = ", ".join(f"{column} {table.columns[column][wrong[0]] or 'empty'}" for column in columns)
        rule = "a width and a height from 0 on" if sized else "minima that are not above the maxima"
        raise InputError(
            f"line {table.lines[wrong[0]]} of {table.path} is no box ({cells}): give four numbers with {rule}",
            "dataset",
        )
    return corners


def listed_boxes(
    listed: Table, table: Table, image_column: str, files: Sequence[Path], labels: Sequence[str]
) -> tuple[tuple[Box, ...], list[str]]:
    """Return the boxes that belong to a data set's images and labels.

    Args:
        listed: one box per row; a row with four empty corners is not a box.
        table: table of the data set.
        image_column: column of images in both; in `listed` it may also hold paths relative to the folder of `table`.
        files: the N images of `table`.
        labels: the L findings.

    Returns:
        The boxes, and up to two warnings: on boxes of unknown images and on boxes of unknown findings.

    Raises:
        InputError: a column is missing, or a row is not a box; reason "dataset".
    """
    listed.require((image_column,))
    label_column = listed.called(_LABELS, (image_column,))
    if label_column is None:
        raise InputError(
            f"{listed.path} has no column of findings (it has: {listing(listed.columns)}): call it label, finding or "
            "class_name",
            "dataset",
        )
    here = Path.cwd()
    rows = {os.path.normpath(here / file): row for row, file in enumerate(files)}
    rows |= {image: row for row, image in enumerate(table.columns[image_column])}
    boxes = []
    left_out: dict[str, list[str]] = {"images": [], "findings": []}
    names = zip(listed.columns[image_column], listed.columns[label_column], strict=True)
    for (image, finding), corners in zip(names, _listed_corners(listed).tolist(), strict=True):
        if math.isnan(corners[0]):
            continue
        spellings = (image, *(os.path.normpath(here / table.path.parent / path) for path in _slashes(image)))
        row = next((rows[spelling] for spelling in spellings if spelling in rows), None)
        label = finding if finding in labels else ALIASES.get(finding, finding)
        if row is None:
            left_out["images"].append(image)
        elif label not in labels:
            left_out["findings"].append(finding)
        else:
            boxes.append(Box(row, label, *corners))
    return tuple(boxes), left_out_warnings(left_out, table.path.name)


def left_out_warnings(left_out: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """Return a warning for each reason why boxes are left out.

    Args:
        left_out: "images" or "findings" -> the unknown ones, one for each box.
        where: what does not know them.
    """
    return [
        f"boxes left out: {len(unknown)}; {where} has no such {kind} ({listing(dict.fromkeys(unknown), 3)})"
        for kind, unknown in left_out.items()
        if unknown
    ]


def _slashes(image: str) -> tuple[str, str]:
    return image, image.replace("\\", "/")


def _listed_corners(listed: Table) -> NDArray[np.float64]:
    for names, sized in ((CORNERS, False), (_SIZED, True)):
        columns = [column for name in names if (column := listed.called((name,)))]
        if len(columns) == len(names):
            return film_corners(listed, columns, sized)
    raise InputError(
        f"{listed.path} has no corners of boxes (it has: {listing(listed.columns)}): call them {', '.join(CORNERS)} or "
        f"{', '.join(_SIZED)}",
        "dataset",
    )


def scaled(boxes: Iterable[Box], shapes: Mapping[int, tuple[int, int]], labels: Sequence[str]) -> list[Box]:
    """Return boxes in pixels of the 224 px image.

    They are clipped to the image and sorted by image, label and corners. Each axis has its own scale, since the resize
    does not keep the aspect ratio.

    Args:
        boxes: boxes in pixels of the film.
        shapes: index of an image -> (rows, columns) of its film; boxes of other images are left out.
        labels: labels in order; boxes of other labels are left out.

    Returns:
        The boxes with an area, rounded to 2 decimals.
    """
    order = {label: place for place, label in enumerate(labels)}
    result = []
    for box in boxes:
        if box.index not in shapes or box.label not in order:
            continue
        rows, columns = shapes[box.index]
        sides = (columns, rows, columns, rows)
        corners = [
            round(min(max(corner * BASE_SIZE / side, 0.0), BASE_SIZE), 2)
            for corner, side in zip(box[2:], sides, strict=True)
        ]
        x_min, y_min, x_max, y_max = corners
        if x_min < x_max and y_min < y_max:
            result.append(Box(box.index, box.label, x_min, y_min, x_max, y_max))
    return sorted(result, key=lambda box: (box.index, order[box.label], box[2:]))


def read_boxes(path: Path, ids: NDArray[np.str_], labels: Sequence[str]) -> Boxes:
    """Read the boxes.csv of a prepared data set.

    Args:
        path: the file; if it does not exist, there are no boxes.
        ids: (N,) names of the prepared images.
        labels: the L findings.

    Raises:
        InputError: the file is not a table, or a cell is not a number.
        ValueError: the file does not fit the data set.
    """
    if not path.exists():
        return Boxes(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32))
    table = read_table(path, written=True)
    if tuple(table.columns) != COLUMNS:
        raise ValueError(f"{path.name} has other columns than {', '.join(COLUMNS)}")
    rows = {name: row for row, name in enumerate(ids.tolist())}
    places = {label: place for place, label in enumerate(labels)}
    try:
        image = np.array([rows[name] for name in table.columns["id"]], np.intp)
        label = np.array([places[name] for name in table.columns["label"]], np.intp)
    except KeyError as error:
        raise ValueError(f"{path.name} names {error}, which is no image or label of the data set") from None
    corners = film_corners(table).astype(np.float32)
    # An empty cell is NaN, which fails every comparison.
    if not ((corners >= 0) & (corners <= BASE_SIZE)).all() or not (corners[:, :2] < corners[:, 2:]).all():
        raise ValueError(f"{path.name} holds a box that is not inside the image")
    return Boxes(image, label, corners)
