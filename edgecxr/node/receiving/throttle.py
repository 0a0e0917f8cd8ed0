"""How often the log hears of one address."""

from __future__ import annotations

import threading
import time

EVERY = 600.0
"""Seconds between two lines about one key."""

MOST = 1000
"""Most keys that are heard of within that time, so that a flood from many addresses fills no log."""


class Throttle:
    """A gate that lets a key through once in ten minutes."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # the oldest first
        self._lock = threading.Lock()

    def allows(self, key: str) -> bool:
        """Return whether the log may hear of a key now."""
        with self._lock:
            now = time.monotonic()
            while self._last and now - next(iter(self._last.values())) > EVERY:
                del self._last[next(iter(self._last))]
            if key in self._last or len(self._last) >= MOST:
                return False
            self._last[key] = now
            return True
