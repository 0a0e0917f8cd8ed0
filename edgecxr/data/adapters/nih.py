"""NIH ChestX-ray14 as the Clinical Center distributes it.

It has 112,120 PNG films with labels mined from reports.

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

from edgecxr.data.adapters.checks import any_there, divided, expected, warned, without_a_line
from edgecxr.data.adapters.keys import known_patients, refuse_repeats
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.boxes import KeptBoxes, listed_boxes
from edgecxr.data.tables.labels import SETS, Sources, choose, merged, unknown_warnings
from edgecxr.data.tables.table import LARGEST_TABLE, Table, listing, read_table
from edgecxr.errors import InputError, brief
from edgecxr.storage.reading import BadFile, read_text

OWN = SETS["nih14"]
NORMAL = "No Finding"
PICTURES = "windowed"  # by the window in the DICOM file's header (Wang et al., CVPR 2017)

_ENTRIES = "Data_Entry_2017_v2020.csv|Data_Entry_2017.csv"  # the later edition corrects the earlier
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_SIDE = 1024  # of NIH's films in pixels, which are the unit of boxes
_RENAMED = {"Bbox [x": "x", "h]": "h"}


def nih(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "nih",
) -> Dataset:
    """Find the films of NIH ChestX-ray14.

    Args:
        folder: folder with the files listed in this module's docstring.
        labels: as in `edgecxr.data.tables.labels.choose`; by default all 14.
        val_fraction: share of the patients of train_val_list.txt that becomes "val".
        seed: seed of that division.
        name: name of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels.
    """
    folder = Path(folder)
    paths = expected(folder, (_ENTRIES, *_LISTS.values()), "NIH ChestX-ray14")
    table = read_table(paths[_ENTRIES])
    table.require(("Image Index", "Finding Labels", "Patient ID"))
    sources = choose(labels, OWN, "NIH ChestX-ray14")
    splits, listed = _splits(table, {split: paths[file] for split, file in _LISTS.items()})
    lacking = [
        image for image, is_listed in zip(table.columns["Image Index"], listed.tolist(), strict=True) if not is_listed
    ]
    table = _only(table, listed)
    own, abnormal = _targets(table)
    targets = merged(own, OWN, sources)
    patients, patient_notes = known_patients(table.columns["Patient ID"], table.columns["Image Index"])
    files = _files(folder, table.columns["Image Index"])
    any_there(folder, files)
    boxes, notes, unused = _boxes(folder, table, files, sources, targets)
    splits = divided(splits[listed], patients, abnormal, val_fraction, seed)
    notes += patient_notes
    if lacking:
        notes.append(f"images of {paths[_ENTRIES].name} in neither list, left out: {len(lacking)}")
    provenance: dict[str, Any] = {
        "kind": "nih", "source": str(folder.resolve()), "table": paths[_ENTRIES].name, "val_fraction": val_fraction,
        "seed": seed, "cut": ["val"], "phantom": False,
        "labels_from": {label: list(parts) for label, parts in sources.items()},
        "warnings": notes + unknown_warnings(sources, OWN, "NIH ChestX-ray14")
        + warned(folder, tuple(sources), targets, abnormal, patients, splits),
    }  # fmt: skip
    ids = np.array(table.columns["Image Index"])
    unlisted = without_a_line(_places(folder), [*files, *_files(folder, lacking)])
    return Dataset(
        name, tuple(sources), ids, targets, abnormal, patients, splits, files, provenance, tuple(boxes), unlisted,
        PICTURES, unused_boxes=unused,
    )  # fmt: skip


def _splits(table: Table, lists: dict[str, Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the split of each row, and whether a list has it."""
    refuse_repeats(table, ("Image Index",))
    place = {image: row for row, image in enumerate(table.columns["Image Index"])}
    splits = np.full(len(table), "", "<U5")
    for split, path in lists.items():
        try:
            names = read_text(path, LARGEST_TABLE).split()
        except (OSError, BadFile) as error:
            raise InputError(f"{path} cannot be read ({brief(error)}): download it again", "dataset") from error
        unknown = [image for image in names if image not in place]
        if unknown or not names:
            images = f"images that {table.path.name} lacks ({listing(unknown, 3)})" if unknown else "no images"
            raise InputError(f"{path} names {images}: take both files of one download", "dataset")
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
    """Return the 14 findings (N, 14) and whether any is present (N,)."""
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
    """Return the path of each film.

    The films are in one folder or in twelve.
    """
    by_name: dict[str, Path] = {}
    for place in _places(folder):
        for parent in (place, place / "images"):
            if parent.is_dir():
                for entry in parent.iterdir():
                    by_name.setdefault(entry.name.lower(), entry)
    return tuple(by_name.get(image.lower(), folder / "images" / image) for image in images)


def _places(folder: Path) -> list[Path]:
    return [folder / "images", *sorted(folder.glob("images_*"))]


def _boxes(folder: Path, table: Table, files: tuple[Path, ...], sources: Sources, targets: np.ndarray) -> KeptBoxes:
    path = folder / _BOXES
    if not path.exists():
        return KeptBoxes([], [], 0)
    listed = read_table(path)
    columns = {_RENAMED.get(column, column): cells for column, cells in listed.columns.items()}
    listed = dataclasses.replace(listed, columns=columns)
    kept = listed_boxes(listed, table, "Image Index", files, OWN, sources, targets)
    # Editions of smaller films have the same list of boxes, so scale them.
    scales: dict[int, tuple[float, float]] = {}
    for box in kept.boxes:
        if box.index not in scales:
            scales[box.index] = _scale(files[box.index])
    scaled = [
        box._replace(
            x_min=box.x_min * scales[box.index][0], x_max=box.x_max * scales[box.index][0],
            y_min=box.y_min * scales[box.index][1], y_max=box.y_max * scales[box.index][1],
        )
        for box in kept.boxes
    ]  # fmt: skip
    return kept._replace(boxes=scaled)


def _scale(file: Path) -> tuple[float, float]:
    """Return the factors for box coordinates along columns and rows."""
    from edgecxr.films.image_file import sides_of

    width, height = sides_of(file) or (_SIDE, _SIDE)  # `prepare` rejects what is no image
    return width / _SIDE, height / _SIDE
