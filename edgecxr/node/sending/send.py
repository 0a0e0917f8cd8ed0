"""The process that sends results to their destinations by C-STORE and STOW-RS.

A destination that is away, slow or broken is tried again for days; it holds up no other one.
"""

from __future__ import annotations

import math
import random
import sqlite3
import time
from typing import Protocol

from edgecxr.errors import brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.audit.audit_syslog import AuditSyslog
from edgecxr.node.commitment.commitment_reports import Reports
from edgecxr.node.commitment.commitment_request import Commitment
from edgecxr.node.commitment.commitments import Commitments
from edgecxr.node.deliveries import LONGEST_PAUSE, Deliveries, Delivery
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.sending.association import CONNECT, Association, quiet
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.failures import Refused, Unreachable
from edgecxr.node.sending.stow_client import StowClient
from edgecxr.node.spool import Spool
from edgecxr.storage.reading import BadFile, read_bytes
from edgecxr.terminal import say

IDLE = 2.0
"""Seconds without work after which an association is released."""

_FIRST_PAUSE = 5.0
_LOOK = 0.2  # seconds between two looks for results
_AT_ONCE = 20
LARGEST = 64 << 20
"""Bytes of a result that is sent."""

_TIDY_EVERY, _EXPIRE_EVERY = 600.0, 60.0
_HOUR, _DAY = 3600.0, 86400.0


def main() -> None:
    """Run the process."""
    run_role("send", _send)


def _send(config: NodeConfig, stop: Stop) -> None:
    quiet()
    with Spool(config.folder) as spool:
        stop.follow_supervisor()
        threads = [
            stop.background(f"sending to {destination.name}", Sender(destination, config, spool, stop).run)
            for destination in config.destination
        ]
        if config.audit is not None:
            syslog = AuditSyslog(config.audit, config)
            threads.append(stop.background("sending the audit trail", lambda: syslog.run(stop)))
        say(f"send: {', '.join(each.name for each in config.destination) or 'no destinations'}")
        audit = Audit(config, "send")
        while True:
            tidy(config, spool, audit)
            if stop.wait(_TIDY_EVERY):
                break
        for thread in threads:
            thread.join(timeout=CONNECT)


def tidy(config: NodeConfig, spool: Spool, audit: Audit) -> None:
    """Drop results for destinations no longer configured, and remove old files.

    Args:
        config: the node's.
        spool: the spool.
        audit: gets to know of what is dropped.
    """
    limits, deliveries = config.limits, Deliveries(spool)
    try:
        for name in deliveries.removed({each.name for each in config.destination}):
            dropped = deliveries.drop(name, limits.give_up_hours * _HOUR)
            if dropped:
                audit.unreachable(name, "the configuration has it no longer", dropped)
                say(f"send: {dropped} results for {name} are dropped, since it is no [[destination]] any more")
        spool.forget(limits.keep_films_days * _DAY, limits.keep_results_days * _DAY)
    except (OSError, sqlite3.Error) as error:
        say(f"send: old files stay: {brief(error)}")


class Connection(Protocol):
    """A way to a destination, made when it is needed.

    Attributes:
        was_established: whether the last failure was of a connection that had been accepted.
        sent_as: SOP class and instance UID under which the last result was sent.
    """

    was_established: bool
    sent_as: tuple[str, str]

    def store(self, content: bytes) -> str | None:
        """Send a result.

        Returns:
            A remark of the destination, or None.

        Raises:
            Unreachable: there is no connection, or it is lost.
            Refused: the destination does not take the result.
        """

    def verify(self) -> None:
        """Ask whether the destination is there.

        Raises:
            Unreachable: it is not.
        """

    def release(self) -> None:
        """End the connection if there is one."""


def connection_to(destination: Destination, config: NodeConfig) -> Connection:
    """Return the way to a destination."""
    return StowClient(destination, config) if destination.url else Association(destination, config)


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
        self._longest_wait, self._began = config.limits.give_up_hours * _HOUR, time.monotonic()
        self._deliveries, self._audit = Deliveries(spool), Audit(config, "send")
        self._connection = connection_to(destination, config)
        self._failures, self._not_before, self._last = 0, 0.0, 0.0
        self._hurried = 0.0
        self._commitments, self._expired = Commitments(spool), float("-inf")
        self._commit_within = config.limits.commit_hours * _HOUR
        self._reports = Reports(self._commitments, self._audit, "send")
        self._commitment = (
            Commitment(destination, config, self._commitments, self._reports) if destination.commit else None
        )

    @property
    def _give_up(self) -> float:
        """Seconds after which a result is given up.

        None is in the first hour: what has waited while the node was off, or until the clock was set forward, has
        hardly been tried.
        """
        has_tried = time.monotonic() - self._began > min(self._longest_wait, _HOUR)
        return self._longest_wait if has_tried else math.inf

    def run(self) -> None:
        """Send until `stop`."""
        while not self._stop.requested:
            try:
                worked = self.step() | self._commit()
            except (OSError, sqlite3.Error) as error:
                say(f"send: {self._destination.name}: the spool cannot be used: {brief(error)}")
                worked = False
                self._stop.wait(_FIRST_PAUSE)
            except Exception as error:  # the same, of a commitment: this thread must not end
                say(f"send: {self._destination.name}: {type(error).__name__}, {brief(error)}: it is tried again")
                worked = False
                self._stop.wait(_FIRST_PAUSE)
            if not worked:
                self._stop.wait(_LOOK)
        self._connection.release()
        if self._commitment is not None:
            self._commitment.release()

    def _commit(self) -> bool:
        """Ask for what is not committed yet, and give up the late.

        It returns whether something was done.
        """
        now = time.monotonic()
        if self._commitment is None:
            if self._expired < 0:  # it may have been asked for before
                self._commitments.forget(self._destination.name)
                self._expired = now
            return False
        if now - self._expired > _EXPIRE_EVERY:
            self._expired = now
            for verdict in self._commitments.expire(self._destination.name, self._commit_within):
                self._reports.tell(verdict)
        return self._commitment.step(pause)

    def step(self) -> bool:
        """Send what is due; return whether something was.

        Raises:
            sqlite3.Error: the database cannot be used.
        """
        name, due = self._destination.name, self._due()
        if not due:
            if time.monotonic() - self._last > IDLE:
                self._connection.release()
            return False
        for delivery in due:
            if self._stop.requested:
                break
            try:
                content = read_bytes(delivery.path, LARGEST)
            except (OSError, BadFile) as error:  # of this file alone; the others go on
                lost = isinstance(error, (FileNotFoundError, BadFile))
                self._failed(delivery, f"its file cannot be read: {brief(error)}", transient=not lost)
                continue
            try:
                remark = self._connection.store(content)
            except Refused as error:
                self._failed(delivery, str(error), error.transient)
            except Unreachable as error:
                # An association that is lost with one result may be that result's fault: the others go first.
                if self._connection.was_established:
                    self._failed(delivery, str(error), transient=True)
                else:
                    self._unreachable(str(error), error.wait)
                    break
            except (OSError, sqlite3.Error):
                raise
            except Exception as error:  # of pynetdicom, with what a peer has answered; the others go on
                self._connection.release()
                self._failed(delivery, f"{type(error).__name__}, {brief(error)}", transient=True)
            else:
                commit = self._connection.sent_as if self._commitment is not None else None
                self._deliveries.set_sent(delivery.result, name, remark, commit)
                self._audit.sent(delivery.subject, name, remark or "")
                self._failures = 0
                say(f"send: {name} has result {delivery.result}{f' ({remark})' if remark else ''}")
            self._last = time.monotonic()
        return True

    def _due(self) -> list[Delivery]:
        """Return what is to be sent now; nothing during a pause.

        A pause ends at once when somebody asks for it.
        """
        hurried = self._deliveries.hurried(self._destination.name)
        if hurried != self._hurried:
            self._hurried, self._not_before = hurried, 0.0
        paused = time.monotonic() < self._not_before
        return [] if paused else self._deliveries.due(self._destination.name, _AT_ONCE)

    def _failed(self, delivery: Delivery, error: str, transient: bool) -> None:
        name = self._destination.name
        given_up = not transient or time.time() - delivery.begun > self._give_up
        self._deliveries.set_failed(delivery.result, name, error, None if given_up else pause(delivery.tries))
        self._audit.failed(delivery.subject, name, error, given_up)
        say(f"send: {name} does not take result {delivery.result}: {error}{'; it is given up' if given_up else ''}")

    def _unreachable(self, error: str, retry_after: float | None) -> None:
        name, wait = self._destination.name, pause(self._failures)
        if retry_after is not None:
            wait = min(max(wait, retry_after), LONGEST_PAUSE)
        if not self._failures:
            self._audit.unreachable(name, error)
            say(f"send: {name} cannot be reached: {error}")
        self._failures += 1
        self._not_before = time.monotonic() + wait
        given_up = self._deliveries.set_unreachable(name, error, wait, self._give_up)
        if given_up:
            self._audit.unreachable(name, error, given_up)
            say(f"send: {given_up} results for {name} are given up: `edgecxr node retry` sends them again")


def pause(failures: int) -> float:
    """Return the seconds until the next attempt.

    Args:
        failures: number of failures before this one.
    """
    return min(LONGEST_PAUSE / 1.25, _FIRST_PAUSE * 2 ** min(failures, 20)) * random.uniform(1, 1.25)
