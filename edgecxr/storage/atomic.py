"""Atomic writing of files: whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from edgecxr.errors import UsageError
from edgecxr.storage.unfinished import new_file

_T = TypeVar("_T")

ELSEWHERE = "set EDGECXR_RUNS to another place"
"""Default remedy in the error about a file that cannot be written."""


def atomic_write(path: Path, data: bytes | bytearray | memoryview | str, remedy: str = ELSEWHERE) -> None:
    """Write a file atomically.

    Whatever happens, `path` holds either all of the new content or the old. Of several writers the last one wins.

    Args:
        path: the file; its folder is created if missing.
        data: text is written as UTF-8.
        remedy: what the error tells the user to do.

    Raises:
        UsageError: the file cannot be written.
    """
    path = Path(path)
    _write(path, data, remedy, lambda building: building.replace(path))


def write_new(path: Path, data: bytes | bytearray | memoryview | str, remedy: str = ELSEWHERE) -> bool:
    """Write a file atomically, unless there is one of its name.

    Of several writers the first one wins; not on file systems without hard links, such as those of USB sticks.
    Arguments and errors are those of `atomic_write`.

    Returns:
        Whether it was written.
    """

    def place(building: Path) -> bool:
        try:
            os.link(building, path)
        except OSError:
            if os.path.lexists(path):
                building.unlink()
                return False
            building.replace(path)
        else:
            building.unlink()
        return True

    path = Path(path)
    return _write(path, data, remedy, place)


def _write(path: Path, data: bytes | bytearray | memoryview | str, remedy: str, place: Callable[[Path], _T]) -> _T:
    """Write a file beside `path`, and return what `place` returns of it."""
    with writing(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        building, file = new_file(path.parent)
        with file:
            try:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
                placed = place(building)
            except BaseException:
                building.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
    return placed


def check_folder(folder: Path, remedy: str = ELSEWHERE) -> None:
    """Check that files can be written to a folder, made if missing.

    Args:
        folder: the folder.
        remedy: what the error tells the user to do.

    Raises:
        UsageError: it cannot be made or written.
    """
    with writing(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        building, file = new_file(folder)
        file.close()
        building.unlink()


@contextmanager
def writing(path: Path, remedy: str = ELSEWHERE) -> Iterator[None]:
    """Turn an `OSError` of the block into a `UsageError`.

    The error names `path`, the cause and the remedy.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there and type the same command again" if full else remedy
        raise UsageError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk."""
    # Some network file systems refuse to sync a folder, and there is no alternative.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
