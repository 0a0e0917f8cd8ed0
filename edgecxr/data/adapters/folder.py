"""Any collection of images with a CSV table: one line per image, one column per finding."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.dataset import Box
from edgecxr.data.tables.boxes import listed_boxes
from edgecxr.data.tables.splits import SYNONYMS, cut_validation, leak_warnings, refuse_unlearnable, split_by_patient
from edgecxr.data.tables.table import Table, is_label_value, label_value, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.vocabulary import FloatArray

_NORMAL = ("normal", "no finding", "no findings", "no_finding", "no_findings", "nofinding")
_ABNORMAL = ("abnormal",)
_NO_FINDINGS = ("sex", "gender", "male", "female", "smoker", "pregnant", "frontal", "lateral", "portable", "pa", "ap")
_RESERVED = ("id", "patient", "split", "abnormal")


class Folder:
    """Images (PNG, JPEG, DICOM ...) that a CSV table lists, a `CxrDataset`.

    A label cell is 1, 0, a number between (soft), or empty where it is not known. The abnormal task comes from a column
    that states it or its opposite; where there is none, an image is abnormal if one of its findings
    is positive, normal if all are negative, and not known otherwise.

    Args:
        csv: the table, or the folder in which it lies as labels.csv.
        images: what the paths of images are relative to; by default the table's folder.
        labels: the columns of the findings, in order; by default all columns that hold nothing but label values, other
            than those named below.
        image_column: paths of images, also their ids.
        patient_column: where it is missing, each image is its own patient.
        split_column: train, val or test, or a synonym; where it is missing, patients are divided at random. Where it
            names no validation images, they are cut from the training patients.
        normal_column: 1 where nothing is wrong; by default found by its name ("normal", "No finding").
        abnormal_column: the opposite; by default found by its name.
        ignore: columns that are no findings although they hold label values.
        val_fraction: part of the patients for "val".
        test_fraction: part of the patients for "test", if there is no split column.
        seed: of the division.
        name: of the prepared data set; by default that of the folder, or of a table not called labels.csv.
        boxes: a CSV of boxes around findings, one per line, with the column of images (paths as the table has them, or
            relative to the table's folder), one called label, finding, class_name or "Finding Label", and x_min, y_min,
            x_max, y_max or x, y, w, h in pixels of the image. The four are empty where a line only says that there is
            no box. NIH's "Infiltrate" is "Infiltration" unless it is a label. Boxes of other images or findings are
            left out with a warning.

    Raises:
        InputError: a table is not as expected; reason "dataset" or "malformed".
        UsageError: the options contradict each other.
    """

    def __init__(
        self,
        csv: Path,
        images: Path | None = None,
        labels: Sequence[str] | None = None,
        image_column: str = "image",
        patient_column: str = "patient",
        split_column: str = "split",
        normal_column: str | None = None,
        abnormal_column: str | None = None,
        ignore: Sequence[str] = (),
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
        name: str | None = None,
        boxes: Path | None = None,
    ) -> None:
        path = Path(csv)
        if os.path.isdir(path):
            path = path / "labels.csv"
        table = read_table(path)
        # The usual names may be missing; one that the user typed may not.
        usual = [column for column in (patient_column, split_column) if column not in ("patient", "split")]
        asked = [column for column in (normal_column, abnormal_column) if column]
        table.require((image_column, *usual, *asked, *(labels or ())))

        taken = {*(labels or ()), *ignore}
        normal_column = normal_column or table.called(_NORMAL, taken)
        abnormal_column = abnormal_column or table.called(_ABNORMAL, taken)
        special = {image_column, patient_column, split_column, normal_column, abnormal_column, *ignore}
        self.name = name or _default_name(path)
        self.labels = _findings(table, labels, special)
        self.ids = np.array(table.columns[image_column])
        self.files = _files(table, image_column, Path(images) if images else path.parent)
        self.targets = np.stack([table.values(label) for label in self.labels], axis=1)
        self.abnormal = _abnormal(table, normal_column, abnormal_column, self.targets)
        patients = table.columns.get(patient_column, [""] * len(table))
        self.patients = np.array([patient or image for patient, image in zip(patients, self.ids.tolist(), strict=True)])

        warnings = []
        if patient_column not in table.columns:
            warnings.append(f"there is no column {patient_column!r}: each image counts as a patient of its own")
        if split_column in table.columns:
            self.splits = _named_splits(table, split_column)
            if "val" not in self.splits:
                self.splits = cut_validation(self.splits, self.patients, self.abnormal, val_fraction, seed)
        else:
            fractions = {"val": val_fraction, "test": test_fraction}
            self.splits = split_by_patient(self.patients, self.abnormal, fractions, seed)
        warnings += leak_warnings(self.patients, self.splits)
        refuse_unlearnable(path, self.labels, self.targets, self.abnormal, self.splits)
        doubtful = [label for label in self.labels if label.lower() in _NO_FINDINGS]
        if doubtful and labels is None:
            names = ",".join(doubtful)
            warnings.append(f"taken as findings: {names}; if they are none, leave them out with --ignore {names}")
        self.boxes: tuple[Box, ...] = ()
        self.unlisted: tuple[Path, ...] = ()  # whatever else a user keeps beside a table
        if boxes is not None:
            self.boxes, unknown = listed_boxes(read_table(Path(boxes)), table, image_column, self.files, self.labels)
            warnings += unknown
        self.provenance: dict[str, Any] = {
            "kind": "folder",
            "source": str(path.resolve()),
            "abnormal": abnormal_column or (normal_column and f"not {normal_column}") or "any finding",
            "split": split_column if split_column in table.columns else "random, by patient",
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "seed": seed,
            "phantom": False,
            "warnings": warnings,
        }

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return what reads image `index`."""
        return partial(read_radiograph, self.files[index])


def _default_name(path: Path) -> str:
    name = path.resolve().parent.name if path.name == "labels.csv" else path.stem
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.+") or "folder"


def _findings(table: Table, labels: Sequence[str] | None, special: set[str | None]) -> tuple[str, ...]:
    if labels is not None:
        clash = [label for label in labels if label in special or label.lower() in (*_RESERVED, *_NORMAL, *_ABNORMAL)]
        if clash or not labels or len(set(labels)) < len(labels):
            raise UsageError(
                f"labels must be different findings (given: {', '.join(labels)})"
                + (f"; {clash[0]!r} already has another meaning" if clash else "")
            )
        return tuple(labels)
    found = tuple(
        column
        for column, cells in table.columns.items()
        if column not in special
        and column.lower() not in ("", *_RESERVED)
        and all(map(is_label_value, set(cells)))
        and any(label_value(cell) >= 0 for cell in set(cells))
    )
    if not found:
        raise InputError(
            f"{table.path} has no column that holds only 0, 1 or nothing: name the findings with --labels", "dataset"
        )
    return found


def _files(table: Table, column: str, root: Path) -> tuple[Path, ...]:
    files: dict[str, int] = {}
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        if not cell:
            raise InputError(f"line {line} of {table.path} names no image in column {column!r}: fill it in", "dataset")
        path = os.path.normpath(root / cell)
        if path in files:
            raise InputError(
                f"line {line} of {table.path} lists {cell} again, after line {files[path]}: remove one", "dataset"
            )
        files[path] = line
    # Single missing images are rejected one by one when the data set is prepared.
    if not any(map(os.path.exists, files)):
        raise InputError(
            f"none of the {len(files)} images of {table.path} exists; expected files such as {next(iter(files))}: "
            "say with --images where they are",
            "dataset",
        )
    return tuple(map(Path, files))


def _abnormal(table: Table, normal_column: str | None, abnormal_column: str | None, targets: FloatArray) -> FloatArray:
    """Return (N,) in [0, 1], NaN where it is not known."""
    unknown = np.full(len(table), np.nan, np.float32)
    from_normal = 1 - table.values(normal_column) if normal_column else unknown
    stated = table.values(abnormal_column) if abnormal_column else unknown
    against = np.flatnonzero(np.abs(stated - from_normal) > 1e-3)
    if len(against):
        raise InputError(
            f"line {table.lines[against[0]]} of {table.path}: {normal_column!r} and {abnormal_column!r} contradict "
            f"each other, as they do on {len(against)} lines in all: correct them, or leave one out with --ignore",
            "dataset",
        )
    if normal_column or abnormal_column:
        return np.where(np.isnan(stated), from_normal, stated)
    known = np.fmax.reduce(targets, axis=1)
    # Nothing found, but not everything known: it may be either.
    return np.where((known < 0.5) & np.isnan(targets).any(axis=1), np.float32(np.nan), known)


def _named_splits(table: Table, column: str) -> np.ndarray:
    splits = [SYNONYMS.get(cell.lower(), "") for cell in table.columns[column]]
    if "" in splits:
        row = splits.index("")
        raise InputError(
            f"line {table.lines[row]} of {table.path}: column {column!r} holds {table.columns[column][row]!r}, but a "
            "split is train, val or test: correct it, or name another column with --split-column",
            "dataset",
        )
    return np.array(splits, "<U5")
