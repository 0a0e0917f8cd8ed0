"""Results of films and their deliveries.

Each destination has a delivery of each result: waiting -> sent -> committed (where asked), or dead. It is dropped in
the end if the destination is no longer configured, and its film waits for it no more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.node.audit.audit_events import Subject
from edgecxr.node.spool import Run, Spool, moved

if TYPE_CHECKING:
    from edgecxr.infer.dicom.objects import DicomObject


LONGEST_PAUSE = 900.0
"""Seconds of the longest pause between attempts, with jitter."""


@dataclass(frozen=True)
class Delivery:
    """A result that a destination is to get.

    Attributes:
        result: number of the result.
        path: of its file.
        kind: of the result, "sr" or "sc".
        tries: number of attempts so far.
        begun: when the first attempt was due, seconds since the epoch.
        subject: the result as the audit trail names it.
    """

    result: int
    path: Path
    kind: str
    tries: int
    begun: float
    subject: Subject


class Deliveries:
    """The results of a spool.

    Args:
        spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def add(
        self,
        film: int,
        objects: Sequence[DicomObject],
        destinations: Sequence[str],
        reason: str | None = None,
        state: str | None = None,
        record: str | None = None,
    ) -> None:
        """Store a film's results, and queue them for all destinations.

        Args:
            film: number of the film.
            objects: its results.
            destinations: names of those that get them.
            reason: why a result is lacking.
            state: of the film from then on; by default that of one whose results are made.
            record: what the model or the gate said of it, as JSON; by default what was noted before.

        Raises:
            OSError: they cannot be written.
            sqlite3.Error: the rows cannot be written.
        """
        now = time.time()
        with ExitStack() as stack:
            buildings = [stack.enter_context(self._spool.written(each.content)) for each in objects]
            run = stack.enter_context(self._spool.transaction())
            for dicom_object, building in zip(objects, buildings, strict=True):
                number = run(
                    "INSERT INTO result (film, kind, sop_class, uid) VALUES (?, ?, ?, ?)",
                    *(film, dicom_object.kind, dicom_object.sop_class, dicom_object.uid),
                ).lastrowid
                assert number is not None
                moved(building, self._spool.result_path(number))
                for destination in destinations:
                    run(
                        "INSERT INTO delivery (result, destination, state, begun, due) VALUES (?, ?, 'waiting', ?, ?)",
                        *(number, destination, now, now),
                    )
            run(
                "UPDATE film SET state = ?, reason = ?, lease = NULL, changed = ?, prediction = coalesce(?, prediction)"
                " WHERE id = ?",
                *(state or ("made" if destinations else "filed"), reason, now, record, film),
            )

    def due(self, destination: str, most: int) -> list[Delivery]:
        """Return results that a destination is to get now.

        The least tried and oldest come first. What is due later than the longest pause allows was planned before the
        clock was set back: it is due now.

        Args:
            destination: its name.
            most: greatest number of results.
        """
        now = time.time()
        rows = self._spool.read(
            "SELECT delivery.*, kind, result.uid, result.sop_class, film.study, film.uid AS of FROM delivery"
            " JOIN result ON result.id = delivery.result JOIN film ON film.id = result.film"
            " WHERE destination = ? AND delivery.state = 'waiting' AND (due <= ? OR due > ?)"
            " ORDER BY tries, result LIMIT ?",
            *(destination, now, now + LONGEST_PAUSE, most),
        )
        return [
            Delivery(
                row["result"],
                self._spool.result_path(row["result"]),
                row["kind"],
                row["tries"],
                min(row["begun"], now),
                Subject(row["uid"], row["sop_class"], row["study"], row["of"]),
            )
            for row in rows
        ]

    def set_sent(
        self, result: int, destination: str, remark: str | None = None, commit: tuple[str, str] | None = None
    ) -> None:
        """Note that a destination has a result.

        Its film is filed once all destinations have all of its results, and have committed themselves where asked.

        Args:
            result: number of the result.
            destination: name of the destination.
            remark: what it answers.
            commit: SOP class and instance UID that it is to be asked about; None if it is not.
        """
        now = time.time()
        with self._spool.transaction() as run:
            run(
                "UPDATE delivery SET state = 'sent', tries = tries + 1, error = ? WHERE result = ? AND destination = ?",
                *(remark, result, destination),
            )
            if commit is not None:
                run(
                    "INSERT OR REPLACE INTO commitment (result, destination, sop_class, uid, begun, due)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    *(result, destination, *commit, now, now),
                )
            set_filed(run, result)

    def set_failed(self, result: int, destination: str, error: str, wait: float | None) -> None:
        """Note that a destination did not take a result.

        Args:
            result: number of the result.
            destination: name of the destination.
            error: why, in words.
            wait: seconds until the next attempt; None if there is none.
        """
        state = "dead" if wait is None else "waiting"
        with self._spool.transaction() as run:
            run(
                "UPDATE delivery SET state = ?, tries = tries + 1, error = ?, due = ?"
                " WHERE result = ? AND destination = ?",
                *(state, error, time.time() + (wait or 0.0), result, destination),
            )

    def set_unreachable(self, destination: str, error: str, wait: float, give_up: float) -> int:
        """Note that a destination cannot be reached.

        This counts as an attempt for all results that are due.

        Args:
            destination: its name.
            error: why, in words.
            wait: seconds until the next attempt.
            give_up: seconds after which a result is given up.

        Returns:
            The number of results that were given up.
        """
        now = time.time()
        with self._spool.transaction() as run:
            run(
                "UPDATE delivery SET tries = tries + 1, error = ?, due = ?, begun = min(begun, ?)"
                " WHERE destination = ? AND state = 'waiting' AND (due <= ? OR due > ?)",
                *(error, now + wait, now, destination, now, now + LONGEST_PAUSE),
            )
            return run(
                "UPDATE delivery SET state = 'dead' WHERE destination = ? AND state = 'waiting' AND begun < ?",
                *(destination, now - give_up),
            ).rowcount

    def retry(self, destination: str) -> int:
        """Queue again what was given up or dropped; return how many results.

        What was dropped is sent if its file is still kept.

        Args:
            destination: its name.
        """
        now = time.time()
        kept = "state = 'dropped' AND result IN (SELECT id FROM result WHERE spooled)"
        with self._spool.transaction() as run:
            run(
                "UPDATE film SET state = 'made', changed = ? WHERE state = 'filed' AND id IN (SELECT film FROM result"
                f" JOIN delivery ON result.id = result WHERE destination = ? AND {kept})",
                *(now, destination),
            )
            return run(
                "UPDATE delivery SET state = 'waiting', tries = 0, begun = ?, due = ?"
                f" WHERE destination = ? AND (state = 'dead' OR {kept})",
                *(now, now, destination),
            ).rowcount

    def hurry(self, destination: str) -> int:
        """Have waiting results tried at once; return how many.

        Args:
            destination: its name.
        """
        now = time.time()
        with self._spool.transaction() as run:
            run("INSERT OR REPLACE INTO note VALUES (?, 'null', ?)", f"hurry.{destination}", now)
            return run(
                "UPDATE delivery SET due = ? WHERE destination = ? AND state = 'waiting' AND due > ?",
                *(now, destination, now),
            ).rowcount

    def hurried(self, destination: str) -> float:
        """Return when `hurry` was called last.

        The time is in seconds since the epoch, 0 if it was never called.

        Args:
            destination: its name.
        """
        rows = self._spool.read("SELECT at FROM note WHERE name = ?", f"hurry.{destination}")
        return float(rows[0]["at"]) if rows else 0.0

    def removed(self, configured: Collection[str]) -> dict[str, int]:
        """Return how many results are open for destinations no longer configured.

        Args:
            configured: names of those that are.
        """
        rows = self._spool.read(
            "SELECT destination, count(*) FROM delivery WHERE state IN ('waiting', 'dead') OR EXISTS (SELECT 1 FROM"
            " commitment WHERE commitment.result = delivery.result AND commitment.destination = delivery.destination)"
            " GROUP BY 1 ORDER BY 1"
        )
        return {row[0]: row[1] for row in rows if row[0] not in configured}

    def drop(self, destination: str, seconds: float) -> int:
        """Drop what a destination did not get; return how many results.

        It is not asked any more to commit itself, either.

        Args:
            destination: its name.
            seconds: since the first attempt was due; what is newer stays.
        """
        with self._spool.transaction() as run:
            dropped = [
                row[0]
                for row in run(
                    "SELECT result FROM delivery WHERE destination = ? AND state IN ('waiting', 'dead') AND begun < ?",
                    *(destination, time.time() - seconds),
                ).fetchall()
            ]
            for result in dropped:
                run("UPDATE delivery SET state = 'dropped' WHERE destination = ? AND result = ?", destination, result)
            late = (destination, time.time() - seconds)
            rows = run("SELECT result FROM commitment WHERE destination = ? AND begun < ?", *late).fetchall()
            committing = [row[0] for row in rows]
            run("DELETE FROM commitment WHERE destination = ? AND begun < ?", *late)
            for result in {*dropped, *committing}:
                set_filed(run, result)
        return len(dropped)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return for each destination the number of results in each state."""
        counts: dict[str, dict[str, int]] = {}
        for row in self._spool.read("SELECT destination, state, count(*) FROM delivery GROUP BY 1, 2 ORDER BY 1, 2"):
            counts.setdefault(row[0], {})[row[1]] = row[2]
        return counts

    def errors(self, most: int) -> list[tuple[str, str, int, str]]:
        """Return the latest failures: destination, state, number of tries, error."""
        rows = self._spool.read(
            "SELECT destination, state, tries, error FROM delivery WHERE error IS NOT NULL"
            " AND (state IN ('waiting', 'dead') OR EXISTS (SELECT 1 FROM commitment WHERE"
            " commitment.result = delivery.result AND commitment.destination = delivery.destination))"
            " ORDER BY due DESC LIMIT ?",
            most,
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]


def set_filed(run: Run, result: int) -> None:
    """Note that a result's film is filed if nothing is waited for.

    Args:
        run: of a transaction.
        result: number of the result.
    """
    film = run("SELECT film FROM result WHERE id = ?", result).fetchone()[0]
    left = run(
        "SELECT count(*) FROM delivery JOIN result ON result.id = delivery.result WHERE film = ?"
        " AND (state NOT IN ('sent', 'committed', 'dropped') OR EXISTS (SELECT 1 FROM commitment WHERE"
        " commitment.result = delivery.result AND commitment.destination = delivery.destination))",
        film,
    ).fetchone()[0]
    if not left:
        run("UPDATE film SET state = 'filed', changed = ? WHERE id = ? AND state = 'made'", time.time(), film)
