"""Unfinished files and folders, under names that nobody can guess.

They are new, and this user's. Where others may write, too, a known name may be taken already: by a link to somebody's
file, or by a file that stays theirs. A process holds a lock on what it has not finished; what is not locked was left by
a kill, and is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edgecxr.storage.walk import remove_tree

_NAME = re.compile(r"\.edgecxr-[0-9a-f]{16}\.tmp")

_swept: set[tuple[int, Path]] = set()  # process id and folder: what is left by kills is looked for once


def is_unfinished(name: str) -> bool:
    """Return whether a file or folder of this name is unfinished."""
    return _NAME.fullmatch(name) is not None


def new_file(folder: Path) -> tuple[Path, IO[bytes]]:
    """Make a file in a folder, and open it for writing.

    It is the caller's to rename or remove.

    Raises:
        OSError: it cannot be made.
    """
    sweep(folder)
    while True:
        path = folder / _new_name()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _held(descriptor):
            return path, os.fdopen(descriptor, "wb")
        os.close(descriptor)


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Provide a new folder, removed afterwards unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    sweep(parent)
    while True:
        path = parent / _new_name()
        path.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if _held(descriptor):
                break
            os.close(descriptor)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(descriptor)


def _new_name() -> str:
    return f".edgecxr-{secrets.token_hex(8)}.tmp"


def _held(descriptor: int) -> bool:
    """Lock a new file; False if it was taken for left over."""
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def sweep(folder: Path) -> None:
    """Remove what killed processes of this user have left in a folder."""
    key = (os.getpid(), folder.absolute())
    if key in _swept:
        return
    _swept.add(key)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_unfinished(entry.name):
                with suppress(OSError):
                    _remove_if_left(folder / entry.name)


def _remove_if_left(path: Path) -> None:
    """Remove a file or folder that no process holds.

    Raises:
        OSError: it is held, or cannot be removed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(state.st_mode):
            remove_tree(path)
        elif stat.S_ISREG(state.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


def refuse_others(state: os.stat_result) -> None:
    """Refuse to write into a file that is not this user's alone.

    Raises:
        OSError: it is no file, belongs to another user, or has a second name.
    """
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EPERM, "there is something else than a file")
    if state.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "the file belongs to another user")
    if state.st_nlink > 1:
        raise OSError(errno.EPERM, "the file has a second name")
