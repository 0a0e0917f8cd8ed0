"""Writer of the files of a prepared data set."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import edgecxr
from edgecxr.data.dataset import SPLITS, Box, Dataset
from edgecxr.data.prepare.copies import (
    BLOCK,
    DUPLICATES,
    across_splits,
    contradicted_labels,
    contradiction_warnings,
    copies_of,
)
from edgecxr.data.prepare.journal import LARGEST_LINES, Journal, Outcome
from edgecxr.data.prepare.renderings import count_renderings, rendering_warnings
from edgecxr.data.prepared import (
    DECODED,
    FIXED_COLUMNS,
    FORMAT,
    IMAGES,
    LARGE,
    Prepared,
    content_hash,
    mapped,
    train_hash,
)
from edgecxr.data.sheet import contact_sheet
from edgecxr.data.tables.boxes import BOXES, COLUMNS, placement_warnings, scaled
from edgecxr.data.tables.splits import class_warnings
from edgecxr.errors import InputError
from edgecxr.films.radiograph import TURNED
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import DATASET
from edgecxr.storage.json_values import parse_json
from edgecxr.storage.reading import BadFile, read_text
from edgecxr.storage.spreadsheet import csv_text
from edgecxr.vocabulary import RENDERINGS, FloatArray

_MANY_MISSING = 0.05

UNLISTED = "unlisted.csv"


def write(dataset: Dataset, journal: Journal, states: list[str], inputs: str, folder: Path) -> None:
    """Write the files of a prepared data set.

    The same inputs give the same bytes.

    Args:
        dataset: the data set.
        journal: journal with an outcome for each image.
        states: states of the images' files when they were decoded.
        inputs: the fingerprint of what was prepared.
        folder: an existing, empty folder.
    """
    outcomes = [journal.outcomes[index] for index in range(len(dataset))]
    kept = np.array([outcome.index for outcome in outcomes if not outcome.reason])
    for size in journal.sizes:
        with (folder / _file_of(size)).open("wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), size, size)}
            np.lib.format.write_array_header_1_0(file, head)
            for start in range(0, len(kept), BLOCK):
                file.write(journal.images(kept[start : start + BLOCK], size).data)
    targets, abnormal = dataset.targets[kept], dataset.abnormal[kept]
    fixed = (dataset.ids[kept], dataset.patients[kept], dataset.splits[kept])
    lines = zip(*(column.tolist() for column in fixed), np.column_stack([abnormal, targets]), strict=True)
    cells = ([*names, *map(_cell, values)] for *names, values in lines)
    _write_csv(folder / "table.csv", (*FIXED_COLUMNS, *dataset.labels), cells)
    rejected = [o for o in outcomes if o.reason]
    warnings, warned = _counted([o for o in outcomes if not o.reason])
    ids = dataset.ids.tolist()
    _write_csv(
        folder / "rejected.csv", ("id", "reason", "message"), ([ids[o.index], o.reason, o.message] for o in rejected)
    )
    facts = ((i, dataset.files[i], states[i], outcomes[i]) for i in kept.tolist())
    decoded = ([ids[i], str(file), state, of.warnings, of.shape, of.rendering] for i, file, state, of in facts)
    (folder / DECODED).write_text("".join(json.dumps(film) + "\n" for film in decoded), encoding="utf-8")
    shapes = {o.index: o.shape for o in outcomes if o.shape}
    boxes = scaled(_of_unturned(dataset, outcomes), shapes, dataset.labels)
    if boxes:
        places = ([ids[box.index], box.label, *(f"{corner:.2f}" for corner in box[2:])] for box in boxes)
        _write_csv(folder / BOXES, COLUMNS, places)
    twins = copies_of(journal, kept)
    contradicted = contradicted_labels(dataset, twins)
    if twins:
        splits = dataset.splits.tolist()
        lines_of = (
            [ids[twin], ids[first], splits[twin], splits[first], "|".join(contradicted.get(twin, []))]
            for twin, first in twins
        )
        _write_csv(folder / DUPLICATES, ("id", "same_as", "split", "split_of_same", "contradicts"), lines_of)
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
        "boxes_unused": dataset.unused_boxes,
        "duplicates": {"images": len(twins), "across_splits": across_splits(twins, dataset.splits)},
        "warnings": warnings,
        "warned": {text: ids[film] for text, film in warned.items()},
        "counts": _counts(dataset, outcomes, kept),
        "provenance": dataset.provenance,
        "left": _left(dataset, outcomes, kept) + contradiction_warnings(contradicted, dict(twins), ids),
        "train_hash": train_hash(dataset.ids[dataset.splits == "train"]),
        "hash": content_hash(folder),
        "inputs": inputs,
        "version": edgecxr.__version__,
    }
    # "hash" identifies what a model has seen; these are only for `Prepared.check`.
    info["decoded_hash"] = content_hash(folder, (DECODED,))
    if LARGE_SIZE in journal.sizes:
        info["large_hash"] = content_hash(folder, (LARGE,))
    if boxes:
        info["boxes_hash"] = content_hash(folder, (BOXES,))
    atomic_write(folder / DATASET, json.dumps(info, indent=1))
    contact_sheet(Prepared.open(folder), folder / "contact_sheet.png")


def adopt(journal: Journal, dataset: Dataset, states: list[str], out: Path) -> None:
    """Copy already decoded images from the finished data set at `out`.

    Only images whose files have not changed are copied. Nothing is copied if there is no finished data set, or if it
    was changed or has other sizes.

    Args:
        journal: journal that gets the images it lacks.
        dataset: the data set to be decoded.
        states: states of its images' files.
        out: folder of the finished data set.
    """
    try:
        prepared = Prepared.open(out)
        path, sizes = out / DECODED, (BASE_SIZE,) if prepared.large is None else (BASE_SIZE, LARGE_SIZE)
        if prepared.info["format"] != FORMAT or sizes != journal.sizes or not path.exists():
            return
        prepared.check()
        lines = read_text(path, LARGEST_LINES).splitlines()
    except (InputError, OSError, BadFile):
        return
    places = {name: index for index, name in enumerate(dataset.ids.tolist())}
    for start in range(0, min(len(lines), len(prepared)), BLOCK):
        # Map again for each block: what was read counts as memory while the map is open.
        maps = [mapped(out / _file_of(size), len(prepared), size) for size in sizes]
        for row in range(start, min(start + BLOCK, len(lines), len(prepared))):
            decoded = _decoded(lines[row])
            index = -1 if decoded is None else places.get(decoded.name, -1)
            if decoded is None or index < 0 or index in journal.outcomes:
                continue
            if decoded.file == str(dataset.files[index]) and decoded.state == states[index]:
                pixels = b"".join(images[row].tobytes() for images in maps)
                journal.add(Outcome(index, "", "", decoded.warnings, decoded.shape, decoded.rendering), pixels)
    journal.commit()


class _Decoded(NamedTuple):
    """A line of decoded.jsonl."""

    name: str
    file: str
    state: str
    warnings: tuple[str, ...]
    shape: tuple[int, int]
    rendering: str | None


def _decoded(line: str) -> _Decoded | None:
    """Return a line of decoded.jsonl; None if it is none."""
    try:
        name, file, state, warnings, (rows, columns), rendering = parse_json(line)
    except (ValueError, TypeError):
        return None
    texts = (name, file, state, *warnings) if isinstance(warnings, list) else (None,)
    if not all(isinstance(text, str) for text in texts) or not all(type(side) is int for side in (rows, columns)):
        return None
    if rendering not in (None, *RENDERINGS):
        return None
    return _Decoded(name, file, state, tuple(warnings), (rows, columns), rendering)


def _file_of(size: int) -> str:
    return LARGE if size == LARGE_SIZE else IMAGES


def has_unlisted(prepared: Prepared, dataset: Dataset) -> bool:
    """Return whether the list of unlisted files is up to date."""
    try:
        written = read_text(prepared.path / UNLISTED, LARGEST_LINES)
    except FileNotFoundError:
        written = ""
    except (OSError, BadFile):
        return False
    return written == _unlisted_text(dataset) and prepared.info.get("unlisted") == len(dataset.unlisted)


def write_unlisted(folder: Path, dataset: Dataset) -> None:
    """Write the list of unlisted files, or remove an outdated one."""
    if dataset.unlisted:
        atomic_write(folder / UNLISTED, _unlisted_text(dataset))
    else:
        (folder / UNLISTED).unlink(missing_ok=True)


def _unlisted_text(dataset: Dataset) -> str:
    # File names may be in any encoding.
    names = (os.fsencode(file).decode("utf-8", "backslashreplace") for file in dataset.unlisted)
    return csv_text(("file",), ([name] for name in names)) if dataset.unlisted else ""


def _sizes(shapes: list[tuple[int, int]]) -> dict[str, list[int]]:
    """Return [smallest, median, largest] of the films' rows and columns."""
    rows, columns = np.sort(np.array(shapes), axis=0).T
    return {
        name: [int(values[i]) for i in (0, len(values) // 2, -1)]
        for name, values in (("rows", rows), ("columns", columns))
    }


def _of_unturned(dataset: Dataset, outcomes: list[Outcome]) -> tuple[Box, ...]:
    """Return the boxes of films that were not turned.

    Whether the others were drawn on the stored or on the turned film is not known.
    """
    turned = {o.index for o in outcomes if any(warning.endswith(TURNED) for warning in o.warnings)}
    return tuple(box for box in dataset.boxes if box.index not in turned)


def _left(dataset: Dataset, outcomes: list[Outcome], kept: NDArray[np.intp]) -> list[str]:
    """Return warnings about the images that can be used."""
    warnings = []
    missing = sum(outcome.reason == "not-found" for outcome in outcomes)
    if missing >= _MANY_MISSING * len(outcomes):
        warnings.append(f"{missing} of {len(outcomes)} images are missing: is all of it there, and is this its folder?")
    unsure = len(dataset.boxes) - len(_of_unturned(dataset, outcomes))
    if unsure:
        warnings.append(f"boxes left out: {unsure}; their films were turned, as PatientOrientation says")
    shapes = {outcome.index: outcome.shape for outcome in outcomes if outcome.shape}
    warnings += placement_warnings(_of_unturned(dataset, outcomes), shapes, dataset.ids.tolist())
    splits = dataset.splits[kept]
    lost = [split for split in SPLITS if split in dataset.splits and split not in splits]
    warnings += [f"of the images of {split} none can be used" for split in lost]
    # Skip findings that the data set does not know: the adapter warns about them.
    columns = [column for column in range(len(dataset.labels)) if not np.isnan(dataset.targets[:, column]).all()]
    labels = [dataset.labels[column] for column in columns]
    warnings += rendering_warnings(dataset, [outcomes[index] for index in kept.tolist()])
    return warnings + class_warnings(labels, dataset.targets[kept][:, columns], dataset.abnormal[kept], splits)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> None:
    path.write_text(csv_text(header, rows), encoding="utf-8", newline="")


def _cell(value: np.float32) -> str:
    return "" if np.isnan(value) else np.format_float_positional(value, trim="-")


def _counted(outcomes: list[Outcome]) -> tuple[dict[str, int], dict[str, int]]:
    """Count warnings, ignoring the numbers in their texts.

    Returns:
        The first text of each -> the number of films, and -> the index of the first film.
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    films: dict[str, int] = {}
    for outcome in outcomes:
        for warning in outcome.warnings:
            text = first.setdefault(re.sub(r"\d+", "#", warning), warning)
            counts[text] += 1
            films.setdefault(text, outcome.index)
    return dict(counts.most_common()), films


def _counts(dataset: Dataset, outcomes: list[Outcome], kept: NDArray[np.intp]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for split in SPLITS:
        rows = kept[dataset.splits[kept] == split]
        columns = dict(zip(dataset.labels, dataset.targets[rows].T, strict=True))
        result[split] = {
            "images": len(rows),
            "patients": len(np.unique(dataset.patients[rows])),
            "abnormal": _classes(dataset.abnormal[rows]),
            "labels": {label: _classes(values) for label, values in columns.items()},
            "renderings": count_renderings(dataset, [outcomes[index] for index in rows.tolist()]),
        }
    return result


def _classes(values: FloatArray) -> dict[str, int]:
    positive, negative = int((values >= 0.5).sum()), int((values < 0.5).sum())
    return {"positive": positive, "negative": negative, "unknown": len(values) - positive - negative}
