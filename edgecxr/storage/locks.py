"""Locks between processes.

The system releases a lock when its process ends, even by kill -9.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edgecxr.errors import UsageError
from edgecxr.storage.unfinished import refuse_others

# A cluster's file system may lack locks; running one command at a time still works there.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_HOLDER = re.compile(r"process \d+ on [\w.-]+", re.ASCII)


@contextmanager
def locked(path: Path, doing: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`, creating it first and removing it afterwards.

    Args:
        path: in a folder that exists.
        doing: what the lock stands for and what the user can do, such as "is writing x: wait for it"; the error of a
            second process contains it. None makes a second process wait.

    Raises:
        UsageError: another process holds the lock.
        OSError: the file cannot be created.
    """
    with open_locked(path, doing) as file:
        with suppress(OSError):  # the holder's name only improves an error message
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())  # as `_HOLDER`
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def locked_folder(path: Path, doing: str) -> Iterator[None]:
    """Hold a lock on a folder itself, into which nothing is written.

    Where a file system has no such locks, as some of networks, nothing is held.

    Args:
        path: the folder.
        doing: continues "another process", as for `locked`.

    Raises:
        UsageError: another process holds the lock.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process {doing}") from error
        except OSError as error:
            if error.errno not in (*_NO_LOCKS, errno.EBADF):
                raise
        yield
    finally:
        os.close(descriptor)


def open_locked(path: Path, doing: str | None = None) -> IO[bytes]:
    """Open a file for reading and writing, locked until it is closed.

    The file is created if missing, and never emptied. One that is not this user's alone is refused. The holder of the
    lock may rename or remove the file. Arguments and errors are those of `locked`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            refuse_others(os.fstat(file.fileno()))
        except OSError:
            file.close()
            raise
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if doing else 0))
        except BlockingIOError as error:
            with file:
                note = file.read(200).decode(errors="replace")
            # The file may be the very one that is written, whose first bytes are its content.
            holder = note if _HOLDER.fullmatch(note) else "another process"
            raise UsageError(f"{holder} {doing}") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
        # The file may have been renamed or removed during the wait, which makes this lock useless.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
