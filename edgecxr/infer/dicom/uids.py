"""UIDs of results, derived from what they stand for."""

from __future__ import annotations

import hashlib

from pydicom.uid import UID


def uid_of(*parts: str) -> UID:
    """Return a UID that depends only on `parts` (PS3.5, B.2)."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
