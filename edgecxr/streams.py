"""Standard streams that lose no result in silence."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING

from edgecxr.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Results(io.FileIO):
    """Standard output, which says clearly that it cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            problem = f"the result cannot be written to standard output ({error.strerror})"
            raise UsageError(f"{problem}: give it another place, with > FILE") from error


def open_streams() -> None:
    """Replace the standard streams by such as lose no result.

    Python gives a program whose standard output is closed none at all, and prints into the void; the next file that
    is opened would even become its standard output. What a test or another program has put in place is kept.
    """
    while (last := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass  # closed streams: reading gives nothing, and writing fails
    os.close(last)
    if sys.stderr is None:  # messages would be printed among the results
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None or (sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper)):
        sys.stdout = _results(sys.stdout)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A result's path may contain characters that the terminal's encoding lacks: print them without failing.
        sys.stdout.reconfigure(errors="backslashreplace")


def _results(earlier: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Return standard output as `_Results`, with the same settings."""
    if earlier is None:
        return io.TextIOWrapper(io.BufferedWriter(_Results(os.open(os.devnull, os.O_RDONLY), "w")))
    earlier.flush()
    file = io.BufferedWriter(_Results(1, "w", closefd=False))
    # Without a buffer Python would lose what a nearly full disk does not take of a line.
    by_line = earlier.line_buffering or earlier.write_through
    return io.TextIOWrapper(file, earlier.encoding, line_buffering=by_line)


def flush_streams() -> None:
    """Write what the standard streams hold, or discard it.

    Python would try again when it ends, and fail with an exit code of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, UsageError):
            _to_nowhere(stream.fileno())


def reader_gone() -> bool:
    """Return whether the reader of this program's output, such as `head`, ended.

    If so, further output is discarded.
    """
    gone = False
    for descriptor in (1, 2):
        watch = select.poll()
        watch.register(descriptor, 0)  # POLLERR is always reported
        if any(event & select.POLLERR for _, event in watch.poll(0)):
            # Python flushes its buffers again at exit: let them go to /dev/null.
            _to_nowhere(descriptor)
            gone = True
    return gone


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
