"""Locks between processes. The system releases a lock when its process ends, even by kill -9."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edgecxr.errors import UsageError

# A cluster's file system may be mounted without locks. One command at a time works there as anywhere.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


@contextmanager
def locked(path: Path, doing: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which is made for it and removed afterwards.

    Args:
        path: in a folder that exists.
        doing: what the lock stands for and what the user can do, such as "is writing x: wait for it"; a process that
            comes second is refused with it. None lets it wait.

    Raises:
        UsageError: another process holds the lock.
        OSError: the file cannot be made.
    """
    with open_locked(path, doing) as file:
        with suppress(OSError):  # who it is only helps the reader of the message
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def open_locked(path: Path, doing: str | None = None) -> IO[bytes]:
    """Open a file for reading and writing, locked until it is closed; it is made if need be, and never emptied.

    Whoever holds the lock may rename or remove the file. Arguments and errors are those of `locked`.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if doing else 0))
        except BlockingIOError as error:
            with file:
                holder = file.read(200).decode(errors="replace") or "another process"
            raise UsageError(f"{holder} {doing}") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
        # While this one waited, the file may have been renamed or removed: then the lock is on nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
