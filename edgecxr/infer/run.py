"""`edgecxr infer`: films in; results on standard output or appended to a file, pictures and DICOM files in folders."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.errors import UsageError
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.film_readers import TIME_LIMIT, Read, Readers
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.results import Result, print_results, to_json
from edgecxr.infer.results_file import resumed
from edgecxr.machine.cores import cores
from edgecxr.registry import EXECUTORS, load
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable, progress, say

if TYPE_CHECKING:
    from edgecxr.infer.dicom.dicom_results import DicomResults
    from edgecxr.infer.ray_readers import RayReaders

_LONGEST = 200
_MANY = 10
_BATCH = 16

_DICOM_RESULTS = "edgecxr.infer.dicom.dicom_results:DicomResults"


@dataclass(frozen=True)
class Asked:
    """How a user wants films to be read and answered.

    Attributes:
        as_json: one JSON object per file instead of a table.
        attention: put the attention map into the JSON.
        overlays: a folder for one PNG per film, or None.
        dicom: a folder for two DICOM files per film, or None.
        patient: whether those say who the patient is.
        resume: a file of JSON lines to append to what it lacks, instead of standard output; or None.
        workers: processes that read films; None takes one for each core.
        time_limit: seconds for one file.
        executor: what reads films: "processes" of this machine, or "ray", a cluster that sees the same files.
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

    def check(self) -> None:
        """Raise UsageError where options do not go together, MissingPackage where one needs what is not installed."""
        if self.executor not in EXECUTORS:
            raise UsageError(f"--executor {self.executor}: there are {', '.join(EXECUTORS)}")
        if self.attention and not self.as_json:
            raise UsageError("--attention puts the map into the JSON: add --json, or --overlay DIR to see it")
        if self.resume is not None and not self.as_json:
            raise UsageError(f"--resume {self.resume} is a file of JSON lines: add --json")
        if self.dicom is None and not self.patient:
            raise UsageError("--no-phi is about the files of --dicom: add --dicom DIR")
        for option, place, what in (("overlay", self.overlays, "pictures"), ("dicom", self.dicom, "results")):
            if place is not None and os.path.exists(place) and not os.path.isdir(place):
                raise UsageError(f"--{option} {place} is a file, where {what} are to be written: give a folder")
        if self.dicom is not None:
            load(_DICOM_RESULTS, "--dicom")


def readers_for(asked: Asked, films: int) -> Readers | RayReaders:
    """Return the processes that will read so many films; made before a model is loaded, which starts threads."""
    if asked.executor == "ray":
        from edgecxr.infer.ray_readers import RayReaders

        return RayReaders(asked.time_limit)
    return Readers(max(1, min(asked.workers or cores(), films)), asked.time_limit)


def infer_paths(predictor: Predictor, readers: Readers | RayReaders, films: list[Path], asked: Asked) -> int:
    """Predict from files and print the results as they come.

    Args:
        predictor: the model.
        readers: that read the files.
        films: what `find_inputs` returned.
        asked: how.

    Returns:
        The number of files that were rejected.

    Raises:
        UsageError: a picture or a file of results cannot be written, or options do not go together.
        MissingPackage: DICOM results are wanted, and highdicom is not installed.
        ModelError: the model failed.
    """
    asked.check()
    rejected = 0
    extras = _Extras(predictor, asked, films)
    with nullcontext() if asked.resume is None else resumed(asked.resume, predictor) as earlier:
        done = {} if earlier is None else earlier.done
        todo = [film for film in films if str(film) not in done]
        if earlier is not None and len(todo) < len(films):
            rejected = sum(done.get(str(film)) == "rejected" for film in films)
            say(f"{len(films) - len(todo)} of {len(films)} files are in {printable(str(asked.resume))} already")

        def results() -> Iterator[Result]:
            nonlocal rejected
            # On a terminal the results themselves show how far it is.
            hidden = len(todo) < _MANY or (earlier is None and sys.stdout.isatty())
            with nullcontext() if hidden else progress("infer") as update:
                read = readers.read(todo, predictor.image_size, extras.display, _BATCH, extras.header)
                pairs = (pair for part in read for pair in _answered(predictor, part))
                for count, (result, film) in enumerate(pairs, start=1):
                    if film is not None and isinstance(result, Prediction):
                        extras.write(film, result)
                    rejected += isinstance(result, Rejection)
                    yield result
                    if update:
                        update(count, len(todo))

        if not asked.as_json:
            print_results(results(), common=predictor.warnings)
            return rejected
        for result in results():
            line = to_json(result, asked.attention)
            if earlier is None:
                print(line, flush=True)
            else:
                earlier.add(line)
        if earlier is not None and todo:
            say(f"{len(films) - rejected} predicted, {rejected} rejected, in {printable(str(asked.resume))}")
    return rejected


def _answered(predictor: Predictor, read: list[Read]) -> Iterator[tuple[Result, FilmRead | None]]:
    """Yield what became of each file, in order; the model sees all films of the list at once."""
    results = iter(predictor.look([one for one in read if isinstance(one, FilmRead)]))
    for one in read:
        yield (next(results), one) if isinstance(one, FilmRead) else (one, None)


class _Extras:
    """What is written of each film beside the results.

    Attributes:
        display: whether it needs a picture of the film.
        header: which attributes of a DICOM file it needs: what `Readers.read` takes.
    """

    def __init__(self, predictor: Predictor, asked: Asked, films: list[Path]) -> None:
        self._overlays = asked.overlays
        names = _Names()
        # Of all films, those that are done already too: a resumed run must not take their pictures' names.
        self._names = {str(film): names.new(film.name) for film in films} if asked.overlays is not None else {}
        self._dicom: DicomResults | None = None
        if asked.dicom is not None:
            self._dicom = load(_DICOM_RESULTS, "--dicom")(asked.dicom, predictor, asked.patient)
        self.display = asked.overlays is not None or asked.dicom is not None
        self.header = None if self._dicom is None else self._dicom.header

    def write(self, film: FilmRead, prediction: Prediction) -> None:
        """Write a film's picture and DICOM files, as far as they were asked for, and say where."""
        if self._overlays is not None:
            target = self._overlays / self._names[prediction.source]
            _draw(film, prediction, target)
            say(f"overlay: {printable(str(target))}")
        if self._dicom is not None:
            say(self._dicom.write(film, prediction))


def _draw(film: FilmRead, prediction: Prediction, target: Path) -> None:
    from PIL import Image

    from edgecxr.infer.overlay import overlay

    assert film.display is not None
    picture = io.BytesIO()
    overlay(Image.fromarray(film.display), prediction).save(picture, format="PNG")
    atomic_write(target, picture.getbuffer(), "give another folder with --overlay")


class _Names:
    """File names of pictures, each given once: two folders may hold films of one name."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._count: Counter[str] = Counter()

    def new(self, film: str) -> str:
        """Return the name of the picture of a film with this file name."""
        # File systems take 255 bytes, and the ending and that of the unfinished file are still to come.
        stem = film
        while len(os.fsencode(stem)) > _LONGEST:
            stem = stem[:-1]
        while True:
            self._count[stem] += 1
            number = self._count[stem]
            name = f"{stem}.png" if number == 1 else f"{stem}.{number}.png"
            if name not in self._given:
                self._given.add(name)
                return name
