"""VinDr-CXR as PhysioNet distributes it: DICOM films, three readers per training image, a consensus for the test set.

train/*.dicom    test/*.dicom    annotations/image_labels_train.csv    annotations/image_labels_test.csv
annotations/annotations_train.csv and annotations_test.csv hold boxes around findings; they may be missing
annotations/patients.csv (image_id,patient) is not of PhysioNet; where it exists, validation is cut by patient
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.listed import warned, without_a_line
from edgecxr.data.dataset import Box
from edgecxr.data.tables.boxes import CORNERS, film_corners
from edgecxr.data.tables.labels import SETS, Sources, choose, merged, unknown_warnings, wanted_of
from edgecxr.data.tables.readers import check_merge, merge_readers
from edgecxr.data.tables.splits import cut_validation
from edgecxr.data.tables.table import Table, listing, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.vocabulary import FloatArray

NORMAL = "No finding"

_ALIASES = {"Other disease": "Other diseases"}  # the test table's spelling
_ENDINGS = (".dicom", ".dcm")


class VinDr:
    """VinDr-CXR, a `CxrDataset`.

    Readers are merged by image (`edgecxr.data.tables.readers`). An image is abnormal unless it is "No finding"
    after merging. All readers' boxes count where the finding is positive (0.5 or more) after merging. Who read an image
    is never used: it gives the label away.

    Args:
        folder: with train/, test/ and annotations/.
        labels: what `edgecxr.data.tables.labels.choose` takes.
        merge: one of `edgecxr.data.tables.readers.MERGES`.
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
        check_merge(merge)
        folder = Path(folder)
        self.name = name
        sources = _sources(labels)
        self.labels = tuple(sources)
        own = tuple(dict.fromkeys(part for parts in sources.values() for part in parts))
        parts = [_read_split(folder, split, own, merge) for split in ("train", "test")]
        ids, findings, files = zip(*parts, strict=True)
        self.ids = np.concatenate(ids)
        values = np.concatenate(findings)
        self.targets, self.abnormal = merged(values[:, :-1], own, sources), 1 - values[:, -1]
        self.files = files[0] + files[1]
        _check_images(folder, ids[0], ids[1], self.files)

        self.boxes = tuple(
            box
            for split in ("train", "test")
            for box in _boxes(folder / "annotations" / f"annotations_{split}.csv", self.ids, sources, self.targets)
        )
        self.unlisted = without_a_line((folder / "train", folder / "test"), self.files)
        self.patients = _patients(folder, self.ids)
        splits = np.repeat(["train", "test"], [len(part) for part in ids])
        self.splits = cut_validation(splits, self.patients, self.abnormal, val_fraction, seed)
        warnings = unknown_warnings(sources, own, "VinDr-CXR")
        warnings += warned(folder, self.labels, self.targets, self.abnormal, self.patients, self.splits)
        self.provenance: dict[str, Any] = {
            "kind": "vindr",
            "source": str(folder.resolve()),
            "merge": merge,
            "val_fraction": val_fraction,
            "seed": seed,
            "cut": ["val"],
            "phantom": False,
            "warnings": warnings,
        } | (provenance or {})

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def reader(self, index: int) -> Callable[[], Radiograph]:
        """Return what reads image `index`."""
        return partial(read_radiograph, self.files[index])


def _sources(labels: str | Sequence[str]) -> Sources:
    if not isinstance(labels, str):
        labels = tuple(_ALIASES.get(label, label) for label in labels)
        if NORMAL in labels:
            raise UsageError(f"labels must be findings, and {NORMAL!r} is none (given: {', '.join(labels)})")
    return choose(labels, SETS["all"], "VinDr-CXR")


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
    return ids, merge_readers(values, image, len(ids), merge), _files(folder / split, ids)


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
    if not any(map(os.path.exists, files)):
        raise InputError(
            f"none of the {len(files)} listed images exists; expected files such as {files[0]}: "
            "download train/ and test/",
            "dataset",
        )


def _boxes(path: Path, ids: np.ndarray, sources: Sources, targets: FloatArray) -> Iterator[Box]:
    """Yield the boxes of positive findings."""
    if not path.exists():
        return
    table = read_table(path)
    table.require(("image_id", "class_name", *CORNERS))
    rows = {name: row for row, name in enumerate(ids.tolist())}
    places = {label: place for place, label in enumerate(sources)}
    wanted = wanted_of(sources)
    names = zip(table.columns["image_id"], table.columns["class_name"], strict=True)
    for (image, finding), corners in zip(names, film_corners(table).tolist(), strict=True):
        row = rows.get(image)
        # Empty corners stand beside "No finding", and beside what is said of the whole film.
        if row is None or math.isnan(corners[0]):
            continue
        for label in wanted.get(_ALIASES.get(finding, finding), []):
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
