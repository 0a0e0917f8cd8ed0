"""Files that only this user can have written, such as keys.

Other users may have put something else in their place: a link, a pipe, a file of theirs.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgecxr.errors import UsageError


def state_folder() -> Path:
    """Return the folder of what edgecxr keeps for this user.

    It is EDGECXR_STATE, or else the one of the XDG Base Directory Specification. It may not exist.
    """
    state = os.environ.get("EDGECXR_STATE")
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path(state) if state else Path(home) / "edgecxr"


def read_private(path: Path, size: int) -> bytes | None:
    """Return the content of a file that is this user's alone.

    Args:
        path: of the file.
        size: its number of bytes.

    Returns:
        None if there is no such file.

    Raises:
        UsageError: it, or its folder, is in others' reach, or it is no file of this size.
        OSError: it cannot be read.
    """
    try:
        with _folder(path.parent) as folder:
            # A link is not followed, and opening a pipe does not wait.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            descriptor = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise _refusal(path, "is a link") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise _refusal(path, "is no file")
        if state.st_uid != os.geteuid():
            raise _refusal(path, "belongs to another user")
        if state.st_mode & 0o077:
            raise _refusal(path, "is open to other users")
        content = file.read(size + 1)
    if len(content) != size:
        raise _refusal(path, "has another size")
    return content


def create_private(path: Path, content: bytes) -> bool:
    """Write a new file that only this user can read.

    It appears whole or not at all, and replaces nothing.

    Args:
        path: of the file; its folder is created if missing.
        content: its bytes.

    Returns:
        False if there is a file already, such as that of another process.

    Raises:
        UsageError: others can write to its folder.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    building = f".{path.name}.{secrets.token_hex(8)}.tmp"
    with _folder(path.parent) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(building, flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.link(building, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except FileExistsError:
                return False
            finally:
                os.unlink(building, dir_fd=folder)
    return True


def own_folder(path: Path, remedy: str) -> None:
    """Make a folder for this user alone, or check that one is.

    Args:
        path: of the folder; its parent is created if missing.
        remedy: what the error tells the user to do.

    Raises:
        UsageError: there is something that another user has made, or can write to.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    state = path.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise UsageError(f"{path} may have been made by another user, and is not trusted: {remedy}")


def check_private(folder: Path) -> None:
    """Raise UsageError if others can write to a folder.

    Raises:
        OSError: it cannot be opened.
    """
    with _folder(folder):
        pass


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """Provide a folder's descriptor, after checking who can write to it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if state.st_uid not in (0, os.geteuid()):
            raise UsageError(f"{path} belongs to another user, and is not trusted: {_ELSEWHERE}")
        if state.st_mode & 0o022:
            raise UsageError(f"{path} can be written by other users: `chmod go-w {path}`, or {_ELSEWHERE}")
        yield descriptor
    finally:
        os.close(descriptor)


_ELSEWHERE = "set EDGECXR_STATE to a folder of your own"


def _refusal(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} {why}, and is not trusted: remove it, or {_ELSEWHERE}; then build engines again with `edgecxr build`"
    )
