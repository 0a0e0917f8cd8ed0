"""The process that sends results to their destinations by C-STORE.

A destination that is away, slow or broken is tried again for days; it holds up no other one.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sqlite3
import threading
import time
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined, unused-ignore]
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from edgecxr.errors import brief
from edgecxr.infer.dicom.uids import uid_of
from edgecxr.node.deliveries import LONGEST_PAUSE, Deliveries, Delivery
from edgecxr.node.node_config import Destination, Limits, NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.receiving.guard import BoundedSocket
from edgecxr.node.spool import Spool
from edgecxr.storage.reading import read_bytes
from edgecxr.terminal import printable, say

CONNECT, ANSWER = 5.0, 30.0
"""Seconds for a connection, and for an answer."""

IDLE = 2.0
"""Seconds without work after which an association is released."""

_FIRST_PAUSE = 5.0
_LOOK = 0.1  # seconds between two looks for results
_AT_ONCE = 20
LARGEST = 64 << 20
"""Bytes of a result that is sent."""

_FORGET_EVERY = 600.0
_HOUR, _DAY = 3600.0, 86400.0


def main() -> None:
    """Run the process."""
    run_role("send", _send)


def _send(config: NodeConfig, stop: Stop) -> None:
    quiet()
    with Spool(config.folder) as spool:
        stop.follow_supervisor()
        threads = [
            threading.Thread(target=Sender(destination, config, spool, stop).run, daemon=True)
            for destination in config.destination
        ]
        for thread in threads:
            thread.start()
        say(f"send: {', '.join(each.name for each in config.destination) or 'no destinations'}")
        limits = config.limits
        while not stop.wait(_FORGET_EVERY):
            try:
                spool.forget(limits.keep_films_days * _DAY, limits.keep_results_days * _DAY)
            except (OSError, sqlite3.Error) as error:
                say(f"send: old files stay: {brief(error)}")
        for thread in threads:
            thread.join(timeout=CONNECT)


def quiet() -> None:
    """Keep pynetdicom from logging; its messages name no remedy."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"


class Unreachable(Exception):
    """A destination that takes no association, or has lost one."""


class Refused(Exception):
    """A result that a destination does not take.

    Attributes:
        transient: whether it may take it later.
    """

    def __init__(self, message: str, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class Sender:
    """The sender of one destination.

    Args:
        destination: the destination.
        config: the node's.
        spool: the spool.
        stop: ends `run`.
    """

    def __init__(self, destination: Destination, config: NodeConfig, spool: Spool, stop: Stop) -> None:
        self._destination, self._stop = destination, stop
        self._give_up = config.limits.give_up_hours * _HOUR
        self._deliveries = Deliveries(spool)
        self._connection = Connection(destination, config)
        self._failures, self._not_before, self._last = 0, 0.0, 0.0

    def run(self) -> None:
        """Send until `stop`."""
        while not self._stop.requested:
            try:
                worked = self.step()
            except (OSError, sqlite3.Error) as error:
                say(f"send: {self._destination.name}: the spool cannot be used: {brief(error)}")
                worked = False
                self._stop.wait(_FIRST_PAUSE)
            if not worked:
                self._stop.wait(_LOOK)
        self._connection.release()

    def step(self) -> bool:
        """Send what is due; return whether something was.

        Raises:
            OSError: a result cannot be read.
            sqlite3.Error: the database cannot be used.
        """
        name, now = self._destination.name, time.monotonic()
        due = self._deliveries.due(name, _AT_ONCE) if now >= self._not_before else []
        if not due:
            if now - self._last > IDLE:
                self._connection.release()
            return False
        for delivery in due:
            if self._stop.requested:
                break
            try:
                remark = self._connection.store(read_bytes(delivery.path, LARGEST))
            except Refused as error:
                self._failed(delivery, str(error), error.transient)
            except Unreachable as error:
                # An association that is lost with one result may be that result's fault: the others go first.
                if self._connection.was_established:
                    self._failed(delivery, str(error), transient=True)
                else:
                    self._unreachable(str(error))
                    break
            else:
                self._deliveries.set_sent(delivery.result, name, remark)
                self._failures = 0
                say(f"send: {name} has result {delivery.result}{f' ({remark})' if remark else ''}")
            self._last = time.monotonic()
        return True

    def _failed(self, delivery: Delivery, error: str, transient: bool) -> None:
        name = self._destination.name
        given_up = not transient or time.time() - delivery.begun > self._give_up
        self._deliveries.set_failed(delivery.result, name, error, None if given_up else pause(delivery.tries))
        say(f"send: {name} does not take result {delivery.result}: {error}{'; it is given up' if given_up else ''}")

    def _unreachable(self, error: str) -> None:
        name, wait = self._destination.name, pause(self._failures)
        if not self._failures:
            say(f"send: {name} cannot be reached: {error}")
        self._failures += 1
        self._not_before = time.monotonic() + wait
        given_up = self._deliveries.set_unreachable(name, error, wait, self._give_up)
        if given_up:
            say(f"send: {given_up} results for {name} are given up: `edgecxr node retry` sends them again")


class Connection:
    """An association with a destination, made when it is needed.

    Attributes:
        was_established: whether the last failure was of an association that had been accepted.
    """

    def __init__(self, destination: Destination, config: NodeConfig) -> None:
        self._destination = destination
        self._limits = dataclasses.replace(
            Limits(), first_seconds=ANSWER, idle_seconds=ANSWER, object_seconds=2 * ANSWER
        )
        self._entity = AE(destination.calling or config.ae_title)
        self._entity.connection_timeout, self._entity.network_timeout = CONNECT, None
        self._entity.acse_timeout = self._entity.dimse_timeout = ANSWER
        syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        self._entity.add_requested_context(Verification)
        for sop_class in (Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage):
            self._entity.add_requested_context(sop_class, syntaxes)
        self._association: Any = None
        self.was_established = False

    def store(self, content: bytes) -> str | None:
        """Send a result.

        Returns:
            A remark of the destination, or None.

        Raises:
            Unreachable: there is no association, or it is lost.
            Refused: the destination does not take the result.
        """
        try:
            dataset: Dataset = dcmread(BytesIO(content))
            _ = dataset.file_meta.TransferSyntaxUID, dataset.SOPClassUID, dataset.SOPInstanceUID
        except Exception as error:  # pydicom raises nearly anything
            raise Refused(f"it is no DICOM file: {brief(error)}", transient=False) from error
        association = self._associated()
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        if dataset.SOPClassUID == Comprehensive3DSRStorage and dataset.SOPClassUID not in accepted:
            dataset = as_comprehensive(dataset)
        if dataset.SOPClassUID not in accepted:
            raise Refused(f"it takes no {dataset.SOPClassUID.name}", transient=False)
        try:
            answer = association.send_c_store(dataset)
        except (RuntimeError, ValueError, OSError) as error:
            answer = Dataset()
            cause = brief(error)
        else:
            cause = "no answer"
        if "Status" not in answer:
            self._drop()
            raise Unreachable(f"the association ended: {cause}")
        status, comment = int(answer.Status), printable(str(answer.get("ErrorComment", "")))
        words = f"status 0x{status:04X}{f', {comment}' if comment else ''}"
        if status == 0:
            return None
        if status == 0x0111 or status >> 12 == 0xB:  # it has the result already, or has changed something in it
            return words
        raise Refused(words, transient=status >> 8 == 0xA7)

    def verify(self) -> None:
        """Ask whether the destination is there.

        Raises:
            Unreachable: it is not.
        """
        answer = self._associated().send_c_echo()
        if answer.get("Status") != 0:
            self._drop()
            raise Unreachable("it does not answer C-ECHO")

    def release(self) -> None:
        """Release the association if there is one."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _associated(self) -> Any:
        if self._association is not None and self._association.is_established:
            return self._association
        to = self._destination
        self._association, self.was_established = None, False
        try:
            association = self._entity.associate(
                to.host,
                to.port,
                ae_title=to.ae_title,
                evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: BoundedSocket(event.assoc, self._limits))],
            )
        except (OSError, RuntimeError, ValueError) as error:  # such as a name that is not found
            raise Unreachable(f"{to.host} port {to.port}: {brief(error)}") from error
        if not association.is_established:
            raise Unreachable(_why_not(association, to))
        self._association, self.was_established = association, True
        return association

    def _drop(self) -> None:
        if self._association is not None:
            self._association.abort()
        self._association = None


def as_comprehensive(report: Dataset) -> Dataset:
    """Return a Comprehensive 3D SR as a Comprehensive SR.

    It has the same content, which uses nothing of the third dimension, under a UID of its own.

    Args:
        report: is changed.
    """
    uid = uid_of("edgecxr comprehensive", report.SOPInstanceUID)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = uid
    return report


def pause(failures: int) -> float:
    """Return the seconds until the next attempt.

    Args:
        failures: number of failures before this one.
    """
    return min(LONGEST_PAUSE / 1.25, _FIRST_PAUSE * 2 ** min(failures, 20)) * random.uniform(1, 1.25)


def _why_not(association: Any, to: Destination) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        return f"{to.ae_title} rejects the association: {answer.reason_str if answer else 'no reason given'}"
    if association.is_aborted:
        return f"{to.ae_title} at {to.host} port {to.port} aborts the association, or takes none of what is sent"
    return f"{to.host} port {to.port} takes no connection"
