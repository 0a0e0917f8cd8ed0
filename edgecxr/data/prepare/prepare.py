"""Preparation of data sets: decode and resize every image once.

Images are decoded in parallel, and a killed run can resume.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgecxr.data.dataset import SPLITS, Dataset
from edgecxr.data.prepare.decode import TIME_LIMIT, decode_all
from edgecxr.data.prepare.journal import Journal, read_mark
from edgecxr.data.prepare.write import adopt, has_unlisted, write, write_unlisted
from edgecxr.data.prepared import FIXED_COLUMNS, FORMAT, Prepared
from edgecxr.data.tables.table import read_table
from edgecxr.errors import InputError, UsageError, brief
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.machine.cores import cores
from edgecxr.registry import EXECUTORS
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import DATASET, refuse_foreign, replace_folder, sole_writer
from edgecxr.storage.walk import remove_tree

__all__ = ["Prepared", "fingerprint", "prepare"]


def prepare(
    dataset: Dataset,
    out: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    size: int = BASE_SIZE,
    executor: str = "processes",
    strict: bool = False,
    time_limit: float = TIME_LIMIT,
    retry: bool = False,
) -> Prepared:
    """Decode and resize every image of a data set.

    A killed run continues where it stopped. Images that cannot be used are listed in rejected.csv. A finished data set
    at `out` from the same inputs is returned at once if it has what is requested; any other is replaced when the new
    one is complete.

    Args:
        dataset: the data set. Its class and readers must be importable, since other processes read the films.
        out: the folder to write, such as runs/data/vindr.
        workers: number of processes that decode; by default one per CPU.
        progress: called with (images done, images in all).
        size: 448 also keeps the films at 448 px, for teachers of that size; the 224 px images stay the same.
        executor: "processes" (on this machine) or "ray" (a cluster that sees the same files).
        strict: stop at the first image that cannot be used, instead of listing it.
        time_limit: seconds for one image, at least 1.
        retry: read the rejected images of a finished data set again. Other images are not read again if their files
            have not changed since the data set at `out` was prepared, whatever its labels and splits, but at this size.

    Raises:
        InputError: no image can be used, or the data set contradicts itself; reason "dataset". With `strict`, an image
            cannot be used; its own reason.
        MissingPackage: Ray is not installed.
        UsageError: another size or executor, or a shorter limit; or `out` cannot be written, is not ours to replace, or
            is being written by another process.
        EdgeCxrError: the cluster failed; call again to resume.
    """
    if size not in (BASE_SIZE, LARGE_SIZE):
        raise UsageError(f"--size {size}: there are {BASE_SIZE}, {LARGE_SIZE}")
    if executor not in EXECUTORS:
        raise UsageError(f"--executor {executor}: there are {', '.join(EXECUTORS)}")
    if not time_limit >= 1:
        raise UsageError(f"--time-limit {time_limit:g}: give at least 1 second")
    out = Path(out).resolve()
    _check(dataset)
    states = file_states(dataset)
    inputs = fingerprint(dataset, states)
    finished = _finished(out, inputs, size)
    work = out.with_name(f".{out.name}.partial")
    again = retry and finished is not None and bool(finished.info["rejected"])
    if finished and strict and not again:
        _refuse_rejected(finished)
    if finished and not again and not _is_left_over(work, finished):
        return _with_unlisted(finished, dataset)
    with sole_writer(out):
        # Another process may have finished it, or was killed before it cleaned up.
        finished = _finished(out, inputs, size)
        if not finished or again:
            refuse_foreign(out)
            if finished and finished.large is not None:
                size = LARGE_SIZE
            journal = Journal(work, _mark(inputs, size), tuple(sorted({BASE_SIZE, size})))
            adopt(journal, dataset, states, out)
            decoding = partial(decode_all, dataset, journal, _workers(workers), progress, executor, strict, time_limit)
            _make(dataset, out, journal, decoding, partial(write, dataset, journal, states, inputs))
        remove_tree(work)
    return _with_unlisted(Prepared.open(out), dataset)


def _refuse_rejected(prepared: Prepared) -> None:
    """Raise `InputError` for the first rejected image, because of --strict."""
    if prepared.info["rejected"]:
        table = read_table(prepared.path / "rejected.csv", written=True)
        message = f"{table.columns['message'][0]} (listed in {table.path}; --strict takes no data set with such films)"
        raise InputError(message, table.columns["reason"][0])


def opened(out: Path) -> Prepared | None:
    """Return the finished data set at a path, or None.

    None means that there is none, or that it is damaged.
    """
    try:
        return Prepared.open(out)
    except InputError:
        return None


def replaces(there: Prepared, dataset: Dataset) -> str:
    """Return a line that announces the replacement of a data set.

    Returns:
        The line, with the differences; "" if it is the same data set. Other films or tables alone make no difference.
    """
    old = there.info["provenance"] | {"findings": list(there.labels)}
    new = dataset.provenance | {"findings": list(dataset.labels)}
    keys = [key for key in dict.fromkeys((*old, *new)) if key not in ("warnings", "labels_from", "cut")]
    changed = [key for key in keys if old.get(key) != new.get(key)]
    changes = [f"{key.replace('_', ' ')}: {_shown(old.get(key))}, now {_shown(new.get(key))}" for key in changed]
    made_of = [origin.get("labels_from", {}) for origin in (old, new)]
    others = [label for label in made_of[0] if made_of[0][label] != made_of[1].get(label)]
    if others and "findings" not in changed:
        changes.append(f"what findings are made of: {', '.join(others)}")
    if len(there.boxes) and not dataset.boxes:
        advice = "; --boxes FILE keeps them" if dataset.provenance.get("kind") == "folder" else ""
        changes.append(f"boxes: {len(there.boxes)}, now none{advice}")
    if not changes:
        return ""
    return f"{there.path} is going to be replaced ({'; '.join(changes)}); --name keeps both"


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _workers(count: int | None) -> int:
    return count or cores()


def _mark(inputs: str, size: int) -> str:
    """Return the mark of a journal's work: inputs and size.

    The size is part of it because the journal has other pixels for each size.
    """
    return inputs if size == BASE_SIZE else f"{inputs} {size}"


def _is_left_over(work: Path, finished: Prepared) -> bool:
    """Return whether `work` is left over from a finished data set.

    A kill may leave it. Work on other inputs or sizes may still be needed.
    """
    sizes = (BASE_SIZE,) if finished.large is None else (BASE_SIZE, LARGE_SIZE)
    done = [_mark(finished.info["inputs"], size) for size in sizes]
    return work.is_dir() and read_mark(work) in (None, *done)


def file_states(dataset: Dataset) -> list[str]:
    """Return size, time and readability of each image's file.

    The state is "missing" if there is no file.
    """
    states = []
    for file in dataset.files:
        try:
            state = file.stat()
            # Readability counts too: an unreadable film is decoded once its permissions are fixed.
            states.append(f"{state.st_size} {state.st_mtime_ns} {os.access(file, os.R_OK)}")
        except OSError:
            states.append("missing")
    return states


def fingerprint(dataset: Dataset, states: list[str] | None = None) -> str:
    """Return a SHA-256 of a data set's inputs.

    It covers the table, the boxes, and the states of the files.

    Args:
        dataset: the data set.
        states: result of `file_states`; by default it is called.
    """
    digest = hashlib.sha256()
    # The wording of "warnings" may change; "cut" follows from the rest, and older versions lack it.
    origin = {key: value for key, value in dataset.provenance.items() if key not in ("warnings", "cut")}
    head = (FORMAT, BASE_SIZE, dataset.name, dataset.labels, origin)
    digest.update(json.dumps(head, sort_keys=True).encode())
    for names in (dataset.ids, dataset.patients, dataset.splits):
        digest.update(json.dumps(names.tolist()).encode())
    for values in (dataset.targets, dataset.abnormal):
        digest.update(json.dumps(np.round(values, 6).tolist()).encode())
    # Skip empty boxes, so that data sets prepared by versions without boxes stay valid.
    if dataset.boxes:
        digest.update(json.dumps(dataset.boxes).encode())
    for state in states or file_states(dataset):
        digest.update(f"{state}\n".encode())
    return digest.hexdigest()


def _check(dataset: Dataset) -> None:
    count, labels = len(dataset), dataset.labels
    lengths = {len(x) for x in (dataset.ids, dataset.patients, dataset.splits, dataset.abnormal, dataset.files)}
    if lengths != {count} or dataset.targets.shape != (count, len(labels)):
        raise ValueError(f"data set {dataset.name}: the attributes disagree on the number of images or labels")
    problem = ""
    if not count or not labels:
        problem = "has no images or no labels"
    elif len(np.unique(dataset.ids)) < count:
        twice = Counter(dataset.ids.tolist()).most_common(1)[0][0]
        problem = f"has two images with the same id ({brief(twice, 80)})"
    elif not np.isin(dataset.splits, SPLITS).all():
        problem = f"has other splits than {', '.join(SPLITS)}"
    elif len(set(labels)) < len(labels) or set(labels) & set(FIXED_COLUMNS):
        problem = f"has a label twice, or one called {', '.join(FIXED_COLUMNS)}"
    if problem:
        raise InputError(f"data set {dataset.name} {problem}: correct its table", "dataset")


def _make(
    dataset: Dataset,
    out: Path,
    journal: Journal,
    decoding: Callable[[], None],
    writing: Callable[[Path], None],
) -> None:
    # Inside the journal's folder: the next run removes what a kill leaves behind.
    new = journal.folder / "new"
    remove_tree(new)
    try:
        decoding()
        _refuse_empty(dataset, journal)
        new.mkdir()
        writing(new)
        replace_folder(new, out)
    except BaseException:
        remove_tree(new)  # it may have filled the disk
        raise
    finally:
        journal.close()


def _finished(out: Path, inputs: str, size: int) -> Prepared | None:
    """Return the data set at a path if it has these inputs.

    None otherwise. A data set with 448 px images also serves requests for 224 px.
    """
    prepared = opened(out)  # a damaged or newer one is made again
    if prepared is None or prepared.info.get("inputs") != inputs:
        return None
    return None if size == LARGE_SIZE and prepared.large is None else prepared


def _refuse_empty(dataset: Dataset, journal: Journal) -> None:
    rejected = [outcome for outcome in journal.outcomes.values() if outcome.reason]
    if len(rejected) < len(dataset):
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in Counter(o.reason for o in rejected).most_common())
    first = min(rejected, key=lambda outcome: outcome.index)
    raise InputError(f"no image of {dataset.name} can be used ({reasons}); the first: {first.message}", "dataset")


def _with_unlisted(finished: Prepared, dataset: Dataset) -> Prepared:
    """Update the list of unlisted files of a finished data set.

    The films need not be decoded again for it.
    """
    if has_unlisted(finished, dataset):
        return finished
    # Keep the old list if the folder cannot be written or is in use.
    with contextlib.suppress(UsageError), sole_writer(finished.path):
        current = Prepared.open(finished.path)
        if current.info.get("inputs") == finished.info["inputs"]:
            write_unlisted(finished.path, dataset)
            info = current.info | {"unlisted": len(dataset.unlisted)}
            atomic_write(finished.path / DATASET, json.dumps(info, indent=1))
    return Prepared.open(finished.path)
