"""What the web page reads from the spool."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from edgecxr.node.deliveries import Deliveries
from edgecxr.node.film_queue import OPEN, FilmQueue
from edgecxr.node.spool import Spool
from edgecxr.storage.json_values import parse_json

FILM, ATTENTION = "film", "attention"
"""Kinds of pictures: the film in grey, and the colours that lie over it."""

PAGE = 50
"""Films on one page."""

_DEAD = (
    "EXISTS (SELECT 1 FROM result JOIN delivery ON delivery.result = result.id"
    " WHERE result.film = film.id AND delivery.state = 'dead')"
)
FILTERS = {
    "all": "1",
    "waiting": f"film.state IN ({OPEN})",
    "flagged": "page.abnormal = 1",
    "not-flagged": "page.abnormal = 0",
    "not-analysed": "film.state IN ('refused', 'rejected')",
    "not-filed": f"film.state = 'made' AND {_DEAD}",
}
"""Name of a filter -> its condition."""

_COLUMNS = (
    "film.id, film.uid, film.sop_class, film.study, film.source, film.received, film.twin, film.state, film.reason,"
    f" film.changed, page.patient, page.patient_id, page.abnormal, page.findings, page.pictures, {_DEAD} AS dead"
)
_FROM = "FROM film LEFT JOIN page ON page.film = film.id"


@dataclass(frozen=True)
class FilmRow:
    """A film as the list of films shows it.

    Attributes:
        number: of the film.
        uid: its SOP instance UID.
        sop_class: its SOP class UID.
        study: its study instance UID.
        source: where it came from.
        received: seconds since the epoch.
        twin: number of an earlier film with this UID and another content, or None.
        state: of the film, see `edgecxr.node.film_queue`.
        reason: why it has no result, or lacks one; a code, or None.
        changed: when it came into its state, seconds since the epoch.
        patient: name or pseudonym; None if it is not known.
        patient_id: None if it is not known.
        abnormal: whether it is flagged as abnormal; None if it is not analysed.
        findings: those at or above their thresholds: name, and whether it is unreliable.
        pictures: number of pictures.
        dead: whether a destination did not take a result for good.
    """

    number: int
    uid: str
    sop_class: str
    study: str
    source: str
    received: float
    twin: int | None
    state: str
    reason: str | None
    changed: float
    patient: str | None
    patient_id: str | None
    abnormal: bool | None
    findings: tuple[tuple[str, bool | None], ...]
    pictures: int
    dead: bool


@dataclass(frozen=True)
class ResultDelivery:
    """A result and what a destination did with it.

    Attributes:
        film: number of the film.
        kind: of the result, "sr" or "sc".
        uid: its SOP instance UID.
        destination: name of the destination.
        state: "waiting", "sent", "committed", "dead" or "dropped".
        tries: number of attempts.
        due: when the next attempt is due, seconds since the epoch.
        error: why it was not taken, or a remark.
    """

    film: int
    kind: str
    uid: str
    destination: str
    state: str
    tries: int
    due: float
    error: str | None


def films(spool: Spool, which: str = "all", text: str = "", page: int = 1) -> tuple[list[FilmRow], int]:
    """Return the films of a page and how many there are.

    The latest come first.

    Args:
        spool: the spool.
        which: a key of `FILTERS`.
        text: part of a patient's name or ID or of a source, or the number of a film; "" is any.
        page: from 1 on.
    """
    where, values = FILTERS[which], []
    if text:
        pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        columns = ("page.patient", "page.patient_id", "film.source")
        where += f" AND (film.id = ? OR {' OR '.join(f'{column} LIKE ? ESCAPE ?' for column in columns)})"
        values = [int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1, *(pattern, "\\") * 3]
    count = spool.read(f"SELECT count(*) {_FROM} WHERE {where}", *values)[0][0]
    rows = spool.read(
        f"SELECT {_COLUMNS} {_FROM} WHERE {where} ORDER BY film.id DESC LIMIT ? OFFSET ?",
        *(*values, PAGE, PAGE * (page - 1)),
    )
    return [_film(row) for row in rows], count


def film(spool: Spool, number: int) -> tuple[FilmRow, dict[str, Any] | None] | None:
    """Return a film and its record, as of `edgecxr.infer.json_line`.

    Args:
        spool: the spool.
        number: of the film.

    Returns:
        None if there is no such film. The record is None while there is none, or once it is forgotten.
    """
    rows = spool.read(f"SELECT {_COLUMNS}, film.prediction {_FROM} WHERE film.id = ?", number)
    if not rows:
        return None
    prediction = rows[0]["prediction"]
    return _film(rows[0]), None if prediction is None else parse_json(prediction)


def events(spool: Spool, number: int) -> list[tuple[float, str, str | None]]:
    """Return what became of a film.

    Each event has its time in seconds since the epoch, the state, and the destination of a result or None.
    """
    rows = spool.read("SELECT at, what, whither FROM event WHERE film = ? ORDER BY rowid", number)
    return [(row[0], row[1], row[2]) for row in rows]


def deliveries(spool: Spool, number: int) -> list[ResultDelivery]:
    """Return the results of a film at their destinations."""
    return _sent(spool, "result.film = ?", number)


def undelivered(spool: Spool, most: int) -> list[ResultDelivery]:
    """Return results that a destination does not have, those given up first.

    Args:
        spool: the spool.
        most: greatest number of results.
    """
    return _sent(spool, "delivery.state IN ('waiting', 'dead') ORDER BY delivery.state, delivery.due LIMIT ?", most)


def queue(spool: Spool) -> tuple[int, float | None, dict[str, dict[str, int]]]:
    """Return what waits.

    Returns:
        Number of films that wait for results; when the oldest came, seconds since the epoch; destination -> state ->
        number of results.
    """
    films = FilmQueue(spool)
    return films.waiting(), films.oldest(), Deliveries(spool).counts()


def notes(spool: Spool) -> dict[str, tuple[Any, float]]:
    """Return facts that other processes have noted: name -> value, when."""
    return {row["name"]: (parse_json(row["value"]), row["at"]) for row in spool.read("SELECT * FROM note")}


def _sent(spool: Spool, condition: str, value: int) -> list[ResultDelivery]:
    rows = spool.read(
        "SELECT result.film, result.kind, result.uid, delivery.destination, delivery.state, delivery.tries,"
        " delivery.due, delivery.error FROM delivery JOIN result ON result.id = delivery.result"
        f" WHERE {condition}",
        value,
    )
    return [ResultDelivery(*row) for row in rows]


def _film(row: sqlite3.Row) -> FilmRow:
    findings = tuple((name, unreliable) for name, unreliable in parse_json(row["findings"] or "[]"))
    abnormal = None if row["abnormal"] is None else bool(row["abnormal"])
    return FilmRow(
        row["id"], row["uid"], row["sop_class"], row["study"], row["source"], row["received"], row["twin"],
        row["state"], row["reason"], row["changed"], row["patient"], row["patient_id"], abnormal, findings,
        row["pictures"] or 0, bool(row["dead"]),
    )  # fmt: skip
