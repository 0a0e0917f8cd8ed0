"""Making a prepared data set: every image decoded and resized once, in parallel, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgecxr.data.dataset import SPLITS, CxrDataset
from edgecxr.data.prepare.decode import TIME_LIMIT, decode_all
from edgecxr.data.prepare.journal import MARK, Journal
from edgecxr.data.prepare.write import adopt, has_unlisted, write, write_unlisted
from edgecxr.data.prepared import FIXED_COLUMNS, FORMAT, Prepared
from edgecxr.data.tables.table import read_table
from edgecxr.errors import InputError, UsageError
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.machine.cores import cores
from edgecxr.registry import EXECUTORS
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import DATASET, refuse_foreign, replace_folder, sole_writer

__all__ = ["Prepared", "fingerprint", "prepare"]


def prepare(
    dataset: CxrDataset,
    out: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    size: int = BASE_SIZE,
    executor: str = "processes",
    strict: bool = False,
    time_limit: float = TIME_LIMIT,
    retry: bool = False,
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
        retry: read images again that were rejected when a data set was finished. Others are not read again as long as
            their files are as they were for the data set at `out`, of whatever labels and splits but of this size.

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
        # By a process that has ended just now, or was killed before it tidied up.
        finished = _finished(out, inputs, size)
        if not finished or again:
            refuse_foreign(out)
            if finished and finished.large is not None:
                size = LARGE_SIZE
            journal = Journal(work, _mark(inputs, size), tuple(sorted({BASE_SIZE, size})))
            adopt(journal, dataset, states, out)
            decoding = partial(decode_all, dataset, journal, _workers(workers), progress, executor, strict, time_limit)
            _make(dataset, out, journal, decoding, partial(write, dataset, journal, states, inputs))
        shutil.rmtree(work, ignore_errors=True)
    return _with_unlisted(Prepared.open(out), dataset)


def _refuse_rejected(prepared: Prepared) -> None:
    """Raise InputError for the first image that was rejected when a data set was prepared without --strict."""
    if prepared.info["rejected"]:
        table = read_table(prepared.path / "rejected.csv")
        message = f"{table.columns['message'][0]} (listed in {table.path}; --strict takes no data set with such films)"
        raise InputError(message, table.columns["reason"][0])


def opened(out: Path) -> Prepared | None:
    """Return the finished data set at a place; None where there is none, or it is damaged."""
    try:
        return Prepared.open(out)
    except InputError:
        return None


def replaces(there: Prepared, dataset: CxrDataset) -> str:
    """Return a line that says that a data set is going to be replaced, and what is different; "" where it is not.

    The same one with other films or tables is no other data set.
    """
    old = there.info["provenance"] | {"findings": list(there.labels)}
    new = dataset.provenance | {"findings": list(dataset.labels)}
    keys = [key for key in dict.fromkeys((*old, *new)) if key not in ("warnings", "labels_from", "cut")]
    changed = [key for key in keys if old.get(key) != new.get(key)]
    if not changed:
        return ""
    said = "; ".join(f"{key.replace('_', ' ')}: {_shown(old.get(key))}, now {_shown(new.get(key))}" for key in changed)
    return f"{there.path} is going to be replaced ({said}); --name keeps both"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _workers(asked: int | None) -> int:
    return asked or cores()


def _mark(inputs: str, size: int) -> str:
    """Return what tells a journal's work apart: it has other pixels for each size."""
    return inputs if size == BASE_SIZE else f"{inputs} {size}"


def _is_left_over(work: Path, finished: Prepared) -> bool:
    """Whether a kill left `work` of a data set that is finished; work on other inputs or sizes may still be wanted."""
    sizes = (BASE_SIZE,) if finished.large is None else (BASE_SIZE, LARGE_SIZE)
    done = [_mark(finished.info["inputs"], size) for size in sizes]
    return work.is_dir() and (not (work / MARK).exists() or (work / MARK).read_text() in done)


def file_states(dataset: CxrDataset) -> list[str]:
    """Return size and time of each image's file, and whether it can be read; "missing" where there is none."""
    states = []
    for file in dataset.files:
        try:
            state = file.stat()
            # Whether it can be read counts too: a film that could not be is decoded when its permissions are mended.
            states.append(f"{state.st_size} {state.st_mtime_ns} {os.access(file, os.R_OK)}")
        except OSError:
            states.append("missing")
    return states


def fingerprint(dataset: CxrDataset, states: list[str] | None = None) -> str:
    """Return a SHA-256 of a data set's table and boxes and of the sizes and times of its files."""
    digest = hashlib.sha256()
    # Words for people may change and mean the same; what follows from the rest was not always said.
    origin = {key: value for key, value in dataset.provenance.items() if key not in ("warnings", "cut")}
    head = (FORMAT, BASE_SIZE, dataset.name, dataset.labels, origin)
    digest.update(json.dumps(head, sort_keys=True).encode())
    for names in (dataset.ids, dataset.patients, dataset.splits):
        digest.update(json.dumps(names.tolist()).encode())
    for values in (dataset.targets, dataset.abnormal):
        digest.update(json.dumps(np.round(values, 6).tolist()).encode())
    # Without boxes it is what it was before there were any: what is prepared stays so.
    if dataset.boxes:
        digest.update(json.dumps(dataset.boxes).encode())
    for state in states or file_states(dataset):
        digest.update(f"{state}\n".encode())
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
    decoding: Callable[[], None],
    writing: Callable[[Path], None],
) -> None:
    # Not beside `out`: what a kill leaves behind is found and removed next time.
    new = journal.folder / "new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        decoding()
        _refuse_empty(dataset, journal)
        new.mkdir()
        writing(new)
        replace_folder(new, out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # it may be what has filled the disk
        raise
    finally:
        journal.close()


def _finished(out: Path, inputs: str, size: int) -> Prepared | None:
    """Return the data set at a place if it is that of the inputs; one of 448 px serves who asks for 224 px."""
    prepared = opened(out)  # one that is damaged or of a newer format is made again
    if prepared is None or prepared.info.get("inputs") != inputs:
        return None
    return None if size == LARGE_SIZE and prepared.large is None else prepared


def _refuse_empty(dataset: CxrDataset, journal: Journal) -> None:
    rejected = [outcome for outcome in journal.outcomes.values() if outcome.reason]
    if len(rejected) < len(dataset):
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in Counter(o.reason for o in rejected).most_common())
    first = min(rejected, key=lambda outcome: outcome.index)
    raise InputError(f"no image of {dataset.name} can be used ({reasons}); the first: {first.message}", "dataset")


def _with_unlisted(finished: Prepared, dataset: CxrDataset) -> Prepared:
    """Note which files no line names, where that alone has changed: the films need not be decoded for it."""
    if has_unlisted(finished, dataset):
        return finished
    # One that cannot be written, or is just being written, is as good as it was.
    with contextlib.suppress(UsageError), sole_writer(finished.path):
        current = Prepared.open(finished.path)
        if current.info.get("inputs") == finished.info["inputs"]:
            write_unlisted(finished.path, dataset)
            info = current.info | {"unlisted": len(dataset.unlisted)}
            atomic_write(finished.path / DATASET, json.dumps(info, indent=1))
    return Prepared.open(finished.path)
