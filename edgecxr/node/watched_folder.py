"""Watched folders, such as a share that a modality exports to.

They are listed every few seconds, which works on network file systems, too. A file is copied once its size and time
have rested; it is never deleted unless the configuration says so.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecxr.errors import brief
from edgecxr.node import intake
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.film_queue import FilmQueue
from edgecxr.node.intake import NotTaken
from edgecxr.node.node_config import NodeConfig, Watch
from edgecxr.node.node_process import Stop
from edgecxr.node.spool import Spool
from edgecxr.storage.reading import BadFile, open_file
from edgecxr.storage.unfinished import is_unfinished
from edgecxr.storage.walk import walk
from edgecxr.terminal import printable, say

EVERY = 2.0
"""Seconds between two looks."""

REST = 5.0
"""Seconds for which a file must not change before it is taken."""

_AGAIN = 60.0  # seconds after which a file that could not be read is tried again

_PART = 1 << 20
_PREAMBLE = 128

FileStates = dict[str, tuple[int, int]]  # path -> size, time of the last change in nanoseconds


@contextmanager
def watching(config: NodeConfig, spool: Spool, stop: Stop) -> Iterator[None]:
    """Look through the folders in a thread of this process, until `stop`.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    folders = [WatchedFolder(watch, config, spool) for watch in config.watch]

    def look() -> None:
        while not stop.wait(EVERY):
            for folder in folders:
                folder.look(time.monotonic())

    thread = stop.background("the look at watched folders", look) if config.watch else None
    try:
        yield
    finally:
        if thread is not None:
            thread.join(timeout=EVERY)


class WatchedFolder:
    """A folder that is looked through again and again.

    Args:
        watch: the folder.
        config: the node's.
        spool: where films go.
    """

    def __init__(self, watch: Watch, config: NodeConfig, spool: Spool) -> None:
        self._watch, self._limits, self._spool = watch, config.limits, spool
        self._queue, self._audit = FilmQueue(spool), Audit(config, "receive")
        self._resting: dict[str, tuple[tuple[int, int], float]] = {}
        self._phi, self._problem = config.phi, ""
        self._last_states: FileStates = {
            path: (row["size"], row["changed"])
            for row in spool.read("SELECT path, size, changed FROM watched")
            if Path(path := os.fsdecode(row["path"])).is_relative_to(watch.folder)
        }

    def look(self, now: float) -> int:
        """Take the files that have rested; return how many films.

        Args:
            now: seconds of a clock that is never set.
        """
        taken, locked = 0, list[str]()
        try:
            present = dict(_files(Path(self._watch.folder), locked))
            self._forget(present)
            for path, state in present.items():
                if self._last_states.get(path) == state:
                    continue
                before, since = self._resting.get(path, (None, now))
                if before != state:
                    self._resting[path] = (state, now)
                elif now - since >= REST:
                    taken += self._take(path, state, now)
            self._complain(
                f"{self._named(locked[0])} may not be listed: allow it to the node's user, or move it" if locked else ""
            )
        except NotTaken as error:  # of the node, not of a file: the same file is tried again
            self._complain(str(error))
        except (OSError, sqlite3.Error) as error:  # it passes, and the next look takes what is left
            self._complain(_why(error))
        return taken

    def _complain(self, problem: str) -> None:
        if problem and problem != self._problem:
            say(f"watch: {printable(self._watch.folder)}: {problem}")
        self._problem = problem

    def _named(self, path: str) -> str:
        """Return a path as the log may have it.

        Without PHI it has none, since a modality may name files for patients.
        """
        return printable(path) if self._phi else f"something in {printable(self._watch.folder)}"

    def _take(self, path: str, state: tuple[int, int], now: float) -> bool:
        """Take a file, and return whether it is a film.

        Raises:
            NotTaken: there is no room.
            OSError: the spool cannot be written.
        """
        intake.check_room(self._spool, self._queue, self._limits)
        outcome, is_film = "taken", True
        try:
            number, _ = self._copied(path, state)
            say(f"watch: film {number} from {self._named(path)}")
        except _SourceError as error:
            say(f"watch: not yet {self._named(path)}: {error}")
            self._resting[path] = (state, now + _AGAIN - REST)
            return False
        except NotTaken as error:
            outcome, is_film = str(error), False
            say(f"watch: passed over {self._named(path)}: {error}")
        with self._spool.transaction() as run:
            run("INSERT OR REPLACE INTO watched VALUES (?, ?, ?, ?)", _key(path), *state, outcome)
        self._last_states[path] = state
        del self._resting[path]
        # The spool has it on the disk. What was written over it meanwhile is another film.
        if is_film and self._watch.move and _state(os.lstat(path)) == state:
            Path(path).unlink()
        return is_film

    def _copied(self, path: str, state: tuple[int, int]) -> tuple[int, bool]:
        building, copy = self._spool.new_file()
        with copy:
            try:
                self._copy(path, state, copy)
                return intake.take(self._spool, building, copy, Source(self._watch.folder), self._audit)
            finally:
                building.unlink(missing_ok=True)

    def _copy(self, path: str, state: tuple[int, int], copy: object) -> None:
        """Copy a file, its preamble zeroed.

        Raises:
            NotTaken: it is too large or no DICOM file.
            _SourceError: it cannot be read, or changes.
            OSError: the copy cannot be written.
        """
        if state[0] > self._limits.film_mib << 20:
            raise NotTaken("too-large")
        copied = 0
        try:
            source = open_file(Path(path))
        except (OSError, BadFile) as error:
            raise _SourceError(_why(error)) from error
        with source:
            while True:
                try:
                    part = source.read(_PART)
                except OSError as error:
                    raise _SourceError(_why(error)) from error
                if not copied:
                    part = bytes(min(_PREAMBLE, len(part))) + part[_PREAMBLE:]
                if not part:
                    break
                copied += len(part)
                copy.write(part)  # type: ignore[attr-defined]
            if copied != state[0] or _state(os.fstat(source.fileno())) != state:
                raise _SourceError("it changes while it is read")
        copy.flush()  # type: ignore[attr-defined]

    def _forget(self, present: FileStates) -> None:
        gone = [path for path in self._last_states if path not in present]
        self._resting = {path: each for path, each in self._resting.items() if path in present}
        if gone:
            with self._spool.transaction() as run:
                for path in gone:
                    run("DELETE FROM watched WHERE path = ?", _key(path))
                    del self._last_states[path]


class _SourceError(Exception):
    """A file of a watched folder that cannot be read."""


def _files(folder: Path, locked: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the regular files below a folder with their size and time.

    Links are not followed, and hidden files, which may be unfinished, are left out. So are folders below that may
    not be listed, such as the lost+found of a disk; `locked` gets them.

    Raises:
        OSError: the folder cannot be listed.
    """
    for place, names in walk(folder, hidden=False, strict=True, locked=locked):
        for name in names:
            if name.startswith(".") or is_unfinished(name):
                continue
            path = os.path.join(place, name)  # noqa: PTH118
            try:
                state = os.lstat(path)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(state.st_mode):
                yield path, _state(state)


def _why(error: Exception) -> str:
    """Return what has happened, without the path that an OSError quotes."""
    return getattr(error, "strerror", None) or brief(error)


def _key(path: str) -> str | bytes:
    """Return a path as the database can hold it.

    SQLite's text is UTF-8, but an old modality may write names in Latin-1.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _state(state: os.stat_result) -> tuple[int, int]:
    return state.st_size, state.st_mtime_ns
