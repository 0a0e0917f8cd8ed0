"""Defaults of `edgecxr benchmark`: models, data, film, and the record's file."""

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
class BenchmarkOptions:
    """The options that a user gave.

    Attributes:
        models: runs and bundles, by name or path; empty means all of the workspace.
        backends: engines; empty means all that are installed.
        precisions: of bundles' files; empty means all.
        data: name of a data set or path of a pack; None means the training data of the models, if it is available.
        film: to time the way from a file to an answer; None means a synthetic film.
        against: model to compare the times with; None means each model's teacher.
    """

    models: Sequence[str] = ()
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    data: str | None = None
    film: Path | None = None
    against: str | None = None

    def typed(self, settings: Settings) -> str:
        """Return the command without parts that may identify persons.

        Folders and the names of films and data files are left out.
        """
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
    options: BenchmarkOptions,
    settings: Settings,
    out: Path | None,
    update: Update,
    peers: Sequence[Candidate] = (),
    command: str | None = None,
) -> Record:
    """Measure models on this machine; see `edgecxr.benchmark.measure.benchmark`.

    Args:
        workspace: with models and data.
        options: what to measure.
        settings: how to measure; the split is ignored for a pack, which has only one.
        out: file of the record; None means a new file in the workspace.
        update: see `benchmark`.
        peers: third-party models to measure in the same run.
        command: for the record; None means the one made from `options` and `settings`.

    Returns:
        The record.

    Raises:
        EdgeCxrError: errors of `benchmark`, `candidates.find`, and of opening a data set or film of `options`.
    """
    if settings.split not in SPLITS:
        raise UsageError(f"--split {settings.split}: there are {', '.join(SPLITS)}")
    energy.agree_on_gpus()
    try:
        chosen, unusable = candidates.find(
            workspace, options.models, options.backends, options.precisions, settings.threads
        )
    except ModelError:
        if options.models or not peers:
            raise
        chosen, unusable = [], {}  # measure the peers only
    for name, why in unusable.items():
        say(f"left out: {name}: {why}")
    everything = candidates.in_order([*chosen, *peers])
    names = list(dict.fromkeys(candidate.model.name for candidate in everything))
    if options.against and options.against not in names:
        raise UsageError(f"--against {options.against} is not among the models to measure: {', '.join(names)}")
    if len({candidate.id for candidate in everything}) < len(everything):
        raise UsageError("a model is there twice: name each once")
    prepared = _data(workspace, chosen, options.data)
    if prepared is not None and prepared.path.suffix == SUFFIX:
        settings = replace(settings, split=str(prepared.splits[0]))
    if prepared is not None and not len(prepared.rows(settings.split)):
        raise InputError(
            f"{prepared.name} has no images in its {settings.split} split: name another --split", "dataset"
        )
    for model in {candidate.model.name: candidate.model for candidate in everything}.values():
        warning = prepared and seen_films(model.name, model.data, prepared, settings.split)
        if warning:
            say(f"warning: {warning}")
    command_line = command or options.typed(settings)
    path = out or _place(workspace)
    _check_ending(path)
    with writing(path.parent, "give another file with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(path), tempfile.TemporaryDirectory(prefix="edgecxr-benchmark-") as scratch:
        _check_place(path, command_line)
        film = _film(options.film, Path(scratch))
        say(f"record: {path}, written after each step")
        return benchmark(everything, settings, prepared, film, command_line, path, update, bool(options.backends))


def _data(workspace: Workspace, chosen: list[Candidate], name: str | None) -> Prepared | None:
    """Return the data set to measure AUROC on.

    It is the one of this name or, for None, the one that most models were trained on. None if that is not available.
    """
    if name is not None:
        return resolve.dataset(workspace, name)
    models = {candidate.model.name: candidate.model.facts for candidate in chosen}
    counts = Counter((str(facts["data"]), str(facts["data_hash"])) for facts in models.values() if facts.get("data"))
    for (dataset, digest), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        try:
            prepared = resolve.dataset(workspace, dataset)
        except EdgeCxrError as error:
            say(f"no AUROC on {dataset}: {error}")
            continue
        if prepared.hash == digest:
            own = f"{counts[dataset, digest]} of {len(models)} models learnt from its training films"
            say(f"measuring AUROC on the test films of {dataset}: {own}")
            return prepared
        say(f"no AUROC on {dataset}: {prepared.path} is not the data of the models' training; name it with --data")
    say(
        "measuring latency only: there are no films here to measure AUROC on; `edgecxr data pack` makes a file for "
        "--data on the machine that has them"
    )
    return None


def _film(path: Path | None, scratch: Path) -> Film | None:
    if path is None:
        try:
            (film,) = write_films(scratch, kinds=("uncompressed",))
        except ImportError as error:  # training machines may lack pydicom
            say(f"the way from a file to an answer is left out: {error}")
            return None
        return Film(film, f"synthetic, {SIZE[0]} x {SIZE[1]} pixels of {BITS} bits, uncompressed DICOM")
    rows, columns = read_radiograph(path).shape  # raises before the long benchmark if the film is bad
    return Film(
        path.resolve(), f"{rows} x {columns} pixels, {path.stat().st_size / 1e6:.1f} MB, {path.suffix or 'no ending'}"
    )


def _check_ending(path: Path) -> None:
    if path.suffix != ".json":
        raise UsageError(f"--out {path}: give a name that ends in .json")


def _check_place(path: Path, command: str) -> None:
    """Raise UsageError if the record would overwrite a file.

    Incomplete records of the same command may be overwritten.
    """
    if os.path.lexists(path):
        try:
            existing = read(path)
        except InputError:
            existing = {}
        if existing.get("complete", True) or existing.get("command") != command:
            raise UsageError(f"--out {path} is there already: give another name, or remove it")


def _place(workspace: Workspace) -> Path:
    day = datetime.date.today().isoformat()
    number = 1
    while True:
        path = workspace.root / f"benchmark-{day}{f'-{number}' if number > 1 else ''}.json"
        if not path.exists():
            return path
        number += 1
