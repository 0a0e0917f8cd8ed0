"""Folders of artefacts, such as bundles: made, replaced and read atomically."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from edgecxr.errors import EdgeCxrError, UsageError
from edgecxr.storage.atomic import sync_folder, writing
from edgecxr.storage.locks import locked
from edgecxr.storage.unfinished import new_folder
from edgecxr.storage.walk import remove_tree, walk

CARD = "card.json"
CONFIG = "config.json"
DATASET = "dataset.json"
"""Marks a prepared data set as made by edgecxr, as the card does for a run or a bundle."""

_REPLACING = 2.0
"""Seconds for which a folder may be absent while it is replaced; a killed process leaves it absent for ever."""

_T = TypeVar("_T")


@contextmanager
def atomic_folder(dest: Path) -> Iterator[Path]:
    """Provide a new folder that replaces `dest` when the block succeeds.

    If the block fails, the new folder is deleted.

    Args:
        dest: the folder to make; an existing one is replaced as a whole.

    Raises:
        UsageError: `dest` cannot be written, is not an artefact of edgecxr, or is being written by another process.
    """
    dest = Path(dest).resolve()
    with sole_writer(dest):
        refuse_foreign(dest)
        with new_folder(dest.parent) as building:
            yield building
            replace_folder(building, dest)


@contextmanager
def sole_writer(dest: Path) -> Iterator[None]:
    """Keep other processes from making the folder `dest`.

    Its parent is created if missing.

    Raises:
        UsageError: another process is making it, or the parent cannot be written.
    """
    with writing(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with locked(dest.with_name(f".{dest.name}.lock"), f"is writing {dest}: wait for it, or end it"):
            yield


def replace_folder(new: Path, dest: Path) -> None:
    """Move the finished folder `new` to `dest`, deleting the old contents.

    Both must be on the same disk, and the caller must be the `sole_writer`.

    Raises:
        UsageError: `dest` cannot be written, or is not an artefact of edgecxr.
    """
    refuse_foreign(dest)
    with writing(dest):
        for folder, names in walk(new):
            for name in names:
                with (Path(folder) / name).open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(folder))
        if not dest.exists():
            new.rename(dest)
        elif not _exchange(new, dest):
            old = _aside(dest)
            dest.rename(old)
            try:
                new.rename(dest)
            except OSError:
                old.rename(dest)
                raise
            old.rename(new)
        sync_folder(dest.parent)
    remove_tree(new)


def refuse_foreign(dest: Path) -> None:
    """Raise UsageError if replacing `dest` would delete foreign files.

    Foreign files are those that edgecxr has not made. The caller must be the `sole_writer`. A replacement that was
    interrupted by a kill is undone first.

    Raises:
        UsageError: `dest` is a file, or a folder with contents but no card.json or dataset.json.
    """
    with writing(dest):
        aside = _aside(dest)
        if _is_own_folder(aside):  # left by a process killed during a replacement
            if dest.exists():
                remove_tree(aside)
            else:
                aside.rename(dest)
        if not dest.exists():
            return
        if not dest.is_dir():
            raise UsageError(f"{dest} is a file, where a folder is to be written: give another place")
        if any(dest.iterdir()) and not any((dest / name).exists() for name in (CARD, DATASET)):
            raise UsageError(f"{dest} holds files that edgecxr has not made: give an empty or a new folder")


def read_whole(folder: Path, read: Callable[[], _T]) -> _T:
    """Return the result of `read`, repeated if the folder was replaced meanwhile.

    Args:
        folder: made by `atomic_folder` or `replace_folder`.
        read: reads the files; raises an `EdgeCxrError` if files are missing or inconsistent.
    """
    until = time.monotonic() + _REPLACING
    while True:
        with _held(folder) as before:
            try:
                result = read()
            except EdgeCxrError:
                # Without an exchange in one step there is a moment with the old folder aside, and no new one.
                absent = before is None and os.path.exists(_aside(folder)) and time.monotonic() < until
                if _identity(folder) == before and not absent:
                    raise
            else:
                if _identity(folder) == before:
                    return result


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; return False if unsupported.

    Some file systems cannot do this.
    """
    import ctypes

    at_working_directory, exchange = -100, 2
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    return call is not None and call(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0


def _aside(dest: Path) -> Path:
    """Return the temporary path of a folder that is being replaced."""
    return dest.with_name(f".{dest.name}.old")


def _is_own_folder(folder: Path) -> bool:
    """Return whether a folder is there, and was made by this user."""
    with suppress(FileNotFoundError):
        state = folder.lstat()
        return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    return False


@contextmanager
def _held(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Provide the identity of a folder while holding it open.

    While it is open, no new folder can get the same inode number.
    """
    try:
        held = os.open(folder, os.O_PATH)
    except OSError:
        yield _identity(folder)
        return
    try:
        state = os.fstat(held)
        yield state.st_dev, state.st_ino
    finally:
        os.close(held)


def _identity(folder: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        state = folder.stat()
        return state.st_dev, state.st_ino
    return None
