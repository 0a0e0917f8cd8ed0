"""Results and films that the node's tests share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def result(uid: str, kind: str) -> Any:
    """Return a result as `edgecxr.infer.dicom.objects` makes them, whose content is its UID."""
    return SimpleNamespace(uid=uid, kind=kind, sop_class="1.2.840.10008.5.1.4.1.1.7", content=uid.encode())
