"""Reports of storage commitment (PS3.4, J.3.3), on whatever association they come."""

from __future__ import annotations

import sqlite3
from typing import Any

from pydicom import Dataset

from edgecxr.errors import brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.commitment.commitments import Commitments, Verdict
from edgecxr.terminal import say

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""SOP class and its only instance (PS3.4, J.3.1)."""

_FAILED, _NOT_KNOWN, _SUCCESS = 0x0110, 0x0115, 0x0000
_MOST = 1000


class Reports:
    """The handler of reports.

    Args:
        commitments: those that are open.
        audit: gets to know of what is committed.
        process: name of this one, for its messages.
    """

    def __init__(self, commitments: Commitments, audit: Audit, process: str) -> None:
        self._commitments, self._audit, self._process = commitments, audit, process

    def handle(self, event: Any) -> tuple[int, None]:
        """Return the status of an N-EVENT-REPORT request of pynetdicom's."""
        try:
            verdicts = self._commitments.report(*_parsed(event.event_information))
        except sqlite3.Error as error:
            say(f"{self._process}: a report of storage commitment cannot be noted: {brief(error)}")
            return _FAILED, None
        except Exception:  # pydicom raises nearly anything
            return _FAILED, None
        for verdict in verdicts:
            self.tell(verdict)
        return _SUCCESS if verdicts else _NOT_KNOWN, None

    def tell(self, verdict: Verdict) -> None:
        """Say what became of a result."""
        name, number = verdict.destination, verdict.result
        if verdict.error is None:
            self._audit.committed(verdict.subject, name)
            say(f"{self._process}: {name} has committed result {number}")
        else:
            self._audit.failed(verdict.subject, name, verdict.error, verdict.given_up)
            outcome = "it is given up" if verdict.given_up else "it is sent again"
            say(f"{self._process}: {name} has result {number} {verdict.error}; {outcome}")


def _parsed(information: Dataset) -> tuple[str, set[str], dict[str, int]]:
    """Return the transaction's UID, committed UIDs and failed ones -> reason."""
    committed = information.get("ReferencedSOPSequence") or []
    failed = information.get("FailedSOPSequence") or []
    if len(committed) + len(failed) > _MOST:
        raise ValueError("more than was asked for")
    return (
        str(information.TransactionUID),
        {str(item.ReferencedSOPInstanceUID) for item in committed},
        {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in failed},
    )
