"""Writing the files of a prepared data set from what was decoded."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgecxr
from edgecxr.data.dataset import SPLITS, CxrDataset
from edgecxr.data.prepare.journal import Journal, Outcome
from edgecxr.data.prepared import DECODED, FIXED_COLUMNS, FORMAT, IMAGES, LARGE, Prepared, content_hash, train_hash
from edgecxr.data.sheet import contact_sheet
from edgecxr.data.tables.boxes import BOXES, COLUMNS, scaled
from edgecxr.data.tables.splits import class_warnings
from edgecxr.errors import InputError
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import DATASET
from edgecxr.vocabulary import FloatArray

_MANY_MISSING = 0.05
_BLOCK = 256  # images in memory

DUPLICATES, UNLISTED = "duplicates.csv", "unlisted.csv"


def write(dataset: CxrDataset, journal: Journal, states: list[str], inputs: str, folder: Path) -> None:
    """Write the files of a prepared data set; the same inputs give the same bytes.

    Args:
        dataset: whose images the journal has.
        journal: with an outcome for each image.
        states: of the images' files, as they were decoded.
        inputs: the fingerprint of what was prepared.
        folder: that is there and empty.
    """
    outcomes = [journal.outcomes[index] for index in range(len(dataset))]
    kept = np.array([outcome.index for outcome in outcomes if not outcome.reason])
    for size in journal.sizes:
        with (folder / _file_of(size)).open("wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), size, size)}
            np.lib.format.write_array_header_1_0(file, head)
            for start in range(0, len(kept), _BLOCK):
                file.write(journal.images(kept[start : start + _BLOCK], size).data)
    targets, abnormal = dataset.targets[kept], dataset.abnormal[kept]
    fixed = (dataset.ids[kept], dataset.patients[kept], dataset.splits[kept])
    lines = zip(*(column.tolist() for column in fixed), np.column_stack([abnormal, targets]), strict=True)
    cells = ([*names, *map(_cell, values)] for *names, values in lines)
    _write_csv(folder / "table.csv", (*FIXED_COLUMNS, *dataset.labels), cells)
    rejected = [o for o in outcomes if o.reason]
    ids = dataset.ids.tolist()
    _write_csv(
        folder / "rejected.csv", ("id", "reason", "message"), ([ids[o.index], o.reason, o.message] for o in rejected)
    )
    facts = ((i, dataset.files[i], states[i], outcomes[i]) for i in kept.tolist())
    decoded = (json.dumps([ids[i], str(file), state, of.warnings, of.shape]) + "\n" for i, file, state, of in facts)
    (folder / DECODED).write_text("".join(decoded), encoding="utf-8")
    shapes = {o.index: o.shape for o in outcomes if o.shape}
    boxes = scaled(dataset.boxes, shapes, dataset.labels)
    if boxes:
        places = ([ids[box.index], box.label, *(f"{corner:.2f}" for corner in box[2:])] for box in boxes)
        _write_csv(folder / BOXES, COLUMNS, places)
    twins = _duplicates(journal, kept)
    if twins:
        splits = dataset.splits.tolist()
        lines_of = ([ids[twin], ids[first], splits[twin], splits[first]] for twin, first in twins)
        _write_csv(folder / DUPLICATES, ("id", "same_as", "split", "split_of_same"), lines_of)
    write_unlisted(folder, dataset)
    info = {
        "format": FORMAT,
        "name": dataset.name,
        "labels": dataset.labels,
        "phantom": bool(dataset.provenance.get("phantom")),
        "size": BASE_SIZE,
        "images": len(kept),
        "rejected": dict(Counter(o.reason for o in rejected).most_common()),
        "unlisted": len(dataset.unlisted),
        "films": _sizes([o.shape for o in outcomes if o.shape]),
        "boxes": len(boxes),
        "duplicates": {"images": len(twins), "across_splits": _across_splits(twins, dataset.splits)},
        "warnings": _counted([o for o in outcomes if not o.reason]),
        "counts": _counts(dataset, kept),
        "provenance": dataset.provenance,
        "left": _left(dataset, outcomes, kept),
        "train_hash": train_hash(dataset.ids[dataset.splits == "train"]),
        "hash": content_hash(folder),
        "inputs": inputs,
        "version": edgecxr.__version__,
    }
    # What a model has seen has the first hash; these are for `Prepared.check`.
    info["decoded_hash"] = content_hash(folder, (DECODED,))
    if LARGE_SIZE in journal.sizes:
        info["large_hash"] = content_hash(folder, (LARGE,))
    if boxes:
        info["boxes_hash"] = content_hash(folder, (BOXES,))
    atomic_write(folder / DATASET, json.dumps(info, indent=1))
    contact_sheet(Prepared.open(folder), folder / "contact_sheet.png")


def adopt(journal: Journal, dataset: CxrDataset, states: list[str], out: Path) -> None:
    """Take over what was read for the finished data set at a place, of images whose files are as they were.

    Args:
        journal: that lacks them.
        dataset: that is going to be decoded.
        states: of its images' files.
        out: the place; where nothing is finished, or has changed since, or is of other sizes, nothing is taken over.
    """
    try:
        prepared = Prepared.open(out)
        path, sizes = out / DECODED, (BASE_SIZE,) if prepared.large is None else (BASE_SIZE, LARGE_SIZE)
        if prepared.info["format"] != FORMAT or sizes != journal.sizes or not path.exists():
            return
        prepared.check()
    except InputError:
        return
    places = {name: index for index, name in enumerate(dataset.ids.tolist())}
    lines = path.read_text(encoding="utf-8").splitlines()
    for start in range(0, len(lines), _BLOCK):
        # Mapped anew, since what was read of a map counts as this process's memory for as long as there is the map.
        maps = [np.load(out / _file_of(size), mmap_mode="r") for size in sizes]
        for row in range(start, min(start + _BLOCK, len(lines))):
            name, file, state, warnings, shape = json.loads(lines[row])
            index = places.get(name, -1)
            same = index >= 0 and file == str(dataset.files[index]) and state == states[index]
            if same and index not in journal.outcomes:
                pixels = b"".join(images[row].tobytes() for images in maps)
                journal.add(Outcome(index, warnings=tuple(warnings), shape=tuple(shape)), pixels)
    journal.commit()


def _file_of(size: int) -> str:
    return LARGE if size == LARGE_SIZE else IMAGES


def has_unlisted(prepared: Prepared, dataset: CxrDataset) -> bool:
    """Whether a prepared data set says what it should of files that no line names."""
    path = prepared.path / UNLISTED
    there = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return there == _unlisted_text(dataset) and prepared.info.get("unlisted") == len(dataset.unlisted)


def write_unlisted(folder: Path, dataset: CxrDataset) -> None:
    """Write which files no line names, if there are any, in place of what was written of them before."""
    if dataset.unlisted:
        atomic_write(folder / UNLISTED, _unlisted_text(dataset))
    else:
        (folder / UNLISTED).unlink(missing_ok=True)


def _unlisted_text(dataset: CxrDataset) -> str:
    # Names may be in any encoding.
    names = (os.fsencode(file).decode("utf-8", "backslashreplace") for file in dataset.unlisted)
    return _csv(("file",), ([name] for name in names)) if dataset.unlisted else ""


def _sizes(shapes: list[tuple[int, int]]) -> dict[str, list[int]]:
    """Return the smallest, median and largest number of rows and columns of films."""
    rows, columns = np.sort(np.array(shapes), axis=0).T
    return {
        name: [int(values[i]) for i in (0, len(values) // 2, -1)]
        for name, values in (("rows", rows), ("columns", columns))
    }


def _duplicates(journal: Journal, kept: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return (image, first one with the same 224 px pixels) for each image that is not the first."""
    first: dict[bytes, int] = {}
    twins = []
    for start in range(0, len(kept), _BLOCK):
        part = kept[start : start + _BLOCK]
        for index, image in zip(part.tolist(), journal.images(part), strict=True):
            seen = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
            if seen != index:
                twins.append((index, seen))
    return twins


def _left(dataset: CxrDataset, outcomes: list[Outcome], kept: NDArray[np.intp]) -> list[str]:
    """Return warnings of the images that are left."""
    warnings = []
    missing = sum(outcome.reason == "not-found" for outcome in outcomes)
    if missing >= _MANY_MISSING * len(outcomes):
        warnings.append(f"{missing} of {len(outcomes)} images are missing: is all of it there, and is this its folder?")
    splits = dataset.splits[kept]
    lost = [split for split in SPLITS if split in dataset.splits and split not in splits]
    warnings += [f"of the images of {split} none can be used" for split in lost]
    # What a data set does not know of is said elsewhere.
    known = [column for column in range(len(dataset.labels)) if not np.isnan(dataset.targets[:, column]).all()]
    labels = [dataset.labels[column] for column in known]
    return warnings + class_warnings(labels, dataset.targets[kept][:, known], dataset.abnormal[kept], splits)


def _across_splits(twins: list[tuple[int, int]], splits: NDArray[np.str_]) -> int:
    """Return how many images have the pixels of an image of another split."""
    groups: dict[int, list[int]] = {}
    for twin, first in twins:
        groups.setdefault(first, [first]).append(twin)
    return sum(len(group) for group in groups.values() if len(set(splits[group].tolist())) > 1)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> None:
    path.write_text(_csv(header, rows), encoding="utf-8")


def _csv(header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: np.float32) -> str:
    return "" if np.isnan(value) else np.format_float_positional(value, trim="-")


def _counted(outcomes: list[Outcome]) -> dict[str, int]:
    """Count warnings; those that differ only in their numbers are one, in the words of the first."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        for warning in outcome.warnings:
            pattern = re.sub(r"\d+", "#", warning)
            counts[first.setdefault(pattern, warning)] += 1
    return dict(counts.most_common())


def _counts(dataset: CxrDataset, kept: NDArray[np.intp]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for split in SPLITS:
        rows = kept[dataset.splits[kept] == split]
        columns = dict(zip(dataset.labels, dataset.targets[rows].T, strict=True))
        result[split] = {
            "images": len(rows),
            "patients": len(np.unique(dataset.patients[rows])),
            "abnormal": _classes(dataset.abnormal[rows]),
            "labels": {label: _classes(values) for label, values in columns.items()},
        }
    return result


def _classes(values: FloatArray) -> dict[str, int]:
    positive, negative = int((values >= 0.5).sum()), int((values < 0.5).sum())
    return {"positive": positive, "negative": negative, "unknown": len(values) - positive - negative}
