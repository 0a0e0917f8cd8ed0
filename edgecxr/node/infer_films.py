"""The process that reads films, runs the model and makes results.

Films are decoded in confined workers. Whatever ends this process, a film is read again and its results are the same.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from edgecxr import resolve
from edgecxr.errors import EdgeCxrError, InputError, brief
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.dicom.objects import Origin, dicom_objects, header_kind
from edgecxr.infer.dicom.refusal import refusal_objects
from edgecxr.infer.film_readers import Read, Readers, Request, renamed
from edgecxr.infer.json_line import record_of, to_json
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import Predictor
from edgecxr.machine.cores import cores
from edgecxr.machine.system import text_of
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.film_queue import Film, FilmQueue
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.spool import Spool
from edgecxr.node.web.page_rows import add_page, model_note, without_names
from edgecxr.terminal import say
from edgecxr.workspace import Workspace

TWIN = "another film with this SOPInstanceUID and another content was received before"
"""Warning about a film whose UID is not its own."""

_TRIES = 2
"""Readers that a film may end until it is rejected."""

_LOOK = 0.2  # seconds between two looks for films
_AGAIN = 5.0  # seconds until something is written again

T = TypeVar("T")


def main() -> None:
    """Run the process."""
    run_role("infer", _infer)


def _infer(config: NodeConfig, stop: Stop) -> None:
    # The workers' template is forked before there is a thread or a database.
    with Readers(config.workers or cores(), fork=True, tries=_TRIES) as readers, Spool(config.folder) as spool:
        predictor = Predictor(
            resolve.bundle(Workspace.default(), config.model, own=True),
            config.backend,
            config.operating_point,
            config.precision,
        )
        with predictor:
            stop.follow_supervisor()
            say(f"infer: {predictor.card.name} is ready")
            FilmInference(config, spool, readers, predictor, stop).run()


class FilmInference:
    """Reading, prediction and results of the films of a spool.

    Args:
        config: the node's.
        spool: the spool.
        readers: workers that nobody else uses.
        predictor: the model.
        stop: ends `run`.
    """

    def __init__(self, config: NodeConfig, spool: Spool, readers: Readers, predictor: Predictor, stop: Stop) -> None:
        self._config, self._readers, self._predictor, self._stop = config, readers, predictor, stop
        self._spool, self._queue, self._deliveries = spool, FilmQueue(spool), Deliveries(spool)
        self._audit = Audit(config, "infer")
        origin = Origin.of(predictor)
        self._origin = replace(origin, doubts=(*origin.doubts, TWIN))
        self._model = predictor.identity
        self._destinations = [destination.name for destination in config.destination]
        self._boot = _boot_id()
        self._lease = f"{self._boot}:{uuid.uuid4()}"
        self._films: dict[Request, Film] = {}

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            EdgeCxrError: the model cannot be run, or no worker can be started.
        """
        try:
            for film in self._written(lambda: self._queue.void_leases(self._boot)):
                self._audit.without_result(film, "rejected", "crash")
            self._written(lambda: self._spool.note("model", model_note(self._predictor, self._model.sha256)))
            while not self._stop.requested:
                self._claim()
                if self._films:
                    self._finish(self._readers.poll(_LOOK))
                else:
                    self._stop.wait(_LOOK)
        except _Stopped:
            pass
        except EdgeCxrError as error:
            # The model or the machine is at fault, so that the films are not counted as having ended a process.
            if not isinstance(error, InputError):
                self._release()
            raise
        self._release()

    def _release(self) -> None:
        with suppress(sqlite3.Error):  # on a full disk the next process voids the lease
            self._queue.release(self._lease)

    def _claim(self) -> None:
        while len(self._films) < self._readers.window and not any(film.suspect for film in self._films.values()):
            alone = not self._films
            film = self._written(lambda alone=alone: self._queue.claim(self._lease, alone))  # type: ignore[misc]
            if film is None:
                return
            request = Request(film.path, self._predictor.image_size, True, header_kind(self._config.phi))
            self._films[request] = film
            self._readers.submit(request)

    def _finish(self, read: list[tuple[Request, Read]]) -> None:
        """Predict from films as one batch, and store what comes of them."""
        films = [self._films.pop(request) for request, _ in read]
        outcomes = [
            renamed(outcome, str(film.path), f"film {film.number}")
            for film, (_, outcome) in zip(films, read, strict=True)
        ]
        results = iter(self._predictor.look([outcome for outcome in outcomes if isinstance(outcome, FilmRead)]))
        for film, outcome in zip(films, outcomes, strict=True):
            result = next(results) if isinstance(outcome, FilmRead) else outcome
            if isinstance(result, Rejection):
                self._refused(film, outcome if isinstance(outcome, FilmRead) else None, result)
            elif isinstance(outcome, FilmRead):
                self._with_result(film, outcome, result)

    def _refused(self, film: Film, read: FilmRead | None, result: Rejection) -> None:
        shown = result if self._config.phi else without_names(result)
        record = to_json(record_of(shown, self._model))
        self._written(lambda: add_page(self._spool, film.number, read, result, self._config.phi))
        state = "rejected" if result.gate is None else "refused"
        if self._config.not_analysed and self._destinations:
            header = read.header if read else result.header
            model, received = self._predictor.card.name, _second(film)
            results = refusal_objects(header, result, model, self._origin, received, self._config.phi)
            if results.objects:
                names, reason = self._destinations, result.reason
                self._written(lambda: self._deliveries.add(film.number, results.objects, names, reason, state, record))
                self._audit.without_result(film.subject, state, reason)
                say(f"infer: film {film.number} is {state}: {reason}; a report says so")
                return
        self._without_result(film, state, result.reason, record)

    def _with_result(self, film: Film, read: FilmRead, prediction: Prediction) -> None:
        number = film.number
        if film.twin is not None:
            prediction = replace(prediction, warnings=(*prediction.warnings, TWIN))
        # The reader's warnings may quote the film.
        shown = prediction if self._config.phi else replace(prediction, warnings=self._origin.of_model)
        record = to_json(record_of(shown, self._model, attention=True))
        self._written(lambda: add_page(self._spool, number, read, prediction, self._config.phi))
        self._written(lambda: self._queue.set_predicted(number, record))
        results = dicom_objects(read, prediction, self._origin, _second(film), self._config.phi)
        if not results.objects:
            self._without_result(film, "rejected", results.reason or "not-made")
            return
        self._written(lambda: self._deliveries.add(number, results.objects, self._destinations, results.reason))
        self._audit.read(film.subject, results.reason or "")
        say(f"infer: film {number} has results{f' ({results.reason})' if results.reason else ''}")

    def _without_result(self, film: Film, state: str, reason: str, record: str | None = None) -> None:
        self._written(lambda: self._queue.set_without_result(film.number, state, reason, record))
        self._audit.without_result(film.subject, state, reason)
        say(f"infer: film {film.number} is {state}: {reason}")

    def _written(self, write: Callable[[], T]) -> T:
        """Write, again and again while the disk cannot be written.

        Returns:
            What `write` returns.

        Raises:
            _Stopped: this process is to stop, and nothing was written.
        """
        complained = False
        while True:
            try:
                return write()
            except (OSError, sqlite3.OperationalError) as error:
                if not complained:
                    say(f"infer: waits, since the spool cannot be written: {brief(error)}")
                complained = True
                if self._stop.wait(_AGAIN):
                    raise _Stopped from error


class _Stopped(Exception):
    """A request to stop while the disk cannot be written."""


def _second(film: Film) -> datetime:
    """Return when a film was received, to a second."""
    return datetime.fromtimestamp(film.received, timezone.utc).replace(microsecond=0)


def _boot_id() -> str:
    """Return what names this start of the machine."""
    return text_of(Path("/proc/sys/kernel/random/boot_id")).strip() or "unknown"
