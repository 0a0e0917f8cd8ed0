"""VinDr-CXR as PhysioNet distributes it: DICOM films, three readers per training image, a consensus for the test set.

train/*.dicom    test/*.dicom    annotations/image_labels_train.csv    annotations/image_labels_test.csv
annotations/annotations_train.csv and annotations_test.csv hold boxes around findings; they may be missing
annotations/patients.csv (image_id,patient) is not of PhysioNet; where it exists, validation is cut by patient
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.boxes import CORNERS, film_corners
from edgecxr.data.dataset import Box
from edgecxr.data.splits import class_warnings, cut_validation, leak_warnings
from edgecxr.data.table import Table, listing, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.runtime.read import read_radiograph
from edgecxr.runtime.types import FloatArray, Radiograph

_LOCAL = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion"),
)
_GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases")
LABEL_SETS = {
    "vindr14": (
        *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD"),
        *("Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening"),
        *("Pneumothorax", "Pulmonary fibrosis"),
    ),
    "vindr22": _LOCAL,
    "all": _LOCAL + _GLOBAL,
}
"""vindr14: the paper's list. vindr22: what is marked with boxes. all: those and the diagnoses of the whole film."""

MERGES = ("majority", "union", "mean")
NORMAL = "No finding"

_ALIASES = {"Other disease": "Other diseases"}  # the test table's spelling
_ENDINGS = (".dicom", ".dcm")


class VinDr:
    """VinDr-CXR, a `CxrDataset`.

    Readers are merged by image, each of them counting where a cell is not empty: "majority" (more than half), "union"
    (any) or "mean" (soft labels). An image is abnormal unless it is "No finding" after merging; under "union" all
    readers must agree on that. All readers' boxes count where the finding is positive (0.5 or more) after merging. Who
    read an image is never used: it gives the label away.

    Args:
        folder: with train/, test/ and annotations/.
        labels: a name in `LABEL_SETS`, or the findings themselves.
        merge: one of `MERGES`.
        val_fraction: part of the training patients that becomes "val"; each image is its own patient unless
            annotations/patients.csv says more.
        seed: of that division.
        name: of the prepared data set.
        provenance: more facts to record.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: an unknown label set or merge.
    """

    def __init__(
        self,
        folder: Path,
        labels: str | Sequence[str] = "vindr14",
        merge: str = "majority",
        val_fraction: float = 0.1,
        seed: int = 0,
        name: str = "vindr",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if merge not in MERGES:
            raise UsageError(f"unknown merge {merge!r} (there are: {', '.join(MERGES)})")
        folder = Path(folder)
        self.name = name
        self.labels = _label_set(labels)
        parts = [_read_split(folder, split, self.labels, merge) for split in ("train", "test")]
        ids, findings, files = zip(*parts, strict=True)
        self.ids = np.concatenate(ids)
        values = np.concatenate(findings)
        self.targets, self.abnormal = values[:, :-1], 1 - values[:, -1]
        self.files = files[0] + files[1]
        _check_images(folder, ids[0], ids[1], self.files)

        self.boxes = tuple(
            box
            for split in ("train", "test")
            for box in _boxes(folder / "annotations" / f"annotations_{split}.csv", self.ids, self.labels, self.targets)
        )
        self.patients = _patients(folder, self.ids)
        splits = np.repeat(["train", "test"], [len(part) for part in ids])
        self.splits = cut_validation(splits, self.patients, self.abnormal, val_fraction, seed)
        warnings = class_warnings(folder, self.labels, self.targets, self.abnormal, self.splits)
        warnings += leak_warnings(self.patients, self.splits)
        self.provenance: dict[str, Any] = {
            "kind": "vindr",
            "source": str(folder.resolve()),
            "merge": merge,
            "val_fraction": val_fraction,
            "seed": seed,
            "phantom": False,
            "warnings": warnings,
        } | (provenance or {})

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def read(self, index: int) -> Radiograph:
        """Read image `index`; raises `InputError` where it cannot be used."""
        return read_radiograph(self.files[index])


def _label_set(labels: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(labels, str):
        chosen = tuple(_ALIASES.get(label, label) for label in labels)
        if not chosen or len(set(chosen)) < len(chosen) or NORMAL in chosen:
            raise UsageError(f"labels must be different findings, and {NORMAL!r} is none (given: {', '.join(labels)})")
        return chosen
    if labels not in LABEL_SETS:
        raise UsageError(f"unknown label set {labels!r} (there are: {', '.join(LABEL_SETS)}; or give the labels)")
    return LABEL_SETS[labels]


def _read_split(
    folder: Path, split: str, labels: tuple[str, ...], merge: str
) -> tuple[np.ndarray, FloatArray, tuple[Path, ...]]:
    """Return ids (N,), merged values (N, L + 1) with "No finding" last, and files of a split."""
    table = read_table(folder / "annotations" / f"image_labels_{split}.csv")
    columns = {_ALIASES.get(name, name): cells for name, cells in table.columns.items()}
    table = dataclasses.replace(table, columns=columns)
    table.require(("image_id", *labels, NORMAL))
    _check_rows(table)
    ids, image = np.unique(table.columns["image_id"], return_inverse=True)
    values = np.stack([table.values(label) for label in (*labels, NORMAL)], axis=1)
    given, total = (np.zeros((len(ids), values.shape[1])) for _ in range(2))
    np.add.at(given, image, ~np.isnan(values))
    np.add.at(total, image, np.nan_to_num(values))
    mean = total / np.maximum(given, 1)
    merged = mean
    if merge == "majority":
        merged = np.where(mean > 0.5, 1.0, 0.0)
    elif merge == "union":
        # One reader who saw something outweighs those who wrote "No finding".
        merged = np.where(mean > 0, 1.0, 0.0)
        merged[:, -1] = mean[:, -1] == 1
    findings: FloatArray = np.where(given > 0, merged, np.nan).astype(np.float32)
    return ids, findings, _files(folder / split, ids)


def _check_rows(table: Table) -> None:
    """Raise where an image, or an image and its reader, is listed twice."""
    readers = table.columns.get("rad_id", [""] * len(table))
    seen: set[tuple[str, str]] = set()
    for row in zip(table.columns["image_id"], readers, strict=True):
        if row in seen:
            reader = f" for reader {row[1]}" if row[1] else ""
            raise InputError(f"{table.path} lists image {row[0]} twice{reader}: remove one of the lines", "dataset")
        seen.add(row)


def _files(folder: Path, ids: np.ndarray) -> tuple[Path, ...]:
    try:
        found = {entry.stem: entry for entry in folder.iterdir() if entry.suffix.lower() in _ENDINGS}
    except OSError as error:
        raise InputError(
            f"{folder} with its .dicom files is not there ({error.strerror}): give the folder that holds train/, test/ "
            "and annotations/",
            "dataset",
        ) from error
    return tuple(found.get(name, folder / f"{name}.dicom") for name in ids.tolist())


def _check_images(folder: Path, train: np.ndarray, test: np.ndarray, files: tuple[Path, ...]) -> None:
    both = np.intersect1d(train, test)
    if len(both):
        raise InputError(f"{folder}: images are in the train and the test table ({listing(both, 3)})", "dataset")
    # Single missing films are rejected one by one when the data set is prepared.
    if not any(file.exists() for file in files):
        raise InputError(
            f"none of the {len(files)} listed images exists; expected files such as {files[0]}: "
            "download train/ and test/",
            "dataset",
        )


def _boxes(path: Path, ids: np.ndarray, labels: tuple[str, ...], targets: FloatArray) -> Iterator[Box]:
    """Yield the boxes of positive findings."""
    if not path.exists():
        return
    table = read_table(path)
    table.require(("image_id", "class_name", *CORNERS))
    rows = {name: row for row, name in enumerate(ids.tolist())}
    places = {label: place for place, label in enumerate(labels)}
    names = zip(table.columns["image_id"], table.columns["class_name"], strict=True)
    for (image, finding), corners in zip(names, film_corners(table).tolist(), strict=True):
        row, label = rows.get(image), _ALIASES.get(finding, finding)
        # Empty corners stand beside "No finding", and beside what is said of the whole film.
        if row is None or label not in places or math.isnan(corners[0]):
            continue
        if targets[row, places[label]] >= 0.5:
            yield Box(row, label, *corners)


def _patients(folder: Path, ids: np.ndarray) -> np.ndarray:
    path = folder / "annotations" / "patients.csv"
    if not path.exists():
        return ids
    table = read_table(path)
    table.require(("image_id", "patient"))
    known = dict(zip(table.columns["image_id"], table.columns["patient"], strict=True))
    return np.array([known.get(name) or name for name in ids.tolist()])
