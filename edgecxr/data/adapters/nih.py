"""NIH ChestX-ray14 as the Clinical Center distributes it: 112,120 PNG films, labels mined from reports.

Data_Entry_2017*.csv           Image Index, Finding Labels (joined by |), Patient ID, ...
train_val_list.txt, test_list.txt
images_001/images/*.png ... images_012/images/*.png, or images/*.png
BBox_List_2017.csv             boxes around some findings, in pixels of 1024 x 1024; may be missing
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.listed import Listed, any_there, divided, expected, warned, without_a_line
from edgecxr.data.dataset import Box
from edgecxr.data.tables.boxes import listed_boxes
from edgecxr.data.tables.labels import SETS, Sources, choose, merged, unknown_warnings, wanted_of
from edgecxr.data.tables.table import Table, listing, read_table
from edgecxr.errors import InputError

OWN = SETS["nih14"]
NORMAL = "No Finding"

_ENTRIES = "Data_Entry_2017_v2020.csv|Data_Entry_2017.csv"  # the later one corrects the earlier
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_SIDE = 1024  # of NIH's films, in whose pixels boxes are
_RENAMED = {"Bbox [x": "x", "h]": "h"}
_ALIASES = {"Infiltrate": "Infiltration"}  # the list of boxes has another name for it than the table


def nih(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "nih",
) -> Listed:
    """Find the films of NIH ChestX-ray14.

    Args:
        folder: as the module says.
        labels: what `edgecxr.data.tables.labels.choose` takes; by default all 14.
        val_fraction: part of the patients of train_val_list.txt that becomes "val".
        seed: of that division.
        name: of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels.
    """
    folder = Path(folder)
    found = expected(folder, (_ENTRIES, *_LISTS.values()), "NIH ChestX-ray14")
    table = read_table(found[_ENTRIES])
    table.require(("Image Index", "Finding Labels", "Patient ID"))
    sources = choose(labels, OWN, "NIH ChestX-ray14")
    splits, listed = _splits(table, {split: found[file] for split, file in _LISTS.items()})
    lacking = [image for image, there in zip(table.columns["Image Index"], listed.tolist(), strict=True) if not there]
    table = _only(table, listed)
    own, abnormal = _targets(table)
    targets = merged(own, OWN, sources)
    patients = np.array(table.columns["Patient ID"])
    files = _files(folder, table.columns["Image Index"])
    any_there(folder, files)
    boxes, notes = _boxes(folder, table, files, sources)
    splits = divided(splits[listed], patients, abnormal, val_fraction, seed)
    if lacking:
        notes.append(f"images of {found[_ENTRIES].name} in neither list, left out: {len(lacking)}")
    provenance: dict[str, Any] = {
        "kind": "nih", "source": str(folder.resolve()), "table": found[_ENTRIES].name, "val_fraction": val_fraction,
        "seed": seed, "cut": ["val"], "phantom": False,
        "labels_from": {label: list(parts) for label, parts in sources.items()},
        "warnings": notes + unknown_warnings(sources, OWN, "NIH ChestX-ray14")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    ids = np.array(table.columns["Image Index"])
    unlisted = without_a_line(_places(folder), [*files, *_files(folder, lacking)])
    return Listed(name, tuple(sources), ids, targets, abnormal, patients, splits, files, provenance, boxes, unlisted)


def _splits(table: Table, lists: dict[str, Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the split of each row, and whether one of the lists has it."""
    place = {image: row for row, image in enumerate(table.columns["Image Index"])}
    if len(place) < len(table):
        raise InputError(f"{table.path} lists an image twice: remove one of the lines", "dataset")
    splits = np.full(len(table), "", "<U5")
    for split, path in lists.items():
        try:
            names = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}): download it again", "dataset") from error
        strangers = [image for image in names if image not in place]
        if strangers or not names:
            what = f"images that {table.path.name} lacks ({listing(strangers, 3)})" if strangers else "no images"
            raise InputError(f"{path} names {what}: take both files of one download", "dataset")
        rows = [place[image] for image in names]
        if (splits[rows] != "").any():
            both = table.columns["Image Index"][rows[int((splits[rows] != "").argmax())]]
            raise InputError(f"{path} and the other list both name {both}: download them again", "dataset")
        splits[rows] = split
    return splits, splits != ""


def _only(table: Table, rows: np.ndarray) -> Table:
    kept = np.flatnonzero(rows).tolist()
    columns = {name: [cells[row] for row in kept] for name, cells in table.columns.items()}
    return dataclasses.replace(table, columns=columns, lines=[table.lines[row] for row in kept])


def _targets(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the 14 findings (N, 14), and whether there is any (N,)."""
    place = {label: column for column, label in enumerate(OWN)}
    own = np.zeros((len(table), len(OWN)), np.float32)
    abnormal = np.ones(len(table), np.float32)
    for row, cell in enumerate(table.columns["Finding Labels"]):
        named = cell.split("|")
        unknown = [label for label in named if label not in place and label != NORMAL]
        if unknown or (NORMAL in named and len(named) > 1):
            raise InputError(
                f"line {table.lines[row]} of {table.path}: {cell!r} holds what is no finding of NIH ChestX-ray14 "
                f"({listing(unknown or named, 3)}): correct it",
                "dataset",
            )
        own[row, [place[label] for label in named if label != NORMAL]] = 1
        abnormal[row] = NORMAL not in named
    return own, abnormal


def _files(folder: Path, images: list[str]) -> tuple[Path, ...]:
    """Return where each film lies: in one of twelve folders, or in one."""
    where: dict[str, Path] = {}
    for place in _places(folder):
        for parent in (place, place / "images"):
            if parent.is_dir():
                for entry in parent.iterdir():
                    where.setdefault(entry.name, entry)
    return tuple(where.get(image, folder / "images" / image) for image in images)


def _places(folder: Path) -> list[Path]:
    return [folder / "images", *sorted(folder.glob("images_*"))]


def _boxes(folder: Path, table: Table, files: tuple[Path, ...], sources: Sources) -> tuple[tuple[Box, ...], list[str]]:
    path = folder / _BOXES
    if not path.exists():
        return (), []
    listed = read_table(path)
    columns = {_RENAMED.get(column, column): cells for column, cells in listed.columns.items()}
    columns["Finding Label"] = [_ALIASES.get(cell, cell) for cell in columns.get("Finding Label", [])]
    listed = dataclasses.replace(listed, columns=columns)
    own, notes = listed_boxes(listed, table, "Image Index", files, OWN)
    wanted = wanted_of(sources)
    boxes = [box._replace(label=label) for box in own for label in wanted.get(box.label, [])]
    # Editions of smaller films have the same list.
    scales: dict[int, tuple[float, float]] = {}
    for box in boxes:
        if box.index not in scales:
            scales[box.index] = _scale(files[box.index])
    scaled = [
        box._replace(
            x_min=box.x_min * scales[box.index][0], x_max=box.x_max * scales[box.index][0],
            y_min=box.y_min * scales[box.index][1], y_max=box.y_max * scales[box.index][1],
        )
        for box in boxes
    ]  # fmt: skip
    return tuple(scaled), notes


def _scale(file: Path) -> tuple[float, float]:
    """Return by what the coordinates of boxes are multiplied, along columns and rows."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.width / _SIDE, image.height / _SIDE
    except (OSError, ValueError):  # rejected when it is prepared
        return 1.0, 1.0
