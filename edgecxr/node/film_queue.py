"""Films of the spool and their states.

received -> reading -> predicted -> made -> filed -> forgotten
or, for good: refused (by the quality gate), rejected (by the reader)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgecxr.node.audit.audit_events import Subject
from edgecxr.node.spool import Spool, moved

OPEN_STATES = ("received", "reading", "predicted")
"""States of films that still wait for results."""

MOST_ENDED = 5
"""Number of processes that may end while they have a film, until it is rejected."""

OPEN = ", ".join(f"'{state}'" for state in OPEN_STATES)
"""The same as SQL."""


@dataclass(frozen=True)
class Identity:
    """A film as its data set names it.

    Attributes:
        uid: SOP instance UID.
        sop_class: SOP class UID.
        study: study instance UID.
        series: series instance UID.
        digest: SHA-256 of its transfer syntax and data set, in hexadecimal digits.
        patient: PatientID, characters beyond ASCII as they came; "" if there is none.
        syntax: transfer syntax UID.
    """

    uid: str
    sop_class: str
    study: str
    series: str
    digest: str
    patient: str = ""
    syntax: str = ""


@dataclass(frozen=True)
class Film:
    """A film of the spool.

    Attributes:
        number: of its row.
        path: of its file.
        subject: the film as the audit trail names it.
        received: seconds since the epoch.
        twin: number of an earlier film with this UID and another content, or None.
        suspect: whether a process has ended while it had this film, so that it is read alone.
    """

    number: int
    path: Path
    subject: Subject
    received: float
    twin: int | None
    suspect: bool


class FilmQueue:
    """The films of a spool.

    Args:
        spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def add(self, building: Path, film: Identity, source: str, received: float) -> tuple[int, bool]:
        """Take a whole file, which is on the disk, into the spool.

        Args:
            building: the file, in `Spool.incoming`; it is moved or removed.
            film: what it is.
            source: where it comes from.
            received: seconds since the epoch.

        Returns:
            Its number, and whether it is new. One with the same UID and content is the same film.

        Raises:
            OSError: it cannot be moved.
            sqlite3.Error: the row cannot be written.
        """
        with self._spool.transaction() as run:
            same = run("SELECT id FROM film WHERE uid = ? AND digest = ?", film.uid, film.digest).fetchone()
            if same:
                building.unlink()
                return int(same["id"]), False
            twin = run("SELECT min(id) FROM film WHERE uid = ?", film.uid).fetchone()[0]
            number = run(
                "INSERT INTO film (uid, digest, sop_class, study, series, size, source, received, twin, state, changed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'received', ?)",
                *(film.uid, film.digest, film.sop_class, film.study, film.series, building.stat().st_size),
                *(source, received, twin, received),
            ).lastrowid
            assert number is not None
            moved(building, self._spool.film_path(number))
        return number, True

    def waiting(self) -> int:
        """Return the number of films that wait for results."""
        return int(self._spool.read(f"SELECT count(*) FROM film WHERE state IN ({OPEN})")[0][0])

    def oldest(self) -> float | None:
        """Return when the film that waits longest was received.

        Returns:
            Seconds since the epoch; None if none waits.
        """
        oldest: float | None = self._spool.read(f"SELECT min(received) FROM film WHERE state IN ({OPEN})")[0][0]
        return oldest

    def claim(self, lease: str, alone: bool) -> Film | None:
        """Return the next film to read, which is then the caller's.

        Films with which a process has ended come after the others and alone, since they may be the cause.

        Args:
            lease: who reads it.
            alone: whether the caller has no other film.
        """
        next_film = (
            f"SELECT * FROM film WHERE state IN ({OPEN}) AND lease IS NULL AND ended <= ? ORDER BY ended, id LIMIT 1"
        )
        ended = MOST_ENDED if alone else 0
        if not self._spool.read(next_film, ended):  # asked many times a second, so that nobody else is to wait
            return None
        with self._spool.transaction() as run:
            row = run(next_film, ended).fetchone()
            if row is None:
                return None
            state = "reading" if row["state"] == "received" else row["state"]
            run("UPDATE film SET state = ?, lease = ?, changed = ? WHERE id = ?", state, lease, time.time(), row["id"])
        path = self._spool.film_path(row["id"])
        subject = Subject(row["uid"], row["sop_class"], row["study"])
        return Film(row["id"], path, subject, row["received"], row["twin"], row["ended"] > 0)

    def void_leases(self, boot: str) -> list[Subject]:
        """Give back the films of processes that have ended.

        A film that `MOST_ENDED` processes had when they ended is rejected as a crash.

        Args:
            boot: names this start of the machine; leases begin with it. If the machine went down, no film is the cause.

        Returns:
            The films that are rejected.
        """
        with self._spool.transaction() as run:
            run("UPDATE film SET ended = ended + 1 WHERE substr(lease, 1, ?) = ?", len(boot), boot)
            blamed = "lease IS NOT NULL AND ended >= ?"
            rows = run(f"SELECT uid, sop_class, study FROM film WHERE {blamed}", MOST_ENDED).fetchall()
            run(
                f"UPDATE film SET state = 'rejected', reason = 'crash', changed = ? WHERE {blamed}",
                *(time.time(), MOST_ENDED),
            )
            run("UPDATE film SET lease = NULL WHERE lease IS NOT NULL")
        return [Subject(*row) for row in rows]

    def release(self, lease: str) -> None:
        """Give back the films of a process that stops on purpose."""
        with self._spool.transaction() as run:
            run("UPDATE film SET lease = NULL WHERE lease = ?", lease)

    def set_predicted(self, number: int, prediction: str) -> None:
        """Note a film's prediction, as JSON."""
        with self._spool.transaction() as run:
            run(
                "UPDATE film SET state = 'predicted', prediction = ?, changed = ? WHERE id = ?",
                *(prediction, time.time(), number),
            )

    def set_without_result(self, number: int, state: str, reason: str, record: str | None = None) -> None:
        """Note that a film gets no result.

        Args:
            number: of the film.
            state: "refused" or "rejected".
            reason: a code of `edgecxr.errors.REASONS` or `edgecxr.vocabulary.WITHOUT_RESULT`.
            record: what the model or the gate said of it, as JSON; by default what was noted before.
        """
        with self._spool.transaction() as run:
            run(
                "UPDATE film SET state = ?, reason = ?, lease = NULL, changed = ?, prediction = coalesce(?, prediction)"
                " WHERE id = ?",
                *(state, reason, time.time(), record, number),
            )

    def counts(self) -> dict[str, int]:
        """Return the number of films in each state."""
        rows = self._spool.read("SELECT state, count(*) FROM film GROUP BY state ORDER BY state")
        return {state: count for state, count in rows}
