"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecxr.errors import UsageError
from edgecxr.storage.locks import open_locked

ELSEWHERE = "set EDGECXR_RUNS to another place"
"""What a user can do about a file that cannot be written, unless the caller knows better."""


def atomic_write(path: Path, data: bytes | bytearray | memoryview | str, remedy: str = ELSEWHERE) -> None:
    """Write a file so that, whatever happens, `path` holds either all of the new content or the old.

    Args:
        path: its folder is made if need be.
        data: text is written as UTF-8.
        remedy: what the error tells the user to do.

    Raises:
        UsageError: the file cannot be written.
    """
    path = Path(path)
    with writing(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for all writers: what a kill left is written over, and a process beside this one is waited for.
        building = path.with_name(f".{path.name}.tmp")
        with open_locked(building) as file:
            try:
                file.truncate()
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
                building.replace(path)
            except BaseException:
                building.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)


@contextmanager
def writing(path: Path, remedy: str = ELSEWHERE) -> Iterator[None]:
    """Turn an `OSError` of the block into a `UsageError` that names `path`, the cause and the remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there and type the same command again" if full else remedy
        raise UsageError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    # Some network file systems refuse to sync a folder; there is nothing better to do there.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
