"""Storage commitments that are open.

Destinations have results, and have not said yet that they keep them.

A destination that reports on an association of its own talks to another process than the one that has asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from edgecxr.node.audit.audit_events import Subject
from edgecxr.node.deliveries import set_filed
from edgecxr.node.spool import Run, Spool

AGAIN = 3600.0
"""Seconds without a report after which a destination is asked again."""

_PASSING = (0x0110, 0x0112, 0x0131, 0x0213)
"""Failure reasons after which a result is sent again (PS3.3, C.14.1.1): it is not there, or the destination is busy."""


@dataclass(frozen=True)
class OpenResult:
    """A result that a destination is asked about.

    Attributes:
        result: number of the result.
        sop_class: SOP class UID under which it was sent.
        uid: SOP instance UID under which it was sent.
        tries: number of requests so far.
    """

    result: int
    sop_class: str
    uid: str
    tries: int


@dataclass(frozen=True)
class Verdict:
    """What a destination has reported of a result.

    Attributes:
        result: number of the result.
        destination: name of the destination.
        subject: the result as the audit trail names it.
        error: why it is not committed, in words; None if it is.
        given_up: whether it is not sent again.
    """

    result: int
    destination: str
    subject: Subject
    error: str | None = None
    given_up: bool = False


class Commitments:
    """The open commitments of a spool.

    Args:
        spool: the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def due(self, destination: str, most: int) -> list[OpenResult]:
        """Return results that a destination is to be asked about now.

        Args:
            destination: its name.
            most: greatest number of results.
        """
        now = time.time()
        rows = self._spool.read(
            "SELECT * FROM commitment WHERE destination = ? AND (due <= ? OR due > ?) ORDER BY result LIMIT ?",
            *(destination, now, now + AGAIN, most),
        )
        return [OpenResult(row["result"], row["sop_class"], row["uid"], row["tries"]) for row in rows]

    def set_asked(self, destination: str, results: Sequence[OpenResult], number: str) -> None:
        """Note that a destination is asked, before it is.

        Args:
            destination: its name.
            results: what it is asked about.
            number: UID of the transaction.
        """
        with self._spool.transaction() as run:
            for result in results:
                run(
                    "UPDATE commitment SET number = ?, due = ?, tries = tries + 1 WHERE result = ? AND destination = ?",
                    *(number, time.time() + AGAIN, result.result, destination),
                )

    def set_not_asked(self, destination: str, number: str, error: str, wait: float) -> None:
        """Note that a destination could not be asked.

        Args:
            destination: its name.
            number: UID of the transaction.
            error: why, in words.
            wait: seconds until the next attempt.
        """
        with self._spool.transaction() as run:
            run(
                "UPDATE delivery SET error = ? WHERE destination = ? AND result IN"
                " (SELECT result FROM commitment WHERE number = ? AND destination = ?)",
                *(f"not committed so far: {error}", destination, number, destination),
            )
            run(
                "UPDATE commitment SET number = NULL, due = ? WHERE number = ? AND destination = ?",
                *(time.time() + wait, number, destination),
            )

    def report(self, number: str, committed: Set[str], failed: Mapping[str, int]) -> list[Verdict]:
        """Note what a destination reports of a transaction.

        Args:
            number: UID of the transaction.
            committed: SOP instance UIDs of the results that it keeps.
            failed: those of the others -> failure reason.

        Returns:
            What became of each result; nothing if the transaction is not known.
        """
        verdicts = []
        with self._spool.transaction() as run:
            for row in run("SELECT * FROM commitment WHERE number = ?", number).fetchall():
                key = (row["result"], row["destination"])
                if row["uid"] in committed:
                    _close(run, *key, "committed", None)
                    verdicts.append(Verdict(*key, _subject(run, row["result"])))
                elif row["uid"] in failed:
                    reason = failed[row["uid"]]
                    error, given_up = f"not committed: failure 0x{reason:04X}", reason not in _PASSING
                    _close(run, *key, "dead" if given_up else "waiting", error)
                    verdicts.append(Verdict(*key, _subject(run, row["result"]), error, given_up))
        return verdicts

    def expire(self, destination: str, seconds: float) -> list[Verdict]:
        """Give up the results that were not committed in time.

        Args:
            destination: its name.
            seconds: since they were sent.
        """
        error = f"not committed within {seconds / 3600:g} hours"
        with self._spool.transaction() as run:
            rows = run(
                "SELECT result FROM commitment WHERE destination = ? AND begun < ?", destination, time.time() - seconds
            ).fetchall()
            for row in rows:
                _close(run, row["result"], destination, "dead", error)
            return [Verdict(row["result"], destination, _subject(run, row["result"]), error, True) for row in rows]

    def forget(self, destination: str) -> None:
        """Take results as filed that need no commitment any more."""
        with self._spool.transaction() as run:
            for row in run("SELECT result FROM commitment WHERE destination = ?", destination).fetchall():
                _close(run, row["result"], destination, "sent", None)


def _close(run: Run, result: int, destination: str, state: str, error: str | None) -> None:
    run("DELETE FROM commitment WHERE result = ? AND destination = ?", result, destination)
    run(
        "UPDATE delivery SET state = ?, error = ?, due = ? WHERE result = ? AND destination = ? AND state = 'sent'",
        *(state, error, time.time(), result, destination),
    )
    set_filed(run, result)


def _subject(run: Run, result: int) -> Subject:
    row = run(
        "SELECT result.uid, result.sop_class, film.study, film.uid AS of FROM result JOIN film ON film.id = film"
        " WHERE result.id = ?",
        result,
    ).fetchone()
    return Subject(row["uid"], row["sop_class"], row["study"], row["of"])
