"""Run `edgecxr infer`.

Results go to standard output or are appended to files; pictures and DICOM files go to folders.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecxr.errors import UsageError
from edgecxr.films.find import WITHOUT_IMAGE, Search
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.csv_rows import CsvFile, csv_file
from edgecxr.infer.film_files import DICOM_RESULTS, FilmFiles, lacks
from edgecxr.infer.film_readers import TIME_LIMIT, Readers
from edgecxr.infer.json_line import Result, record_of, stamp_of, to_json, uids_of
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.results import new_warnings, printed
from edgecxr.infer.resume import ExpectedOutputs, ResultsFile, resumed
from edgecxr.machine.cores import cores
from edgecxr.registry import EXECUTORS, load
from edgecxr.terminal import Progress, progress, say, show_json

_PREDICTED, _REFUSED, _NOT_READ = _KINDS = ("predicted", "refused by the quality gate", "not readable")
_MANY = 10
_BATCH = 16


@dataclass(frozen=True)
class InferOptions:
    """Options for reading films and writing their results.

    Attributes:
        as_json: one JSON object per file instead of a table.
        attention: put the attention map into the JSON.
        overlays: a folder for one PNG per film, or None.
        dicom: a folder for two DICOM files per film, or None.
        patient: whether the DICOM files say who the patient is.
        resume: a file of JSON lines to append missing results to, instead of standard output; or None.
        workers: number of processes that read films; None means one for each core.
        time_limit: seconds for one file.
        executor: what reads films: "processes" of this machine, or "ray", a cluster that sees the same files.
        csv: a table with one row per film, or None.
    """

    as_json: bool = False
    attention: bool = False
    overlays: Path | None = None
    dicom: Path | None = None
    patient: bool = True
    resume: Path | None = None
    workers: int | None = None
    time_limit: float = TIME_LIMIT
    executor: str = "processes"
    csv: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Folders that are written to, in which no films are looked for."""
        return tuple(folder for folder in (self.overlays, self.dicom) if folder is not None)

    @property
    def expected_outputs(self) -> ExpectedOutputs:
        """What is written of each film beside its line."""
        return ExpectedOutputs(self.overlays, self.dicom, self.attention, self.patient)

    def check(self) -> None:
        """Check that the options can be used together.

        Raises:
            UsageError: options do not go together.
            MissingPackage: an option needs a package that is not installed.
        """
        if self.executor not in EXECUTORS:
            raise UsageError(f"--executor {self.executor}: there are {', '.join(EXECUTORS)}")
        if self.attention and not self.as_json:
            raise UsageError("--attention puts the map into the JSON: add --json, or --overlay DIR to see it")
        if self.resume is not None and not self.as_json:
            raise UsageError(f"--resume {self.resume} is a file of JSON lines: add --json")
        if self.resume is not None and self.resume == self.csv:
            raise UsageError(f"--resume and --csv are both {self.csv}: give two files")
        if self.dicom is None and not self.patient:
            raise UsageError("--no-phi is about the files of --dicom: add --dicom DIR")
        for option, place, content in (("overlay", self.overlays, "pictures"), ("dicom", self.dicom, "results")):
            if place is not None and os.path.exists(place) and not os.path.isdir(place):
                raise UsageError(f"--{option} {place} is a file, where {content} are to be written: give a folder")
        if self.dicom is not None:
            load(DICOM_RESULTS, "--dicom")


def readers_for(options: InferOptions, films: int | None) -> Readers:
    """Return the processes that will read the films.

    Call this before a model is loaded, which starts threads.

    Args:
        options: the options.
        films: number of films; None if they are still to come.
    """
    count = options.workers or cores()
    count = count if films is None else max(1, min(count, films))
    return Readers(count, options.time_limit, executor=options.executor, fork=True)


def infer_paths(
    predictor: Predictor, readers: Readers, films: list[Path], options: InferOptions, search: Search | None = None
) -> int:
    """Predict from files and print the results as they come.

    What the search of a folder has found and what turns out to be of a kind that has no image, such as a report beside
    the films of a study, is only counted, in a last line together with what the search passed over.

    Args:
        predictor: the model.
        readers: the workers that read the files.
        films: what `find_inputs` returned.
        options: the options.
        search: what `find_inputs` was given.

    Returns:
        The number of files that were rejected, or lack a picture or a DICOM result that was wanted.

    Raises:
        UsageError: a picture or a file of results cannot be written, or options do not go together.
        MissingPackage: DICOM results are requested, and highdicom is not installed.
        ModelError: the model failed.
    """
    search = Search() if search is None else search
    rejected = 0
    with new_run(predictor, readers, options, len(films) == 1) as run:
        todo = films
        if run.earlier is not None:
            statuses = [run.earlier.status(film) for film in films]
            todo = [film for film, status in zip(films, statuses, strict=True) if status is None]
            rejected = statuses.count("rejected") + statuses.count("lacking")
            if len(todo) < len(films):
                say(f"{len(films) - len(todo)} of {len(films)} files are in {options.resume} already")
        # On a terminal the results themselves show the progress.
        hidden = len(todo) < _MANY or (run.earlier is None and sys.stdout.isatty())
        with nullcontext() if hidden else progress("infer") as update:
            without = run.look(todo, search, update)
        # A folder in which nothing else was found is one without films.
        with_films = {folder for film, folder in search.folder_of.items() if film not in without}
        empty = dict.fromkeys(folder for film, folder in search.folder_of.items() if folder not in with_films)
        run.look(list(empty), Search())
    if passed_over := search.summary():
        say(passed_over)
    return rejected + run.lacking


@contextmanager
def new_run(predictor: Predictor, readers: Readers, options: InferOptions, alone: bool = False) -> Iterator[Run]:
    """Open the files that a run writes to.

    When it ends, also by Ctrl-C, a line says what it has done, unless nobody reads its results to the end.

    Arguments and errors are those of `infer_paths`; `alone`: there is one film only.
    """
    options.check()
    run = None
    try:
        with ExitStack() as stack:
            earlier = table = None
            if options.resume is not None:
                earlier = stack.enter_context(resumed(options.resume, predictor, options.expected_outputs))
            if options.csv is not None:
                table = stack.enter_context(csv_file(options.csv, predictor.card.labels, earlier))
            show = None if options.as_json else stack.enter_context(printed(alone=alone))
            run = Run(predictor, readers, options, earlier, table, show)
            yield run
    except BrokenPipeError:  # nobody reads on, such as `head`
        run = None
        raise
    finally:
        if run is not None and (summary := run.summary()):
            say(summary)


class Run:
    """Run of `infer`: looks at films, writes results, counts them.

    Args:
        predictor: the model.
        readers: the workers that read the files.
        options: the options.
        earlier: the file of results, if any.
        table: the CSV file, if any.
        show: prints a result for people; None if JSON is wanted.

    Attributes:
        earlier: the file of results, if any.
        lacking: number of films that were rejected, or lack a picture or a DICOM result that was wanted.
    """

    def __init__(
        self,
        predictor: Predictor,
        readers: Readers,
        options: InferOptions,
        earlier: ResultsFile | None,
        table: CsvFile | None,
        show: Callable[[Result], None] | None,
    ) -> None:
        self._predictor, self._readers, self._options = predictor, readers, options
        self.earlier, self._table, self._show = earlier, table, show
        self._files = FilmFiles(predictor, options.overlays, options.dicom, options.patient)
        self._header = self._files.header or ("uids" if options.as_json or options.csv is not None else None)
        self._stamps: dict[str, dict[str, Any] | None] = {}
        self._doubts = {message for _, message in predictor.doubts.values()}
        self._shown: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self.lacking = 0

    def look(self, films: Sequence[Path], search: Search, update: Progress | None = None) -> set[Path]:
        """Look at films, and write their results.

        Args:
            films: the files.
            search: what has found them, which is told what has no image.
            update: is told the progress.

        Returns:
            What `search` has found and has no image, and therefore no result.
        """
        without: set[Path] = set()
        start = time.monotonic()
        try:
            for count, (result, film) in enumerate(self._answers(films), start=1):
                if isinstance(result, Rejection) and result.no_image and Path(result.source) in search.folder_of:
                    without.add(Path(result.source))
                else:
                    self._take(result, film, search)
                if update:
                    update(count, len(films))
        finally:
            self._seconds += time.monotonic() - start
        search.passed_over.update({WITHOUT_IMAGE: len(without)} if without else {})
        return without

    def summary(self) -> str:
        """Return a line about the films that were looked at.

        It is "" if there was one at most and no file of results.
        """
        total = sum(self._counts.values())
        if total < 2 and not (total and self.earlier):
            return ""
        listed = ", ".join(f"{self._counts[kind]} {kind}" for kind in _KINDS if self._counts[kind])
        where = f"; results in {self._options.resume}" if self.earlier else ""
        rate = f", {total / self._seconds:.1f} films/s" if self._seconds else ""
        return f"{total} film{'s' if total > 1 else ''}: {listed}; {self._seconds:.1f} s{rate}{where}"

    def _answers(self, films: Sequence[Path]) -> Iterator[tuple[Result, FilmRead | None]]:
        """Yield the result of each file in order, and its film.

        The model sees all films that are ready as one batch.
        """
        readers, size = self._readers, self._predictor.image_size
        for part in readers.read(self._stamped(films), size, self._files.display, _BATCH, self._header):
            results = iter(self._predictor.look([outcome for outcome in part if isinstance(outcome, FilmRead)]))
            for outcome in part:
                yield (next(results), outcome) if isinstance(outcome, FilmRead) else (outcome, None)

    def _stamped(self, films: Sequence[Path]) -> Iterator[Path]:
        """Yield films, keeping each one's size and time before it is read."""
        for film in films:
            self._stamps[str(film)] = stamp_of(film)
            yield film

    def _take(self, result: Result, film: FilmRead | None, search: Search) -> None:
        header = film.header if film is not None else result.header if isinstance(result, Rejection) else None
        outcome = {"film": uids_of(header), "file": self._stamps.pop(result.source, None)}
        if film is not None and isinstance(result, Prediction):
            outcome |= self._files.write(film, result, search.folder_of)
        record = record_of(result, self._predictor.identity, self._options.attention, outcome)
        if self._show is not None:
            self._show(result)
        else:
            for warning in new_warnings(result, self._doubts, self._shown):
                say(f"warning: {warning}")
            if self.earlier is None:
                show_json(to_json(record))
            else:
                self.earlier.add(to_json(record))
                if isinstance(result, Rejection):
                    say(f"rejected ({result.reason}): {result.message}")
        if self._table is not None:
            self._table.add(record)
        rejected = isinstance(result, Rejection)
        self.lacking += rejected or lacks(outcome)
        self._counts[_PREDICTED if not rejected else _REFUSED if result.gate is not None else _NOT_READ] += 1
