"""Bounded reading of files that may come from strangers.

Nothing but a regular file is read, so that a pipe cannot block and a device cannot last for ever, and never more than a
limit. `json_values`, `arrays`, `archives` and `settings` read each kind of content on top of this.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


class BadFile(ValueError):
    """A file that is not what it should be.

    The message does not name it.
    """


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; the caller closes it.

    Raises:
        BadFile: there is something else at `path`, such as a folder, a pipe or a device.
        OSError: there is nothing, or it cannot be opened.
    """
    try:
        # Looked at before it is opened, since opening alone starts some devices, and after it: it may be exchanged.
        _refuse_other(path.stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except BadFile:
        raise
    except ValueError as error:  # a name with a zero byte, or one that cannot be encoded
        raise FileNotFoundError(2, "no file can have this name", str(path)) from error
    try:
        _refuse_other(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def size_of(file: BufferedReader) -> int:
    """Return the number of bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def read_bytes(path: Path, largest: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        largest: greatest number of bytes that is accepted.

    Raises:
        BadFile: it is larger, no regular file, or there is not enough memory for it.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        size = size_of(file)
        if size > largest:
            raise BadFile(f"it has {_amount(size)}, and such a file is no larger than {_amount(largest)}")
        try:
            content = file.read(size + 1)
        except MemoryError as error:
            raise BadFile(f"there is no memory for its {_amount(size)}") from error
    if len(content) != size:
        raise BadFile("it changes while it is read")
    return content


def read_text(path: Path, largest: int) -> str:
    """Return the content of a regular file in UTF-8.

    A byte order mark is left out. Arguments and errors are those of `read_bytes`.

    Raises:
        BadFile: it is not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from error


def _refuse_other(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise BadFile("it is a folder, not a file" if stat.S_ISDIR(state.st_mode) else "it is no regular file")


def _amount(count: int) -> str:
    """Return a number of bytes in words."""
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
