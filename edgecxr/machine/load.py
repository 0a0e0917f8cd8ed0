"""What else this machine is doing."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from edgecxr.machine.system import text_of


class Others:
    """How many cores others kept busy while this was measured.

    Args:
        pids: of the processes whose work is this measurement's own, beside this process.
        root: "/", but for tests.
    """

    def __init__(self, pids: list[int], root: Path) -> None:
        self._pids, self._root = pids, root
        self._began = self._seconds()

    def busy(self) -> float | None:
        """Return it; None where the system does not tell."""
        now = self._seconds()
        if now is None or self._began is None:
            return None
        past, busy, own = (after - before for before, after in zip(self._began, now, strict=True))
        return max(0.0, round((busy - own) / past, 3)) if past else None

    def _seconds(self) -> tuple[float, float, float] | None:
        """Return the time, and for how many seconds all cores, and this measurement, have been at work."""
        tick = os.sysconf("SC_CLK_TCK")
        counts = re.match(r"cpu +([\d ]+)", text_of(self._root / "proc/stat"))
        if counts is None:
            return None
        user, nice, kernel, _, _, *others = map(int, counts[1].split())
        own = 0
        for pid in (*self._pids, os.getpid()):
            fields = text_of(self._root / f"proc/{pid}/stat").rpartition(")")[2].split()
            own += sum(map(int, fields[11:13])) if len(fields) > 13 else 0
        # Of the rest: interrupts, and what the machine around a virtual one took.
        return time.monotonic(), (user + nice + kernel + sum(others[:3])) / tick, own / tick
