"""Folders that are artefacts, such as a bundle: made as a whole, replaced as a whole, read as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from edgecxr.errors import EdgeCxrError, UsageError
from edgecxr.storage.atomic import sync_folder, writing
from edgecxr.storage.locks import locked

CARD = "card.json"
DATASET = "dataset.json"
"""By which the artefacts of edgecxr are told: a run or a bundle has a card, a prepared data set its own file."""

_T = TypeVar("_T")


@contextmanager
def atomic_folder(dest: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes the place of `dest` when the block ends well, and vanishes when it fails.

    Args:
        dest: the folder to make; one that is there is replaced as a whole.

    Raises:
        UsageError: `dest` cannot be written, is something else than an artefact of edgecxr, or is being written by
            another process.
    """
    dest = Path(dest).resolve()
    with sole_writer(dest):
        refuse_foreign(dest)
        building = dest.with_name(f".{dest.name}.tmp")
        _remove(building)  # a kill left it
        building.mkdir()
        try:
            yield building
            replace_folder(building, dest)
        finally:
            shutil.rmtree(building, ignore_errors=True)


@contextmanager
def sole_writer(dest: Path) -> Iterator[None]:
    """Keep other processes from making the folder `dest`; its parent is made if need be.

    Raises:
        UsageError: another process is making it, or the parent cannot be written.
    """
    with writing(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        with locked(dest.with_name(f".{dest.name}.lock"), f"is writing {dest}: wait for it, or end it"):
            yield


def replace_folder(new: Path, dest: Path) -> None:
    """Move the finished folder `new` to `dest`, on the same disk, as the `sole_writer`; what was at `dest` goes.

    Raises:
        UsageError: `dest` cannot be written, or is something else than an artefact of edgecxr.
    """
    refuse_foreign(dest)
    with writing(dest):
        for folder, _, names in os.walk(new):
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
    shutil.rmtree(new, ignore_errors=True)


def refuse_foreign(dest: Path) -> None:
    """Raise where replacing `dest` would delete something that edgecxr has not made; for the `sole_writer`.

    Raises:
        UsageError: `dest` is a file, or a folder with contents but no card.json or dataset.json.
    """
    with writing(dest):
        aside = _aside(dest)
        if aside.is_dir() and not dest.exists():
            aside.rename(dest)  # a kill between the renames of a replacement left it there
        _remove(aside)
        if not dest.exists():
            return
        if not dest.is_dir():
            raise UsageError(f"{dest} is a file, where a folder is to be written: give another place")
        if any(dest.iterdir()) and not any((dest / name).exists() for name in (CARD, DATASET)):
            raise UsageError(f"{dest} holds files that edgecxr has not made: give an empty or a new folder")


def read_whole(folder: Path, read: Callable[[], _T]) -> _T:
    """Return what `read` gets from the files of `folder`, read again if another process replaced the folder meanwhile.

    Args:
        folder: made by `atomic_folder` or `replace_folder`.
        read: raises an `EdgeCxrError` where files are missing or do not fit each other.
    """
    while True:
        with _held(folder) as before:
            try:
                result = read()
            except EdgeCxrError:
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return result


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, and return whether the system can: some file systems cannot."""
    import ctypes

    at_working_directory, exchange = -100, 2
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return call is not None and call(at_working_directory, names[0], at_working_directory, names[1], exchange) == 0


def _aside(dest: Path) -> Path:
    """Return where a folder lies for the moment in which another takes its place."""
    return dest.with_name(f".{dest.name}.old")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Give the identity of a folder, and hold it, so that no folder after it gets the number of its inode meanwhile."""
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
