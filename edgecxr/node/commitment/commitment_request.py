"""Requests of storage commitment, push model (PS3.4, J)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import evt

from edgecxr.errors import brief
from edgecxr.node.commitment.commitment_reports import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reports
from edgecxr.node.commitment.commitments import Commitments, OpenResult
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.sending.association import Association
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable

LISTEN = 10.0
"""Seconds for which an association stays open for the report."""

_MOST = 100
_ANSWERING = 5.0  # seconds within which the answer to a report is sent


class Commitment:
    """The questions to one destination whether it keeps its results.

    Each goes by an association of its own, since pynetdicom takes a report that comes while a C-STORE is answered for
    that answer.

    Args:
        destination: the destination.
        config: the node's.
        commitments: those that are open.
        reports: handles what comes back.
    """

    def __init__(
        self, destination: Destination, config: NodeConfig, commitments: Commitments, reports: Reports
    ) -> None:
        self._name, self._commitments, self._reports = destination.name, commitments, reports
        self._association = Association(
            destination,
            config,
            contexts=[(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])],
            handlers=[(evt.EVT_N_EVENT_REPORT, self._handle), (evt.EVT_PDU_SENT, self._sent)],
        )
        self._until, self._handled, self._answered = 0.0, False, threading.Event()

    def step(self, pause: Callable[[int], float]) -> bool:
        """Ask about what is due, unless a report is waited for.

        It returns whether something was done.

        Args:
            pause: number of failures -> seconds until the next attempt.
        """
        if time.monotonic() < self._until and not self._answered.is_set() and self._association.is_open:
            return False
        if self._until:
            self.release()
        due = self._commitments.due(self._name, _MOST)
        if not due:
            return False
        number = str(generate_uid(prefix=None))
        self._commitments.set_asked(self._name, due, number)
        self._handled = False
        self._answered.clear()
        try:
            self._ask(due, number)
            self._until = time.monotonic() + LISTEN
        except (Unreachable, Refused) as error:
            self.release()
            self._commitments.set_not_asked(self._name, number, str(error), pause(due[0].tries))
        return True

    def release(self) -> None:
        """Release the association if there is one."""
        if self._handled:  # pynetdicom cannot send an answer after a release
            self._answered.wait(_ANSWERING)
        self._association.release()
        self._until, self._handled = 0.0, False

    def _handle(self, event: Any) -> tuple[int, None]:
        self._handled = True
        return self._reports.handle(event)

    def _sent(self, event: Any) -> None:
        if self._handled:
            self._answered.set()

    def _ask(self, due: Sequence[OpenResult], number: str) -> None:
        """Send the request.

        Raises:
            Unreachable: there is no association, or it is lost.
            Refused: the destination does not take it.
        """
        request = Dataset()
        request.TransactionUID, request.ReferencedSOPSequence = number, []
        for result in due:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = result.sop_class, result.uid
            request.ReferencedSOPSequence.append(item)
        association = self._association.associated()
        if PUSH_MODEL not in {context.abstract_syntax for context in association.accepted_contexts}:
            raise Refused("it takes no storage commitment", transient=True)
        try:
            answer, _ = association.send_n_action(request, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            cause = "no answer"
        except (RuntimeError, ValueError, OSError) as error:
            answer, cause = Dataset(), brief(error)
        if "Status" not in answer:
            self._association.drop()
            raise Unreachable(f"the association ended: {cause}")
        if answer.Status != 0:
            raise Refused(f"status 0x{int(answer.Status):04X} of the request", transient=True)
