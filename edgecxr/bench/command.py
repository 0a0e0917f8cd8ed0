"""What `edgecxr benchmark` takes where nothing is named: models, data, film, threads, and the place of the record."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgecxr import select
from edgecxr.bench import candidates
from edgecxr.bench.benchmark import Film, Settings, Update, benchmark
from edgecxr.bench.candidates import Candidate
from edgecxr.bench.films import BITS, SIZE, write_films
from edgecxr.bench.record import Record, read
from edgecxr.console import say
from edgecxr.data.dataset import SPLITS
from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.runtime.read import read_radiograph
from edgecxr.workspace import Workspace


def run(
    workspace: Workspace,
    models: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    data: str | None,
    film: Path | None,
    settings: Settings,
    command: str,
    out: Path | None,
    update: Update,
    peers: Sequence[Candidate] = (),
) -> Record:
    """Measure models on this machine; see `edgecxr.bench.benchmark.benchmark`.

    Args:
        workspace: where models and data lie.
        models: as `candidates.find` takes them, like `backends` and `precisions`.
        backends: see there.
        precisions: see there.
        data: name of a data set or path of a pack; None takes what the models were trained on, if it is here.
        film: for the way from a file to an answer; None makes one.
        settings: how to measure; the split of a pack is its own.
        command: what was typed.
        out: file of the record; None takes one in the workspace that is not there yet.
        update: see there.
        peers: models of others to measure in the same run.

    Returns:
        The record.

    Raises:
        EdgeCxrError: those of `benchmark` and `candidates.find`, and of a data set or film that was named.
    """
    if settings.split not in SPLITS:
        raise UsageError(f"--split {settings.split}: there are {', '.join(SPLITS)}")
    found, unusable = candidates.find(workspace, models, backends, precisions, settings.threads)
    for name, why in unusable.items():
        say(f"left out: {name}: {why}")
    prepared = _data(workspace, found, data)
    if prepared is not None and not len(prepared.rows(settings.split)):
        raise InputError(f"{prepared.name} has no images in its {settings.split} split", "dataset")
    path = out or _place(workspace)
    _check_place(path)
    say(f"record: {path}, written after each step")
    with tempfile.TemporaryDirectory(prefix="edgecxr-benchmark-") as scratch:
        shown = _film(film, Path(scratch))
        # What runs on one engine at one precision is measured in turns, whoever made it.
        chosen = candidates.in_order([*found, *peers])
        return benchmark(chosen, settings, prepared, shown, command, path, update, bool(backends))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _data(workspace: Workspace, found: list[Candidate], name: str | None) -> Prepared | None:
    """Return the data set that was named, or else the one that most models were trained on, if it is here."""
    if name is not None:
        return select.dataset(workspace, name)
    names = [str(one.model.facts["data"]) for one in found if one.model.facts.get("data")]
    for own in sorted(set(names), key=names.count, reverse=True):
        try:
            return select.dataset(workspace, own)
        except EdgeCxrError:
            continue
    say("no data here to measure AUROC on: latency alone (name some with --data)")
    return None


def _film(path: Path | None, scratch: Path) -> Film | None:
    if path is None:
        try:
            (made,) = write_films(scratch, kinds=("uncompressed",))
        except ImportError as error:  # a training machine may do without pydicom
            say(f"the way from a file to an answer is left out: {error}")
            return None
        return Film(made, f"synthetic, {SIZE[0]} x {SIZE[1]} pixels of {BITS} bits, uncompressed DICOM")
    rows, columns = read_radiograph(path).pixels.shape  # a bad one is refused before anything is measured
    return Film(
        path.resolve(), f"{rows} x {columns} pixels, {path.stat().st_size / 1e6:.1f} MB, {path.suffix or 'no ending'}"
    )


def _check_place(path: Path) -> None:
    """Refuse to write over anything but a record that an interruption left."""
    if path.suffix != ".json":
        raise UsageError(f"--out {path}: give a name that ends in .json")
    if os.path.lexists(path):
        try:
            whole = read(path)["complete"]
        except InputError:
            whole = True
        if whole:
            raise UsageError(f"--out {path} is there already: give another name, or remove it")


def _place(workspace: Workspace) -> Path:
    day = datetime.date.today().isoformat()
    number = 1
    while True:
        path = workspace.root / f"benchmark-{day}{f'-{number}' if number > 1 else ''}.json"
        if not path.exists():
            return path
        number += 1
