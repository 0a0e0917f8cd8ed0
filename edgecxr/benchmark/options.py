"""What `edgecxr benchmark` takes where nothing is named: models, data, film, threads, and the place of the record."""

from __future__ import annotations

import datetime
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecxr import resolve
from edgecxr.benchmark import candidates, energy
from edgecxr.benchmark.candidates import Candidate
from edgecxr.benchmark.measure import Film, Settings, Update, benchmark
from edgecxr.benchmark.record import Record, read
from edgecxr.benchmark.synthetic_film import BITS, SIZE, write_films
from edgecxr.data.dataset import SPLITS
from edgecxr.data.overlap import seen_films
from edgecxr.data.pack import SUFFIX
from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError, InputError, ModelError, UsageError
from edgecxr.films.read import read_radiograph
from edgecxr.storage.atomic import writing
from edgecxr.storage.folders import sole_writer
from edgecxr.terminal import say
from edgecxr.workspace import Workspace


@dataclass(frozen=True)
class Asked:
    """What a user asked for.

    Attributes:
        models: runs and bundles, by name or path; none of them: all of the workspace.
        backends: engines; none of them: all that are there.
        precisions: of bundles' files; none of them: all that there are.
        data: name of a data set or path of a pack; None: what the models were trained on, if it is here.
        film: for the way from a file to an answer; None makes one.
        against: model that the times are held against; None: each model's teacher.
    """

    models: Sequence[str] = ()
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    data: str | None = None
    film: Path | None = None
    against: str | None = None

    def typed(self, settings: Settings) -> str:
        """Return the command without what names persons: no folders, nor the names of films and data files."""
        words = ["edgecxr", "benchmark", *(Path(model).name for model in self.models)]
        for name, values in (("backend", self.backends), ("precision", self.precisions)):
            words += [word for value in values for word in (f"--{name}", value)]
        if self.data:
            words += ["--data", "FILE.npz" if self.data.endswith(SUFFIX) else self.data]
        if self.film:
            words += ["--film", "FILE"]
        for name in ("threads", "max_batch", "passes", "replicates", "split"):
            words += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
        return shlex.join(words)


def run(
    workspace: Workspace,
    asked: Asked,
    settings: Settings,
    out: Path | None,
    update: Update,
    peers: Sequence[Candidate] = (),
    command: str | None = None,
) -> Record:
    """Measure models on this machine; see `edgecxr.benchmark.measure.benchmark`.

    Args:
        workspace: where models and data lie.
        asked: what to measure.
        settings: how to measure; the split of a pack is its own.
        out: file of the record; None takes one in the workspace that is not there yet.
        update: see there.
        peers: models of others to measure in the same run.
        command: for the record; None takes what `asked` and `settings` say.

    Returns:
        The record.

    Raises:
        EdgeCxrError: those of `benchmark` and `candidates.find`, and of a data set or film that was named.
    """
    if settings.split not in SPLITS:
        raise UsageError(f"--split {settings.split}: there are {', '.join(SPLITS)}")
    energy.agree_on_gpus()
    try:
        found, unusable = candidates.find(workspace, asked.models, asked.backends, asked.precisions, settings.threads)
    except ModelError:
        if asked.models or not peers:
            raise
        found, unusable = [], {}  # others' models alone
    for name, why in unusable.items():
        say(f"left out: {name}: {why}")
    everything = candidates.in_order([*found, *peers])
    names = list(dict.fromkeys(one.model.name for one in everything))
    if asked.against and asked.against not in names:
        raise UsageError(f"--against {asked.against} is not among the models to measure: {', '.join(names)}")
    if len({one.id for one in everything}) < len(everything):
        raise UsageError("a model is there twice: name each once")
    prepared = _data(workspace, found, asked.data)
    if prepared is not None and prepared.path.suffix == SUFFIX:
        settings = replace(settings, split=str(prepared.splits[0]))
    if prepared is not None and not len(prepared.rows(settings.split)):
        raise InputError(
            f"{prepared.name} has no images in its {settings.split} split: name another --split", "dataset"
        )
    for model in {one.model.name: one.model for one in everything}.values():
        warning = prepared and seen_films(model.name, model.data, prepared, settings.split)
        if warning:
            say(f"warning: {warning}")
    typed = command or asked.typed(settings)
    path = out or _place(workspace)
    _check_ending(path)
    with writing(path.parent, "give another file with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(path), tempfile.TemporaryDirectory(prefix="edgecxr-benchmark-") as scratch:
        _check_place(path, typed)
        film = _film(asked.film, Path(scratch))
        say(f"record: {path}, written after each step")
        return benchmark(everything, settings, prepared, film, typed, path, update, bool(asked.backends))


def _data(workspace: Workspace, found: list[Candidate], name: str | None) -> Prepared | None:
    """Return the data set that was named, or else the one that most models were trained on, if it is here."""
    if name is not None:
        return resolve.dataset(workspace, name)
    models = {one.model.name: one.model.facts for one in found}
    wanted = Counter((str(facts["data"]), str(facts["data_hash"])) for facts in models.values() if facts.get("data"))
    for (own, digest), _ in sorted(wanted.items(), key=lambda item: (-item[1], item[0])):
        try:
            prepared = resolve.dataset(workspace, own)
        except EdgeCxrError as error:
            say(f"no AUROC on {own}: {error}")
            continue
        if prepared.hash == digest:
            say(f"AUROC on {own}, whose training films {wanted[own, digest]} of the models learnt from")
            return prepared
        say(f"no AUROC on {own}: {prepared.path} is not what the models learnt from; name data with --data")
    say(
        "latency alone: there are no films here to measure AUROC on; `edgecxr data pack`, where the data are, makes a "
        "file for --data"
    )
    return None


def _film(path: Path | None, scratch: Path) -> Film | None:
    if path is None:
        try:
            (made,) = write_films(scratch, kinds=("uncompressed",))
        except ImportError as error:  # a training machine may do without pydicom
            say(f"the way from a file to an answer is left out: {error}")
            return None
        return Film(made, f"synthetic, {SIZE[0]} x {SIZE[1]} pixels of {BITS} bits, uncompressed DICOM")
    rows, columns = read_radiograph(path).shape  # a bad one is refused before anything is measured
    return Film(
        path.resolve(), f"{rows} x {columns} pixels, {path.stat().st_size / 1e6:.1f} MB, {path.suffix or 'no ending'}"
    )


def _check_ending(path: Path) -> None:
    if path.suffix != ".json":
        raise UsageError(f"--out {path}: give a name that ends in .json")


def _check_place(path: Path, command: str) -> None:
    """Refuse to write over anything but a record that an interruption of this very command left."""
    if os.path.lexists(path):
        try:
            there = read(path)
        except InputError:
            there = {}
        if there.get("complete", True) or there.get("command") != command:
            raise UsageError(f"--out {path} is there already: give another name, or remove it")


def _place(workspace: Workspace) -> Path:
    day = datetime.date.today().isoformat()
    number = 1
    while True:
        path = workspace.root / f"benchmark-{day}{f'-{number}' if number > 1 else ''}.json"
        if not path.exists():
            return path
        number += 1
