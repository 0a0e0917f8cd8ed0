"""Audit messages as XML, by the schema of DICOM PS3.15, A.5.1."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

from edgecxr.terminal import printable

_TEXTS = ("EventOutcomeDescription", "ParticipantObjectName")
"""Simple values that are elements and no attributes."""

_ORDER = (
    *("EventIdentification", "ActiveParticipant", "AuditSourceIdentification", "ParticipantObjectIdentification"),
    *("EventID", "EventTypeCode", "EventOutcomeDescription", "ParticipantObjectIDTypeCode", "ParticipantObjectName"),
    *("ParticipantObjectDetail", "SOPClass", "Instance"),
)
"""Elements in the order of the schema; those that are not named stand where they are."""

_BINARY = ("ParticipantObjectDetail", "value")
"""Element and attribute whose value is written in base 64."""


def to_xml(entry: dict[str, Any]) -> str:
    """Return an entry of the audit trail as an AuditMessage.

    Args:
        entry: as `edgecxr.node.audit.audit_messages.message` makes it; the chain's own fields are left out.
    """
    parts = {key: value for key, value in entry.items() if key in _ORDER}
    return ElementTree.tostring(_element("AuditMessage", parts), encoding="unicode")


def _element(name: str, values: dict[str, Any]) -> ElementTree.Element:
    element = ElementTree.Element(name)
    children = [(key, value) for key, value in values.items() if isinstance(value, (dict, list)) or key in _TEXTS]
    for key, value in values.items():
        if (key, value) not in children:
            element.set(key, _binary(value) if (name, key) == _BINARY else _text(value))
    for key, value in sorted(children, key=lambda child: _ORDER.index(child[0]) if child[0] in _ORDER else 0):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                element.append(_element(key, item))
            else:
                ElementTree.SubElement(element, key).text = _text(item)
    return element


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else printable(str(value))


def _binary(value: object) -> str:
    return base64.b64encode(str(value).encode("utf-8", "replace")).decode()
