"""UIDs of results, derived from what they stand for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from typing import Any

from pydicom.uid import UID


def uid_of(*parts: str) -> UID:
    """Return a UID that depends only on `parts` (PS3.5, B.2)."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def digest_of(stated: list[Any]) -> hashlib._Hash:
    """Return a digest of JSON values and data classes."""
    text = json.dumps(stated, sort_keys=True, default=_as_dict)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass"))


def _as_dict(value: Any) -> dict[str, Any]:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
