"""CPU load by other processes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from edgecxr.machine.system import text_of


class OtherProcesses:
    """Number of cores that other processes keep busy during a measurement.

    Args:
        pids: processes whose work belongs to the measurement, besides this process.
        root: root of the file system, "/" except in tests.
    """

    def __init__(self, pids: list[int], root: Path) -> None:
        self._pids, self._root = pids, root
        self._began = self._seconds()

    def busy(self) -> float | None:
        """Return the mean number of busy cores since construction.

        None if the system does not tell.
        """
        now = self._seconds()
        if now is None or self._began is None:
            return None
        elapsed, busy, own = (after - before for before, after in zip(self._began, now, strict=True))
        return max(0.0, round((busy - own) / elapsed, 3)) if elapsed else None

    def _seconds(self) -> tuple[float, float, float] | None:
        """Return the clock and the CPU seconds used so far.

        Returns:
            Monotonic time, CPU seconds of all processes and CPU seconds of this measurement.
            None if the system does not tell.
        """
        tick = os.sysconf("SC_CLK_TCK")
        counts = re.match(r"cpu +([\d ]+)", text_of(self._root / "proc/stat"))
        if counts is None:
            return None
        user, nice, kernel, _, _, *rest = map(int, counts[1].split())
        own = 0
        for pid in (*self._pids, os.getpid()):
            fields = text_of(self._root / f"proc/{pid}/stat").rpartition(")")[2].split()
            own += sum(map(int, fields[11:13])) if len(fields) > 13 else 0
        # The first three of the rest are interrupts, soft interrupts and time that the hypervisor took.
        return time.monotonic(), (user + nice + kernel + sum(rest[:3])) / tick, own / tick
