"""What C libraries write to standard error, as lines."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Capture what libraries write to standard error from C.

    The list holds the lines once the block has ended.
    """
    lines: list[str] = []
    # Without the lock a second thread would restore the first one's file as standard error.
    with _ONE_AT_A_TIME, os.fdopen(os.memfd_create("messages"), "w+b") as file:
        try:
            saved = os.dup(2)
        except OSError:  # a daemon without standard error
            yield lines
            return
        try:
            os.dup2(file.fileno(), 2)
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += [line.decode(errors="replace").strip() for line in file.readlines(1 << 16)]
