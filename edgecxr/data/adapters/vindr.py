"""VinDr-CXR as PhysioNet distributes it.

The films are DICOM files. Training images have the labels of three readers, test images have a consensus.

train/*.dicom    test/*.dicom    annotations/image_labels_train.csv    annotations/image_labels_test.csv
annotations/annotations_train.csv and annotations_test.csv hold boxes around findings; they may be missing
annotations/patients.csv (image_id,patient) is not from PhysioNet; if it exists, validation is cut by patient
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.checks import refuse_outside, warned, without_a_line
from edgecxr.data.adapters.keys import film_id, known_patients, lookup, refuse_repeats, respelt
from edgecxr.data.adapters.readers import check_merge, merge_readers
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.boxes import CORNERS, KeptBoxes, film_corners, kept_boxes
from edgecxr.data.tables.labels import SETS, Sources, choose, merged, unknown_warnings
from edgecxr.data.tables.splits import cut_validation
from edgecxr.data.tables.table import listing, read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.vocabulary import FloatArray

NORMAL = "No finding"

_ALIASES = {"Other disease": "Other diseases"}  # the test table's spelling
_ENDINGS = (".dicom", ".dcm")


def vindr(
    folder: Path,
    labels: str | Sequence[str] = "vindr14",
    merge: str = "majority",
    val_fraction: float = 0.1,
    seed: int = 0,
    name: str = "vindr",
    provenance: dict[str, Any] | None = None,
) -> Dataset:
    """Open VinDr-CXR.

    Readers are merged by image (`edgecxr.data.adapters.readers`). An image is abnormal unless it is "No finding" after
    merging. All readers' boxes count if the finding is positive (0.5 or more) after merging. The reader's identity is
    never used, since it gives the label away.

    Args:
        folder: folder with train/, test/ and annotations/.
        labels: as in `edgecxr.data.tables.labels.choose`.
        merge: one of `edgecxr.data.adapters.readers.MERGES`.
        val_fraction: share of the training patients that becomes "val"; each image is its own patient unless
            annotations/patients.csv says otherwise.
        seed: seed of that division.
        name: name of the prepared data set.
        provenance: more facts to record.

    Raises:
        InputError: the folder or a table is not as expected; reason "dataset" or "malformed".
        UsageError: an unknown label set or merge.
    """
    check_merge(merge)
    folder = Path(folder)
    sources = _sources(labels)
    own = tuple(dict.fromkeys(part for parts in sources.values() for part in parts))
    parts = [_read_split(folder, split, own, merge) for split in ("train", "test")]
    split_ids, split_values, split_files = zip(*parts, strict=True)
    ids = np.concatenate(split_ids)
    values = np.concatenate(split_values)
    targets, abnormal = merged(values[:, :-1], own, sources), 1 - values[:, -1]
    files = split_files[0] + split_files[1]
    refuse_outside(folder, files)
    _check_images(folder, split_ids[0], split_ids[1], files)

    kept = [_boxes(folder, split, ids, sources, targets) for split in ("train", "test")]
    boxes = tuple(box for part in kept for box in part.boxes)
    unlisted = without_a_line((folder / "train", folder / "test"), files)
    patients, patient_notes = _patients(folder, ids)
    splits = np.repeat(["train", "test"], [len(part) for part in split_ids])
    splits = cut_validation(splits, patients, abnormal, val_fraction, seed)
    warnings = patient_notes + unknown_warnings(sources, own, "VinDr-CXR")
    warnings += warned(folder, tuple(sources), targets, abnormal, patients, splits)
    warnings += [warning for part in kept for warning in part.warnings]
    facts: dict[str, Any] = {
        "kind": "vindr",
        "source": str(folder.resolve()),
        "merge": merge,
        "val_fraction": val_fraction,
        "seed": seed,
        "cut": ["val"],
        "phantom": False,
        "warnings": warnings,
    } | (provenance or {})
    return Dataset(
        name, tuple(sources), ids, targets, abnormal, patients, splits, files, facts, boxes, unlisted,
        unused_boxes=sum(part.unused for part in kept),
    )  # fmt: skip


def _sources(labels: str | Sequence[str]) -> Sources:
    if not isinstance(labels, str):
        labels = tuple(_ALIASES.get(label, label) for label in labels)
        if NORMAL in labels:
            raise UsageError(f"labels must be findings, and {NORMAL!r} is none (given: {', '.join(labels)})")
    return choose(labels, SETS["all"], "VinDr-CXR")


def _read_split(
    folder: Path, split: str, labels: tuple[str, ...], merge: str
) -> tuple[np.ndarray, FloatArray, tuple[Path, ...]]:
    """Return ids, merged values and files of a split.

    Returns:
        (N,) ids, (N, L + 1) values with "No finding" last, and N files.
    """
    table = read_table(folder / "annotations" / f"image_labels_{split}.csv")
    columns = {_ALIASES.get(name, name): cells for name, cells in table.columns.items()}
    table = dataclasses.replace(table, columns=columns)
    table.require(("image_id", *labels, NORMAL))
    table = respelt(table, ("image_id",), film_id)
    refuse_repeats(table, ("image_id", "rad_id") if "rad_id" in columns else ("image_id",))
    ids, image = np.unique(table.columns["image_id"], return_inverse=True)
    values = np.stack([table.values(label) for label in (*labels, NORMAL)], axis=1)
    return ids, merge_readers(values, image, len(ids), merge), _files(folder / split, ids)


def _files(folder: Path, ids: np.ndarray) -> tuple[Path, ...]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in _ENDINGS)
    except OSError as error:
        raise InputError(
            f"{folder} with its .dicom files is not there ({error.strerror}): give the folder that holds train/, test/ "
            "and annotations/",
            "dataset",
        ) from error
    by_name = {film_id(entry.name): entry for entry in reversed(entries)}
    return tuple(by_name.get(name, folder / f"{name}.dicom") for name in ids.tolist())


def _check_images(folder: Path, train: np.ndarray, test: np.ndarray, files: tuple[Path, ...]) -> None:
    both = np.intersect1d(train, test)
    if len(both):
        raise InputError(f"{folder}: images are in the train and the test table ({listing(both, 3)})", "dataset")
    # `prepare` rejects single missing films one by one.
    if not any(map(os.path.exists, files)):
        raise InputError(
            f"none of the {len(files)} listed images exists; expected files such as {files[0]}: "
            "download train/ and test/",
            "dataset",
        )


def _boxes(folder: Path, split: str, ids: np.ndarray, sources: Sources, targets: FloatArray) -> KeptBoxes:
    """Return the boxes of a split's positive findings."""
    path = folder / "annotations" / f"annotations_{split}.csv"
    if not path.exists():
        return KeptBoxes([], [], 0)
    table = read_table(path)
    table.require(("image_id", "class_name", *CORNERS))
    rows = {name: row for row, name in enumerate(ids.tolist())}
    images = table.columns["image_id"]
    findings = [_ALIASES.get(name, name) for name in table.columns["class_name"]]
    # Corners are empty for "No finding" and for diagnoses of the whole film.
    of = [rows.get(film_id(image)) for image in images]
    lines = list(zip(of, images, findings, film_corners(table).tolist(), strict=True))
    return kept_boxes(lines, f"image_labels_{split}.csv", SETS["all"], sources, targets, merged=True)


def _patients(folder: Path, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the patients, and warnings about lines that match no image."""
    path = folder / "annotations" / "patients.csv"
    if not path.exists():
        return ids, []
    table = read_table(path)
    table.require(("image_id", "patient"))
    table = respelt(table, ("image_id",), film_id)
    patient_of = lookup(table, "image_id", table.columns["patient"])
    unknown = sorted(patient_of.keys() - set(ids.tolist()))
    patients, notes = known_patients([patient_of.get(name, "") for name in ids.tolist()], ids.tolist())
    if unknown:
        notes.append(f"lines of {path.name} about images that are not listed: {len(unknown)} ({listing(unknown, 3)})")
    return patients, notes
