"""VinBigData's Kaggle edition of VinDr-CXR.

It has 15,000 training films with every reader's boxes, but none of the test films of VinDr-CXR.

train.csv                  image_id, class_name, class_id 0 to 14 (14: No finding), rad_id, x_min, y_min, x_max, y_max
train/*.dicom, *.png ...   the films, or one of the editions of smaller pictures
train_meta.csv             image_id, dim0, dim1: rows and columns of the original films, in whose pixels the boxes are;
                           only in editions of smaller pictures, some of which have height and width in train.csv

Every film was read by three radiologists. There is no test split, so one is cut from these films, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.checks import (
    IMAGES,
    NO_PATIENTS,
    any_there,
    divided,
    expected,
    warned,
    without_a_line,
)
from edgecxr.data.adapters.keys import film_id, respelt
from edgecxr.data.adapters.readers import check_merge, merge_readers
from edgecxr.data.dataset import Box, Dataset
from edgecxr.data.tables.boxes import CORNERS, KeptBoxes, film_corners, kept_boxes
from edgecxr.data.tables.labels import SETS, Sources, choose, merged, unknown_warnings
from edgecxr.data.tables.table import Table, read_table
from edgecxr.errors import InputError

# Indexed by class_id. The same findings as in the VinDr-CXR paper, in another order.
OWN = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration"),
    *("Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    "Pulmonary fibrosis",
)
NORMAL = 14
assert set(OWN) == set(SETS["vindr14"])


def vinbigdata(
    folder: Path,
    labels: str | Sequence[str] | None = None,
    merge: str = "majority",
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str = "vinbigdata",
) -> Dataset:
    """Find the training films of VinBigData.

    Args:
        folder: folder with the files listed in this module's docstring.
        labels: as in `edgecxr.data.tables.labels.choose`; by default all 14.
        merge: how readers are merged, one of `edgecxr.data.adapters.readers.MERGES`.
        val_fraction: share of the films that becomes "val"; patients are not known.
        test_fraction: share of the films that becomes "test".
        seed: seed of that division.
        name: name of the prepared data set.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: unknown labels or merge.
    """
    check_merge(merge)
    folder = Path(folder)
    paths = expected(folder, ("train.csv", "train"), "VinBigData")
    table = read_table(paths["train.csv"])
    table.require(("image_id", "class_name", "class_id", "rad_id", *CORNERS))
    table = respelt(table, ("image_id",), film_id)
    sources = choose(labels, OWN, "VinBigData")
    classes = _classes(table)
    # A reading, of one image by one reader, has a row per box, or one row for "No finding".
    pairs = np.array([table.columns["image_id"], table.columns["rad_id"]])
    readings, reading = np.unique(pairs, axis=1, return_inverse=True)
    values = np.zeros((readings.shape[1], len(OWN) + 1), np.float32)
    values[reading.ravel(), classes] = 1
    ids, image = np.unique(readings[0], return_inverse=True)
    own = merge_readers(values, image, len(ids), merge)
    targets, abnormal = merged(own[:, :-1], OWN, sources), 1 - own[:, -1]
    files = _files(paths["train"], ids.tolist())
    any_there(folder, files)
    splits = divided(None, ids, abnormal, val_fraction, seed, test_fraction)
    provenance: dict[str, Any] = {
        "kind": "vinbigdata", "source": str(folder.resolve()), "merge": merge, "val_fraction": val_fraction,
        "test_fraction": test_fraction, "seed": seed, "cut": ["val", "test"], "phantom": False,
        "labels_from": {label: list(parts) for label, parts in sources.items()},
        "warnings": [
            NO_PATIENTS,
            *unknown_warnings(sources, OWN, "VinBigData"),
            *warned(folder, tuple(sources), targets, abnormal, ids, splits),
        ],
    }  # fmt: skip
    boxes, box_warnings, unused = _boxes(folder, table, classes, ids, files, sources, targets)
    provenance["warnings"] += box_warnings
    unlisted = without_a_line([paths["train"]], files)
    return Dataset(
        name, tuple(sources), ids, targets, abnormal, ids, splits, files, provenance, tuple(boxes), unlisted,
        unused_boxes=unused,
    )  # fmt: skip


def _classes(table: Table) -> np.ndarray:
    """Return the class of each row.

    A class name that does not fit its number raises `InputError`.
    """
    numbers = table.numbers("class_id")
    names = (*OWN, "No finding")
    for row, (number, name) in enumerate(zip(numbers.tolist(), table.columns["class_name"], strict=True)):
        if number not in range(NORMAL + 1) or names[int(number)] != name:
            raise InputError(
                f"line {table.lines[row]} of {table.path}: class_id {table.columns['class_id'][row]} is not {name!r} "
                "in VinBigData: take the train.csv of the competition",
                "dataset",
            )
    return numbers.astype(np.intp)


def _files(folder: Path, ids: list[str]) -> tuple[Path, ...]:
    by_name: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.suffix.lower() in IMAGES:
            by_name.setdefault(film_id(entry.name), entry)
    return tuple(by_name.get(name, folder / f"{name}.dicom") for name in ids)


def _boxes(
    folder: Path,
    table: Table,
    classes: np.ndarray,
    ids: np.ndarray,
    files: tuple[Path, ...],
    sources: Sources,
    targets: np.ndarray,
) -> KeptBoxes:
    """Return the boxes of positive findings, in pixels of the files.

    All readers' boxes count if the finding is positive after merging.
    """
    rows = {name: row for row, name in enumerate(ids.tolist())}
    images, corners = table.columns["image_id"], film_corners(table)
    corners[classes == NORMAL] = np.nan
    lines = list(zip(map(rows.get, images), images, table.columns["class_name"], corners.tolist(), strict=True))
    kept = kept_boxes(lines, table.path.name, OWN, sources, targets, merged=True)
    shapes = {} if all(map(_is_dicom, files)) else _shapes(folder, table)
    scales = {index: _scale(files[index], shapes.get(ids[index])) for index in {box.index for box in kept.boxes}}
    boxes = []
    for index, label, *four in kept.boxes:
        if scale := scales[index]:
            boxes.append(Box(index, label, *(corner * side for corner, side in zip(four, scale * 2, strict=True))))
    if unscaled := len(kept.boxes) - len(boxes):
        kept.warnings.append(
            f"boxes left out: {unscaled}; neither train_meta.csv nor train.csv has the sizes of the films they are of"
        )
    return kept._replace(boxes=boxes)


def _shapes(folder: Path, table: Table) -> dict[str, tuple[float, float]]:
    """Return (rows, columns) of the original films by image.

    Empty unless an edition of smaller pictures lists them; images without a number are left out.

    Raises:
        InputError: a size is not above 0, or two lines contradict each other; reason "dataset".
    """
    path, names = folder / "train_meta.csv", ("dim0", "dim1")
    if path.exists():
        table = read_table(path)
        table.require(("image_id", *names))
        table = respelt(table, ("image_id",), film_id)
    elif {"height", "width"} <= set(table.columns):
        names = ("height", "width")
    else:
        return {}
    shapes: dict[str, tuple[float, float]] = {}
    sizes = zip(*(table.numbers(name).tolist() for name in names), strict=True)
    for image, line, shape in zip(table.columns["image_id"], table.lines, sizes, strict=True):
        listed = ", ".join(f"{name} {side:g}" for name, side in zip(names, shape, strict=True))
        if not all(side > 0 or math.isnan(side) for side in shape):
            raise InputError(
                f"line {line} of {table.path}: image {image} has no size ({listed}): give numbers above 0", "dataset"
            )
        if not any(map(math.isnan, shape)) and shapes.setdefault(image, shape) != shape:
            raise InputError(
                f"line {line} of {table.path}: image {image} has another size ({listed}) than in a line above: keep "
                "the right one",
                "dataset",
            )
    return shapes


def _is_dicom(file: Path) -> bool:
    return file.suffix.lower() in (".dicom", ".dcm")


def _scale(file: Path, shape: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the factors for box coordinates along columns and rows.

    None if they are not known.
    """
    if _is_dicom(file):
        return 1.0, 1.0
    if shape is None:
        return None
    from edgecxr.films.image_file import sides_of

    sides = sides_of(file)
    if sides is None:  # `prepare` rejects it
        return 1.0, 1.0
    return sides[0] / shape[1], sides[1] / shape[0]
