"""Walk and removal of strangers' folders, however deep.

`os.walk` and `shutil.rmtree` call themselves for each level, and end beyond a thousand.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def walk(
    folder: str | os.PathLike[str], hidden: bool = True, strict: bool = False, locked: list[str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder at and below a place, with its files' names.

    Parents come before children, and all is sorted. Links are names, and not followed. What cannot be listed is left
    out, a missing folder too.

    Args:
        folder: the place.
        hidden: go into hidden folders, too.
        strict: raise what listing raises, but for paths that are too long.
        locked: gets the folders below the place that this user may not list; these do not raise then.

    Raises:
        OSError: a folder cannot be listed, if `strict`.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        parent = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
        except OSError as error:
            if locked is not None and isinstance(error, PermissionError) and parent != os.fspath(folder):
                locked.append(parent)
            elif strict and error.errno != errno.ENAMETOOLONG:  # nobody could read what lies there
                raise
            continue
        yield parent, sorted(names)
        below = (name for name in sorted(folders, reverse=True) if hidden or not name.startswith("."))
        waiting.extend(f"{parent}{os.sep}{name}" for name in below)


def names_below(folder: Path) -> Iterator[str]:
    """Yield the relative names of all files below a folder."""
    for parent, names in walk(folder):
        inner = os.path.relpath(parent, folder)
        yield from (name if inner == os.curdir else f"{inner}{os.sep}{name}" for name in names)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all in it, as far as possible."""
    _remove(folder)
    if os.path.isdir(folder) and not os.path.islink(folder):
        for place in reversed([parent for parent, _ in walk(folder)]):
            _remove(place)


def _remove(folder: str | os.PathLike[str]) -> None:
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
