"""Boxes around findings, read from tables and scaled to 224 px."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import Box
from edgecxr.data.tables.labels import Sources, labels_by_part, plain_name
from edgecxr.data.tables.table import Table, listing, read_table
from edgecxr.errors import InputError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.vocabulary import FloatArray

BOXES = "boxes.csv"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
COLUMNS = ("id", "label", *CORNERS)

_LABELS = ("label", "finding", "class_name", "finding label")
_SIZED = ("x", "y", "w", "h")
_ALIASES = {"infiltrate": "infiltration"}  # in NIH's list of boxes, and in its table of labels
_CLIPPED = 0.02  # share of a film's side by which a box may reach beyond it without a warning


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
    corner_counts = (~np.isnan(corners)).sum(axis=1)
    if sized:
        corners[:, 2:] += corners[:, :2]
    wrong = np.flatnonzero(((corner_counts > 0) & (corner_counts < 4)) | (corners[:, 2:] < corners[:, :2]).any(axis=1))
    if len(wrong):
        cells = ", ".join(f"{column} {table.columns[column][wrong[0]] or 'empty'}" for column in columns)
        rule = "a width and a height from 0 on" if sized else "minima that are not above the maxima"
        raise InputError(
            f"line {table.lines[wrong[0]]} of {table.path} is no box ({cells}): give four numbers with {rule}",
            "dataset",
        )
    return corners


class KeptBoxes(NamedTuple):
    """Boxes of a list that belong to a data set.

    Attributes:
        boxes: those that are kept, in the order of the list.
        warnings: on those that contradict the data set, by reason.
        unused: number of boxes of findings that are not wanted, or not positive after merging.
    """

    boxes: list[Box]
    warnings: list[str]
    unused: int


def kept_boxes(
    listed: Sequence[tuple[int | None, str, str, Sequence[float]]],
    table: str,
    own: Sequence[str],
    sources: Sources,
    targets: FloatArray,
    merged: bool = False,
) -> KeptBoxes:
    """Return the boxes of known images and wanted findings.

    Args:
        listed: image's row in the data set or None, its name, the finding, and the corners; NaN if there is no box.
        table: name of the table of labels, for warnings.
        own: the data set's own findings. Those in `listed` may differ in case, blanks and underscores.
        sources: the L wanted findings, see `edgecxr.data.tables.labels`.
        targets: (N, L) in [0, 1] or NaN.
        merged: whether the targets are those of several readers: then only boxes of positive findings are kept, and
            others are no contradiction.
    """
    labels_of, column = labels_by_part(sources), {label: place for place, label in enumerate(sources)}
    names: dict[str, str | None] = {}
    boxes: list[Box] = []
    absent: list[str] = []
    unused = 0
    left_out: dict[str, list[str]] = {"images": [], "findings": []}
    for row, image, finding, corners in listed:
        if math.isnan(corners[0]):
            continue
        name = names[finding] if finding in names else names.setdefault(finding, _own_name(finding, own))
        if row is None:
            left_out["images"].append(image)
        elif name is None:
            left_out["findings"].append(finding)
        else:
            labels = [of for of in labels_of.get(name, []) if not merged or targets[row, column[of]] >= 0.5]
            boxes += [Box(row, label, *corners) for label in labels]
            unused += not labels
            absent += [f"{image} {label}" for label in labels if targets[row, column[label]] < 0.5]
    warnings = []
    if absent:
        shown = listing(dict.fromkeys(absent), 3)
        warnings.append(
            f"boxes around findings that {table} calls absent: {len(absent)} ({shown}); both stay as they are"
        )
    warnings += [
        f"boxes left out: {len(unknown)}; {table} has no such {kind} ({listing(dict.fromkeys(unknown), 3)})"
        for kind, unknown in left_out.items()
        if unknown
    ]
    return KeptBoxes(boxes, warnings, unused)


def _own_name(finding: str, own: Sequence[str]) -> str | None:
    """Return a data set's own name of a finding.

    None if there is none, or more than one.
    """
    if finding in own:
        return finding
    plain = plain_name(finding)
    alike = [name for name in own if plain_name(name) in (plain, _ALIASES.get(plain))]
    return alike[0] if len(alike) == 1 else None


def listed_boxes(
    listed: Table,
    table: Table,
    image_column: str,
    files: Sequence[Path],
    own: Sequence[str],
    sources: Sources,
    targets: FloatArray,
) -> KeptBoxes:
    """Return the boxes of a list, see `kept_boxes`.

    Args:
        listed: one box per row; a row with four empty corners is not a box.
        table: table of the data set.
        image_column: column of images in both; in `listed` it may also hold paths relative to the folder of `table`.
        files: the N images of `table`.
        own: the data set's own findings; boxes may be of the wanted ones, too.
        sources: the L wanted findings.
        targets: (N, L) in [0, 1] or NaN.

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
    images, findings = listed.columns[image_column], listed.columns[label_column]

    def row_of(image: str) -> int | None:
        paths = (os.path.normpath(here / table.path.parent / path) for path in _slashes(image))
        return next((rows[spelling] for spelling in (image, *paths) if spelling in rows), None)

    of = list(map(row_of, images))
    lines = list(zip(of, images, findings, _listed_corners(listed).tolist(), strict=True))
    new = [label for label in sources if plain_name(label) not in map(plain_name, own)]
    sources = {label: (*parts, label) if label in new else parts for label, parts in sources.items()}
    return kept_boxes(lines, table.path.name, (*own, *new), sources, targets)


def _slashes(image: str) -> tuple[str, str]:
    return image, image.replace("\\", "/")


def _listed_corners(listed: Table) -> NDArray[np.float64]:
    for names, sized in ((CORNERS, False), (_SIZED, True)):
        columns = [column for name in names if (column := listed.called((name,)))]
        if len(columns) == len(names):
            _refuse_fractions(listed, columns)
            return film_corners(listed, columns, sized)
    raise InputError(
        f"{listed.path} has no corners of boxes (it has: {listing(listed.columns)}): call them {', '.join(CORNERS)} or "
        f"{', '.join(_SIZED)}",
        "dataset",
    )


def _refuse_fractions(listed: Table, columns: Sequence[str]) -> None:
    """Refuse boxes in fractions of the film.

    YOLO writes such; taken for pixels, all would lie in one corner.
    """
    values = np.concatenate([listed.numbers(column) for column in columns])
    values = values[~np.isnan(values)]
    if ((values >= 0) & (values <= 1)).all() and (values % 1 > 0).any():
        raise InputError(
            f"the corners of boxes in {listed.path} lie between 0 and 1, so they seem to be fractions of the film: "
            "give them in pixels of the film",
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


def placement_warnings(boxes: Iterable[Box], shapes: Mapping[int, tuple[int, int]], ids: Sequence[str]) -> list[str]:
    """Return warnings about the boxes that `scaled` leaves out or cuts.

    Args:
        boxes: boxes in pixels of the film.
        shapes: index of an image -> (rows, columns) of its film; rejected films have none.
        ids: names of the images.
    """
    left_out: dict[str, list[str]] = {
        "boxes left out: {}, outside of their film ({}): are they of another size?": [],
        "boxes left out: {}, without an area ({})": [],
        "boxes left out: {}, of films that are rejected ({})": [],
        "boxes that reach far beyond their film: {} ({}): are they of another size? They are clipped": [],
    }
    outside, flat, rejected, clipped = left_out.values()
    for box in boxes:
        rows, columns = shapes.get(box.index, (0, 0))
        beyond = (
            max(-box.x_min / columns, box.x_max / columns - 1, -box.y_min / rows, box.y_max / rows - 1) if rows else 0
        )
        if not rows:
            rejected.append(ids[box.index])
        elif box.x_max <= 0 or box.y_max <= 0 or box.x_min >= columns or box.y_min >= rows:
            outside.append(ids[box.index])
        elif not scaled([box], shapes, [box.label]):
            flat.append(ids[box.index])
        elif beyond > _CLIPPED:
            clipped.append(ids[box.index])
    return [text.format(len(films), listing(dict.fromkeys(films), 3)) for text, films in left_out.items() if films]


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
