"""Making a prepared data set: every image decoded and resized once, in parallel, resumable."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgecxr
from edgecxr.artefact import refuse_foreign, replace_folder, sole_writer
from edgecxr.data.boxes import BOXES, COLUMNS, scaled
from edgecxr.data.dataset import SPLITS, CxrDataset
from edgecxr.data.decode import TIME_LIMIT, decode_all
from edgecxr.data.journal import MARK, Journal, Outcome
from edgecxr.data.prepared import FIXED_COLUMNS, FORMAT, IMAGES, LARGE, Prepared, content_hash
from edgecxr.data.sheet import contact_sheet
from edgecxr.data.table import read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.registry import EXECUTORS
from edgecxr.runtime.preprocess import BASE_SIZE, LARGE_SIZE
from edgecxr.runtime.types import FloatArray
from edgecxr.workspace import DATASET, atomic_write

__all__ = ["Prepared", "contact_sheet", "fingerprint", "prepare"]

DUPLICATES, UNLISTED = "duplicates.csv", "unlisted.csv"


def prepare(
    dataset: CxrDataset,
    out: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    size: int = BASE_SIZE,
    executor: str = "processes",
    strict: bool = False,
    time_limit: float = TIME_LIMIT,
) -> Prepared:
    """Decode and resize every image of a data set; one that was killed goes on where it was.

    Images that cannot be used are listed in rejected.csv. A finished data set at `out` made from the same inputs is
    returned at once, if it has what is asked for; another is replaced when the new one is complete.

    Args:
        dataset: its films; the calling program must be importable (`if __name__ == "__main__"`), since processes of
            their own read them.
        out: the folder to write, such as runs/data/vindr.
        workers: processes that decode; by default one per CPU.
        progress: called with (images done, images in all).
        size: 448 keeps the films at 448 px too, for teachers of that size; what is kept at 224 px stays the same.
        executor: "processes" of this machine, or "ray", a cluster that sees the same files.
        strict: stop at the first image that cannot be used, instead of listing it.
        time_limit: seconds for one image, at least 1.

    Raises:
        InputError: no image can be used, or the data set contradicts itself; reason "dataset". With `strict`, an image
            cannot be used; its own reason.
        MissingPackage: Ray is not installed.
        UsageError: another size or a shorter limit; or `out` cannot be written, is not ours to replace, or is being
            written by another process.
        EdgeCxrError: the cluster failed; call again to go on.
    """
    if size not in (BASE_SIZE, LARGE_SIZE):
        raise UsageError(f"--size {size}: there are {BASE_SIZE}, {LARGE_SIZE}")
    if executor not in EXECUTORS:
        raise UsageError(f"--executor {executor}: there are {', '.join(EXECUTORS)}")
    if not time_limit >= 1:
        raise UsageError(f"--time-limit {time_limit:g}: give at least 1 second")
    out = Path(out).resolve()
    _check(dataset)
    inputs = fingerprint(dataset)
    # A journal has other pixels for each size; a finished data set of 448 px serves who asks for 224 px.
    mark = inputs if size == BASE_SIZE else f"{inputs} {size}"
    finished = _finished(out, inputs, size)
    work = out.with_name(f".{out.name}.partial")
    if finished and strict:
        _refuse_rejected(finished)
    if finished and not _is_left_over(work, mark):
        return _renew_unlisted(finished, dataset)
    with sole_writer(out):
        # By a process that has ended just now, or was killed before it tidied up.
        finished = _finished(out, inputs, size)
        if not finished:
            refuse_foreign(out)
            journal = Journal(work, mark, tuple(sorted({BASE_SIZE, size})))
            decoding = partial(decode_all, dataset, journal, _workers(workers), progress, executor, strict, time_limit)
            _make(dataset, out, journal, inputs, decoding)
        shutil.rmtree(work, ignore_errors=True)
    return finished or Prepared.open(out)


def _refuse_rejected(prepared: Prepared) -> None:
    """Raise InputError for the first image that was rejected when a data set was prepared without --strict."""
    table = read_table(prepared.path / "rejected.csv") if prepared.info["rejected"] else None
    if table is not None:
        message = f"{table.columns['message'][0]} (listed in {table.path}; --strict takes no data set with such films)"
        raise InputError(message, table.columns["reason"][0])


def replaces(out: Path, dataset: CxrDataset) -> str:
    """Return a line that says that a data set with other findings is going to be replaced; "" where none is."""
    try:
        there = Prepared.open(out)
    except InputError:
        return ""
    if there.labels == dataset.labels:
        return ""
    return f"{out} has other findings ({', '.join(there.labels)}) and is going to be replaced; --name keeps both"


def _workers(asked: int | None) -> int:
    return max(1, asked or os.cpu_count() or 1)


def _is_left_over(work: Path, mark: str) -> bool:
    """Whether a kill left `work` of a data set that is finished; work on other inputs may still be wanted."""
    return work.is_dir() and (not (work / MARK).exists() or (work / MARK).read_text() == mark)


def fingerprint(dataset: CxrDataset) -> str:
    """Return a SHA-256 of a data set's table and boxes and of the sizes and times of its files."""
    digest = hashlib.sha256()
    # Words for people may change and mean the same.
    origin = {key: value for key, value in dataset.provenance.items() if key != "warnings"}
    head = (FORMAT, BASE_SIZE, dataset.name, dataset.labels, origin)
    digest.update(json.dumps(head, sort_keys=True).encode())
    for names in (dataset.ids, dataset.patients, dataset.splits):
        digest.update(json.dumps(names.tolist()).encode())
    for values in (dataset.targets, dataset.abnormal):
        digest.update(json.dumps(np.round(values, 6).tolist()).encode())
    # Without boxes it is what it was before there were any: what is prepared stays so.
    if dataset.boxes:
        digest.update(json.dumps(dataset.boxes).encode())
    for file in dataset.files:
        try:
            state = file.stat()
            # Whether it can be read counts too: a film that could not be is decoded when its permissions are mended.
            readable = os.access(file, os.R_OK)
            digest.update(f"{state.st_size} {state.st_mtime_ns} {readable}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def _check(dataset: CxrDataset) -> None:
    count, labels = len(dataset), dataset.labels
    lengths = {len(x) for x in (dataset.ids, dataset.patients, dataset.splits, dataset.abnormal, dataset.files)}
    if lengths != {count} or dataset.targets.shape != (count, len(labels)):
        raise ValueError(f"data set {dataset.name}: the attributes disagree on the number of images or labels")
    problem = ""
    if not count or not labels:
        problem = "has no images or no labels"
    elif len(np.unique(dataset.ids)) < count:
        problem = "has two images with the same id"
    elif not np.isin(dataset.splits, SPLITS).all():
        problem = f"has other splits than {', '.join(SPLITS)}"
    elif len(set(labels)) < len(labels) or set(labels) & set(FIXED_COLUMNS):
        problem = f"has a label twice, or one called {', '.join(FIXED_COLUMNS)}"
    if problem:
        raise InputError(f"data set {dataset.name} {problem}: correct its table", "dataset")


def _make(
    dataset: CxrDataset,
    out: Path,
    journal: Journal,
    inputs: str,
    decoding: Callable[[], None],
) -> None:
    # Not beside `out`: what a kill leaves behind is found and removed next time.
    new = journal.folder / "new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        decoding()
        _refuse_empty(dataset, journal)
        new.mkdir()
        _write(new, dataset, journal, inputs)
        replace_folder(new, out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # it may be what has filled the disk
        raise
    finally:
        journal.close()


def _finished(out: Path, inputs: str, size: int) -> Prepared | None:
    try:
        prepared = Prepared.open(out)
    except InputError:
        return None  # missing, damaged or of a newer format: in each case, preparing is the remedy
    lacking = size == LARGE_SIZE and prepared.large is None
    return prepared if prepared.info.get("inputs") == inputs and not lacking else None


def _refuse_empty(dataset: CxrDataset, journal: Journal) -> None:
    rejected = [outcome for outcome in journal.outcomes.values() if outcome.reason]
    if len(rejected) < len(dataset):
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in Counter(o.reason for o in rejected).most_common())
    first = min(rejected, key=lambda outcome: outcome.index)
    raise InputError(f"no image of {dataset.name} can be used ({reasons}); the first: {first.message}", "dataset")


def _write(folder: Path, dataset: CxrDataset, journal: Journal, inputs: str) -> None:
    """Write the files of a prepared data set; the same inputs give the same bytes."""
    outcomes = [journal.outcomes[index] for index in range(len(dataset))]
    kept = np.array([outcome.index for outcome in outcomes if not outcome.reason])
    for size in journal.sizes:
        with (folder / (LARGE if size == LARGE_SIZE else IMAGES)).open("wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), size, size)}
            np.lib.format.write_array_header_1_0(file, head)
            for start in range(0, len(kept), 256):
                file.write(journal.images(kept[start : start + 256], size).data)
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
    _write_unlisted(folder, dataset)
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
        "hash": content_hash(folder),
        "inputs": inputs,
        "version": edgecxr.__version__,
    }
    # What a model has seen has the first hash; these are for `Prepared.check`.
    if LARGE_SIZE in journal.sizes:
        info["large_hash"] = content_hash(folder, (LARGE,))
    if boxes:
        info["boxes_hash"] = content_hash(folder, (BOXES,))
    atomic_write(folder / DATASET, json.dumps(info, indent=1))
    contact_sheet(Prepared.open(folder), folder / "contact_sheet.png")


def _write_unlisted(folder: Path, dataset: CxrDataset) -> None:
    (folder / UNLISTED).unlink(missing_ok=True)
    if dataset.unlisted:
        _write_csv(folder / UNLISTED, ("file",), ([str(file)] for file in dataset.unlisted))


def _renew_unlisted(prepared: Prepared, dataset: CxrDataset) -> Prepared:
    """Write anew which files no line names, where that alone has changed: the films need not be decoded for it."""
    path = prepared.path / UNLISTED
    there = read_table(path).columns["file"] if path.exists() else []
    now = [str(file) for file in dataset.unlisted]
    if there == now and prepared.info.get("unlisted") == len(now):
        return prepared
    with sole_writer(prepared.path):
        _write_unlisted(prepared.path, dataset)
        info = prepared.info | {"unlisted": len(now)}
        atomic_write(prepared.path / DATASET, json.dumps(info, indent=1))
    return Prepared.open(prepared.path)


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
    for start in range(0, len(kept), 256):
        part = kept[start : start + 256]
        for index, image in zip(part.tolist(), journal.images(part), strict=True):
            seen = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
            if seen != index:
                twins.append((index, seen))
    return twins


def _across_splits(twins: list[tuple[int, int]], splits: NDArray[np.str_]) -> int:
    """Return how many images have the pixels of an image of another split."""
    groups: dict[int, list[int]] = {}
    for twin, first in twins:
        groups.setdefault(first, [first]).append(twin)
    return sum(len(group) for group in groups.values() if len(set(splits[group].tolist())) > 1)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


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
