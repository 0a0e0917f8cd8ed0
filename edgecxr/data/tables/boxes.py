"""Boxes around findings: from the cells of a table, by way of the film's size, to the 224 px image."""

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
_ALIASES = {"Infiltrate": "Infiltration"}  # NIH's list of boxes and its table of labels have different names for it


@dataclass(frozen=True, eq=False)
class Boxes:
    """The K boxes around findings of a prepared data set, by image, then label, then corners.

    A finding may have several, of several readers too; an image without one may have the finding all the same.

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
        columns: of x_min, y_min, x_max, y_max, which the table has.
        sized: the last two columns hold width and height instead.

    Returns:
        (R, 4) x_min, y_min, x_max, y_max in pixels of the film; NaN where all four cells are empty.

    Raises:
        InputError: a cell is no number, or the four are no box; reason "dataset".
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
    """Return the boxes in a list that are of a data set's images and labels.

    Args:
        listed: one box per row; a row with four empty corners is none.
        table: of the data set.
        image_column: of both; in `listed` it may also hold paths relative to the folder of `table`.
        files: the N images of `table`.
        labels: the L findings.

    Returns:
        The boxes, and a warning each for those of unknown images and of unknown findings.

    Raises:
        InputError: a column is missing, or a row is no box; reason "dataset".
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
    found = []
    strangers: dict[str, list[str]] = {"images": [], "findings": []}
    names = zip(listed.columns[image_column], listed.columns[label_column], strict=True)
    for (image, finding), corners in zip(names, _listed_corners(listed).tolist(), strict=True):
        if math.isnan(corners[0]):
            continue
        row = rows.get(image, rows.get(os.path.normpath(here / table.path.parent / image)))
        label = finding if finding in labels else _ALIASES.get(finding, finding)
        if row is None:
            strangers["images"].append(image)
        elif label not in labels:
            strangers["findings"].append(finding)
        else:
            found.append(Box(row, label, *corners))
    return tuple(found), [
        f"boxes left out: {len(unknown)}; {table.path.name} has no such {kind} ({listing(dict.fromkeys(unknown), 3)})"
        for kind, unknown in strangers.items()
        if unknown
    ]


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
    """Return boxes in pixels of the 224 px image, clipped to it, in the order of images, labels and corners.

    Each axis has its own scale, since the resize does not keep the aspect ratio.

    Args:
        boxes: in pixels of the film.
        shapes: index of an image -> (rows, columns) of its film; boxes of other images are left out.
        labels: boxes of others are left out.

    Returns:
        Those with an area, rounded to 2 decimals.
    """
    order = {label: place for place, label in enumerate(labels)}
    found = []
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
            found.append(Box(box.index, box.label, x_min, y_min, x_max, y_max))
    return sorted(found, key=lambda box: (box.index, order[box.label], box[2:]))


def read_boxes(path: Path, ids: NDArray[np.str_], labels: Sequence[str]) -> Boxes:
    """Read the boxes.csv of a prepared data set.

    Args:
        path: of the file; where there is none, there are no boxes.
        ids: (N,) names of the prepared images.
        labels: the L findings.

    Raises:
        InputError: it is no table, or holds other cells than numbers.
        ValueError: it does not fit the data set.
    """
    if not path.exists():
        return Boxes(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32))
    table = read_table(path)
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
