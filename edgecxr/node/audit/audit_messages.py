"""Audit messages in the vocabulary of DICOM PS3.15, A.5.

Names and codes are those of its XML schema; here they are JSON. A second EventTypeCode, of edgecxr's own, says which
event of a node it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

SUCCESS, MINOR, SERIOUS, MAJOR = "0", "4", "8", "12"
"""Values of EventOutcomeIndicator; the last one means that the process is not available any more."""

OWN = "99EDGECXR"
"""Coding scheme of the EventTypeCodes of `KINDS`."""

_LONGEST = 400  # characters of a text


@dataclass(frozen=True)
class Kind:
    """A kind of event.

    Attributes:
        event: code and meaning of its EventID.
        action: its EventActionCode: create, read, update, delete, execute.
        type: code and meaning of its EventTypeCode, where DICOM has one.
    """

    event: tuple[str, str]
    action: str
    type: tuple[str, str] | None = None


_ACTIVITY = ("110100", "Application Activity")
_USED = ("110101", "Audit Log Used")
_BEGIN = ("110102", "Begin Transferring DICOM Instances")
_ACCESSED = ("110103", "DICOM Instances Accessed")
_TRANSFERRED = ("110104", "DICOM Instances Transferred")
_ALERT = ("110113", "Security Alert")
_AUTHENTICATION = ("110114", "User Authentication")

KINDS = {
    "started": Kind(_ACTIVITY, "E", ("110120", "Application Start")),
    "stopped": Kind(_ACTIVITY, "E", ("110121", "Application Stop")),
    "film-received": Kind(_TRANSFERRED, "C"),
    "film-received-again": Kind(_TRANSFERRED, "R"),
    "association-refused": Kind(_ALERT, "E", ("110126", "Node Authentication")),
    "film-read": Kind(_ACCESSED, "R"),
    "film-refused": Kind(_ACCESSED, "R"),
    "film-rejected": Kind(_ACCESSED, "R"),
    "result-sent": Kind(_TRANSFERRED, "C"),
    "result-failed": Kind(_TRANSFERRED, "C"),
    "result-given-up": Kind(_TRANSFERRED, "C"),
    "result-committed": Kind(_TRANSFERRED, "R"),
    "destination-unreachable": Kind(_TRANSFERRED, "C"),
    "retried": Kind(_BEGIN, "E"),
    "login": Kind(_AUTHENTICATION, "E", ("110122", "Login")),
    "logout": Kind(_AUTHENTICATION, "E", ("110123", "Logout")),
    "film-looked-at": Kind(_ACCESSED, "R"),
    "user-changed": Kind(_ALERT, "E", ("110137", "User Security Attributes Changed")),
    "trail-read": Kind(_USED, "R"),
    "trail-torn": Kind(_ALERT, "E", ("110134", "Audit Recording Started")),
    "trail-broken": Kind(_ALERT, "E", ("110134", "Audit Recording Started")),
    "trail-went-on": Kind(_ALERT, "E", ("110134", "Audit Recording Started")),
}
"""Events of a node: names of their own EventTypeCodes -> kind."""

_ROLES = {
    "application": ("110150", "Application"), "launcher": ("110151", "Application Launcher"),
    "destination": ("110152", "Destination Role ID"), "source": ("110153", "Source Role ID"),
}  # fmt: skip


def message(
    kind: str,
    source: str,
    participants: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]] = (),
    outcome: str = SUCCESS,
    description: str = "",
) -> dict[str, Any]:
    """Return an audit message of now.

    Args:
        kind: a key of `KINDS`.
        source: what audits: AuditSourceID.
        participants: each as `participant` makes it.
        objects: what it is about, each as `study`, `patient` or `resource` makes it.
        outcome: `SUCCESS`, `MINOR`, `SERIOUS` or `MAJOR`.
        description: of the outcome, in words.
    """
    of = KINDS[kind]
    event: dict[str, Any] = {
        "EventID": _code(*of.event),
        "EventActionCode": of.action,
        "EventDateTime": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": outcome,
        "EventTypeCode": [*([_code(*of.type)] if of.type else []), _code(kind, kind.replace("-", " "), OWN)],
    }
    if description:
        event["EventOutcomeDescription"] = _cut(description)
    entry = {
        "EventIdentification": event,
        "ActiveParticipant": list(participants),
        "AuditSourceIdentification": {
            "AuditSourceID": source,
            "AuditSourceTypeCode": {"csd-code": "4", "originalText": "Application Server"},
        },
    }
    return {**entry, "ParticipantObjectIdentification": list(objects)} if objects else entry


def participant(
    user: str, *, requestor: bool, role: str | None = None, address: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """Return an active participant.

    Args:
        user: AE title, name of an account or a process: UserID.
        requestor: whether it has started the event.
        role: a key of `_ROLES`.
        address: its IP address or name in the network.
        name: more about it: UserName.
    """
    fields: dict[str, Any] = {"UserID": _cut(user), "UserIsRequestor": requestor}
    if name:
        fields["UserName"] = _cut(name)
    if role:
        fields["RoleIDCode"] = [_code(*_ROLES[role])]
    if address:
        is_number = ":" in address or address.replace(".", "").isdigit()
        fields |= {"NetworkAccessPointID": _cut(address), "NetworkAccessPointTypeCode": "2" if is_number else "1"}
    return fields


def study(uid: str, sop_class: str, instance: str, film: str | None = None) -> dict[str, Any]:
    """Return the study of an object, with the object.

    Args:
        uid: study instance UID; "" if the object has none.
        sop_class: of the object.
        instance: SOP instance UID of the object.
        film: SOP instance UID of the film of which it is a result.
    """
    fields: dict[str, Any] = {
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "3",
        "ParticipantObjectIDTypeCode": _code("110180", "Study Instance UID"),
        "ParticipantObjectID": _cut(uid),
        "SOPClass": [{"UID": _cut(sop_class), "NumberOfInstances": 1, "Instance": [{"UID": _cut(instance)}]}],
    }
    if film is not None:
        fields["ParticipantObjectDetail"] = [{"type": "film", "value": _cut(film)}]
    return fields


def patient(number: str) -> dict[str, Any]:
    """Return a patient, by the PatientID."""
    return {
        "ParticipantObjectTypeCode": "1",
        "ParticipantObjectTypeCodeRole": "1",
        "ParticipantObjectIDTypeCode": {
            "csd-code": "2",
            "codeSystemName": "RFC-3881",
            "originalText": "Patient Number",
        },
        "ParticipantObjectID": _cut(number),
    }


def resource(name: str, uri: str) -> dict[str, Any]:
    """Return something of the node's own, such as the audit trail itself."""
    return {
        "ParticipantObjectTypeCode": "2",
        "ParticipantObjectTypeCodeRole": "13",
        "ParticipantObjectIDTypeCode": {"csd-code": "12", "codeSystemName": "RFC-3881", "originalText": "URI"},
        "ParticipantObjectID": _cut(uri),
        "ParticipantObjectName": name,
    }


def _code(value: str, meaning: str, system: str = "DCM") -> dict[str, str]:
    return {"csd-code": value, "codeSystemName": system, "originalText": meaning}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
