"""Events of a node, written to its audit trail."""

from __future__ import annotations

import os
import pwd
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from edgecxr.errors import UsageError, brief
from edgecxr.node.audit.audit_messages import (
    MAJOR,
    MINOR,
    SERIOUS,
    SUCCESS,
    message,
    participant,
    patient,
    resource,
    study,
)
from edgecxr.node.audit.audit_trail import AuditTrail
from edgecxr.node.node_config import NodeConfig
from edgecxr.terminal import say

WINDOW = 60.0
"""Seconds in which further refusals for the same cause are counted only, since a stranger can cause any number."""

_MOST_STRANGERS = 200


@dataclass(frozen=True)
class Source:
    """Where a film comes from.

    Attributes:
        name: AE title, account or folder.
        address: IP address; None for a folder.
    """

    name: str
    address: str | None = None

    def __str__(self) -> str:
        return f"{self.name} at {self.address}" if self.address else f"folder {self.name}"


@dataclass(frozen=True)
class Subject:
    """The object that an event is about.

    Attributes:
        uid: its SOP instance UID.
        sop_class: its SOP class UID.
        study: its study instance UID; "" if it has none.
        film: SOP instance UID of the film of which it is a result; None if it is a film.
        patient: PatientID; "" if it is unknown. It is written only where `phi` allows it.
    """

    uid: str
    sop_class: str
    study: str
    film: str | None = None
    patient: str = ""


@dataclass
class _Refusals:
    began: float
    count: int = 0


@dataclass
class Audit:
    """The audit trail as one process and its threads write it.

    If the trail cannot be written, the node goes on; the number of events that are missing is written later.

    Attributes:
        config: the node's.
        process: what writes: "receive", "stow", "infer", "send", "web", "supervisor" or "command".
    """

    config: NodeConfig
    process: str
    _refusals: dict[tuple[str, str, str, str], _Refusals] = field(default_factory=dict)
    _lost: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def started(self) -> None:
        """Note that this process has started."""
        self._write("started", [self._self(requestor=True)])

    def stopped(self) -> None:
        """Note that this process stops as it was told to."""
        self.write_counts()
        self._write("stopped", [self._self(requestor=True)])

    def ended(self, process: str, how: str) -> None:
        """Note that another process has ended, or was killed."""
        ended = participant(f"edgecxr {process}", requestor=False, role="application")
        self._write("stopped", [self._self(requestor=True), ended], outcome=SERIOUS, description=f"{process} {how}")

    def received(self, film: Subject, source: Source, new: bool) -> None:
        """Note that a film is in the spool.

        Args:
            film: the film.
            source: where it comes from.
            new: whether it was not there before.
        """
        sender = participant(source.name, requestor=True, role="source", address=source.address)
        here = self._self(requestor=False, role="destination")
        self._write("film-received" if new else "film-received-again", [sender, here], film)

    def refused(self, source: Source, why: str) -> None:
        """Note that an association was refused.

        Args:
            source: who asked for it.
            why: the cause, in words.
        """
        self._count("association-refused", source.name, source.address or "", why)

    def login_too_early(self, address: str) -> None:
        """Note that a login was refused, and its password not looked at.

        Args:
            address: where from.
        """
        self._count("login", "unknown", address, "it came too early after failures")

    def _count(self, kind: str, name: str, address: str, why: str) -> None:
        """Write the first refusal of a stranger, and count the further ones."""
        key, now = (kind, name, address, why), time.monotonic()
        with self._lock:
            if key not in self._refusals and len(self._refusals) >= _MOST_STRANGERS:
                key = (kind, "", "", "many others were refused")
            refusals = self._refusals.setdefault(key, _Refusals(now))
            refusals.count += 1
            if refusals.count > 1:
                return
        self._refused(*key, 1)

    def write_counts(self, now: float | None = None) -> None:
        """Write how many further associations and logins were refused.

        To be called now and then, and at the end.

        Args:
            now: seconds of `time.monotonic`; those counted less than `WINDOW` seconds before stay. None: none stays.
        """
        with self._lock:
            over = {key: each for key, each in self._refusals.items() if now is None or now - each.began > WINDOW}
            for key in over:
                del self._refusals[key]
        for key, refusals in over.items():
            if refusals.count > 1:
                self._refused(*key, refusals.count - 1)

    def _refused(self, kind: str, name: str, address: str, why: str, count: int) -> None:
        stranger = participant(name, requestor=True, role="source", address=address)
        more = f" ({count} times more)" if count > 1 else ""
        self._write(kind, [stranger, self._self(requestor=False)], None, MINOR, why + more)

    def read(self, film: Subject, remark: str = "") -> None:
        """Note that the model has read a film, and results were made.

        Args:
            film: the film.
            remark: why a result is lacking.
        """
        self._write("film-read", [self._self(requestor=True)], film, MINOR if remark else SUCCESS, remark)

    def without_result(self, film: Subject, state: str, reason: str) -> None:
        """Note that a film gets no result.

        Args:
            film: the film.
            state: "refused" or "rejected".
            reason: the code.
        """
        self._write(f"film-{state}", [self._self(requestor=True)], film, MINOR, reason)

    def sent(self, result: Subject, destination: str, remark: str = "") -> None:
        """Note that a destination has a result.

        Args:
            result: the result.
            destination: name of the destination.
            remark: what it answers beside.
        """
        self._write("result-sent", self._way(destination), result, SUCCESS, remark)

    def committed(self, result: Subject, destination: str) -> None:
        """Note that a destination has committed itself to keep a result."""
        self._write("result-committed", self._way(destination), result)

    def failed(self, result: Subject, destination: str, error: str, given_up: bool) -> None:
        """Note that a destination does not take a result.

        Args:
            result: the result.
            destination: name of the destination.
            error: why, in words.
            given_up: whether it is not tried again.
        """
        kind = "result-given-up" if given_up else "result-failed"
        self._write(kind, self._way(destination), result, SERIOUS if given_up else MINOR, error)

    def unreachable(self, destination: str, error: str, given_up: int = 0) -> None:
        """Note that a destination cannot be reached.

        Args:
            destination: name of the destination.
            error: why, in words.
            given_up: number of results that are not tried again.
        """
        if given_up:
            error = f"{given_up} results are given up: {error}"
        outcome = SERIOUS if given_up else MINOR
        self._write("destination-unreachable", self._way(destination), None, outcome, error)

    def retried(self, count: int, destination: str | None, user: str | None = None, address: str | None = None) -> None:
        """Note that somebody has results sent again.

        Args:
            count: number of results.
            destination: name of the destination; None for all.
            user: who, of the web page; None is who runs this process.
            address: where from.
        """
        way = [self._user(user, address), *(self._way(destination) if destination else [self._self(requestor=False)])]
        for other in way[1:]:
            other["UserIsRequestor"] = False
        self._write("retried", way, None, SUCCESS, f"{count} results")

    def login(self, user: str, address: str, succeeded: bool) -> None:
        """Note that somebody has logged in, or has tried to."""
        here = self._self(requestor=False)
        self._write("login", [self._user(user, address), here], None, SUCCESS if succeeded else MINOR)

    def logout(self, user: str, address: str) -> None:
        """Note that somebody has logged out."""
        self._write("logout", [self._user(user, address), self._self(requestor=False)])

    def looked_at(self, film: Subject, user: str, address: str) -> None:
        """Note that somebody has looked at a film on the web page."""
        self._write("film-looked-at", [self._user(user, address), self._self(requestor=False)], film)

    def user_changed(self, changed: str, description: str, user: str | None = None, address: str | None = None) -> None:
        """Note that an account of the web page was changed.

        Args:
            changed: name of the account.
            description: what was changed, in words; never a password.
            user: who has changed it; None is who runs this process.
            address: where from.
        """
        account = participant(changed, requestor=False)
        self._write("user-changed", [self._user(user, address), account], None, SUCCESS, description)

    def trail_read(self, user: str | None = None, address: str | None = None) -> None:
        """Note that somebody reads the audit trail.

        Args:
            user: who, of the web page; None is who runs this process.
            address: where from.
        """
        uri = (AuditTrail(self.config.folder).folder).absolute().as_uri()
        self._write("trail-read", [self._user(user, address)], objects=[resource("Security Audit Log", uri)])

    def _self(self, requestor: bool, role: str = "application") -> dict[str, Any]:
        return participant(
            self.config.ae_title, requestor=requestor, role=role, name=f"edgecxr {self.process}, process {os.getpid()}"
        )

    def _user(self, user: str | None, address: str | None) -> dict[str, Any]:
        if user is None:
            by = os.environ.get("SUDO_USER")
            return participant(_account(), requestor=True, name=f"for {by}" if by else None)
        return participant(user, requestor=True, address=address)

    def _way(self, destination: str) -> list[dict[str, Any]]:
        to = next((each for each in self.config.destination if each.name == destination), None)
        there = participant(
            (to.ae_title or to.url or destination) if to else destination,
            requestor=False,
            role="destination",
            address=(to.host or to.split_url.hostname) if to else None,
            name=destination,
        )
        return [self._self(requestor=True, role="source"), there]

    def _write(
        self,
        kind: str,
        participants: list[dict[str, Any]],
        subject: Subject | None = None,
        outcome: str = SUCCESS,
        description: str = "",
        objects: list[dict[str, Any]] | None = None,
    ) -> None:
        objects = list(objects or ())
        if subject is not None:
            objects.append(study(subject.study, subject.sop_class, subject.uid, subject.film))
            if subject.patient and self.config.phi:
                objects.append(patient(subject.patient))
        entry = message(kind, self.config.ae_title, participants, objects, outcome, description)
        with self._lock:
            self._append(entry)

    def _append(self, entry: dict[str, Any]) -> None:
        trail = AuditTrail(self.config.folder)
        try:
            if self._lost:
                amiss = f"{self._lost} events of {self.process} are missing, since the trail could not be written"
                trail.append(self._about_the_trail("trail-went-on", amiss, SERIOUS), self._notice)
                say(f"{self.process}: the audit trail can be written again; {self._lost} events are missing in it")
                self._lost = 0
            amiss = trail.append(entry, self._notice)
            if amiss:
                say(f"{self.process}: the audit trail goes on, but {amiss}")
        except (OSError, UsageError) as error:
            if not self._lost:
                say(f"{self.process}: the audit trail cannot be written: {brief(error)}")
            self._lost += 1

    def _notice(self, amiss: str, broken: bool) -> dict[str, Any]:
        return self._about_the_trail("trail-broken" if broken else "trail-torn", amiss, MAJOR if broken else MINOR)

    def _about_the_trail(self, kind: str, description: str, outcome: str) -> dict[str, Any]:
        return message(kind, self.config.ae_title, [self._self(requestor=True)], (), outcome, description)


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without an entry, as in a container
        return f"uid {os.getuid()}"
