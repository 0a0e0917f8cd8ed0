"""Files to which lines are appended, each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edgecxr.storage.atomic import writing
from edgecxr.storage.locks import open_locked


class LineFile:
    """A file that this process alone appends to."""

    def __init__(self, path: Path, file: IO[bytes], remedy: str) -> None:
        self._path, self._file, self._remedy = path, file, remedy
        self._end = os.fstat(file.fileno()).st_size

    def read(self) -> bytes:
        """Return what the file holds."""
        self._file.seek(0)
        return self._file.read()

    def cut(self, end: int) -> None:
        """Remove what follows the first `end` bytes.

        Raises:
            UsageError: the file cannot be written.
        """
        with writing(self._path, self._remedy):
            os.ftruncate(self._file.fileno(), end)
        self._end = end

    def add(self, text: str) -> None:
        """Append one or several lines, whole or not at all.

        Raises:
            UsageError: they cannot be written.
        """
        data = text.encode()
        descriptor = self._file.fileno()
        with writing(self._path, self._remedy):
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], self._end + written)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, self._end)
                raise
        self._end += len(data)


@contextmanager
def appended(path: Path, remedy: str) -> Iterator[LineFile]:
    """Open a file to append lines to, for this process alone.

    The file and its folder are created if they do not exist.

    Args:
        path: the file.
        remedy: what an error tells the user to do, such as "give another with --csv".

    Raises:
        UsageError: the file cannot be opened, or another process appends to it.
    """
    with writing(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path, f"is writing to {path}: wait for it, or {remedy}")
    with file:
        yield LineFile(path, file, remedy)
