"""Folders into which films arrive.

A file is taken once it has not changed for some seconds. Folders are listed again and again: change notices of the
system do not reach across networks, and get lost when many files arrive at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from edgecxr.errors import UsageError
from edgecxr.films.find import Search, entries_below, leads_nowhere
from edgecxr.infer.film_readers import Readers
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.run import InferOptions, new_run
from edgecxr.storage.locks import locked_folder
from edgecxr.terminal import say

REST = 5.0
"""Seconds for which a file must not change before it is taken."""

_EVERY = 1.0  # seconds between two looks
_SHARE = 10  # pauses last this many times as long as a look, so that long lists are no load

_Stamp = tuple[int, int]


class Arrivals:
    """Files in folders that have come to rest.

    Each is returned once for each change of it.

    Use it as a context manager, which keeps other processes from watching the same folders.

    Args:
        folders: the folders.
        recursive: look into their subfolders, too.
        leave_out: folders below them without films, such as those of results.
        clock: returns seconds that never go back.

    Raises:
        UsageError: something is no folder, or another process watches it.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        recursive: bool = True,
        leave_out: Sequence[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"--watch {folder}: give folders that are there, into which films arrive")
        self._folders, self._recursive, self._clock = dict.fromkeys(folders), recursive, clock
        self._leave_out = tuple(leave_out)
        self._resting: dict[Path, tuple[_Stamp, float]] = {}
        self._taken: dict[Path, _Stamp] = {}
        self._locks: dict[Path, tuple[tuple[int, int], ExitStack]] = {}

    def __enter__(self) -> Arrivals:
        for folder in self._folders:
            self._hold(folder)
        return self

    def __exit__(self, *_: object) -> None:
        for _, lock in self._locks.values():
            lock.close()

    def poll(self) -> Search:
        """Look at the folders once.

        Returns:
            What is ready: `folder_of` has the films in order, `passed_over` what else has come to rest.

        Raises:
            UsageError: another process watches a folder that was gone meanwhile.
        """
        ready = Search(leave_out=self._leave_out)
        for folder in self._folders:
            if self._hold(folder):
                self._look(folder, ready)
        return ready

    def _look(self, folder: Path, ready: Search) -> None:
        now = self._clock()
        there: set[Path] = set()
        listed = True
        for entry in entries_below(folder, self._recursive, Search(leave_out=self._leave_out)):
            listed &= entry.scanned is not None
            try:  # of a link that leads nowhere its own state: it is lost only if it stays so
                status = entry.path.lstat() if leads_nowhere(entry.path) else entry.path.stat()
            except OSError:  # it is gone by now
                continue
            if entry.scanned is None:
                continue
            stamp = status.st_size, status.st_mtime_ns
            there.add(entry.path)
            if self._taken.get(entry.path) == stamp:
                continue
            before, since = self._resting.get(entry.path, (None, now))
            if before != stamp:
                self._resting[entry.path] = stamp, now
            elif now - since >= REST:
                del self._resting[entry.path]
                self._taken[entry.path] = stamp
                if kind := entry.no_film():
                    ready.passed_over[kind] += 1
                else:
                    ready.folder_of[entry.path] = folder
        if listed:
            for stamps in (self._resting, self._taken):  # forget what was moved away, or memory grows for ever
                for path in [path for path in stamps if path not in there and folder in path.parents]:
                    del stamps[path]

    def _hold(self, folder: Path) -> bool:
        """Lock a folder, and return whether it is there."""
        identity = None
        with suppress(OSError):
            status = folder.stat()
            identity = status.st_dev, status.st_ino
        held = self._locks.get(folder)
        if held is not None and held[0] == identity:
            return True
        if held is not None:
            held[1].close()
            del self._locks[folder]
            say(f"{folder} is gone: waiting for it")
        if identity is None:
            return False
        lock = ExitStack()
        try:
            lock.enter_context(locked_folder(folder, f"watches {folder}: end it, or watch another folder"))
        except OSError:
            return False
        self._locks[folder] = identity, lock
        say(f"watching {folder}: Ctrl-C ends it")
        return True


def watch(
    predictor: Predictor,
    readers: Readers,
    arrivals: Arrivals,
    options: InferOptions,
    pause: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Look at films as they arrive, until Ctrl-C or SIGTERM.

    Args:
        predictor: the model.
        readers: the workers that read the files.
        arrivals: the folders.
        options: the options.
        pause: waits for some seconds.

    Raises:
        KeyboardInterrupt: at the end; what was written stays.
        UsageError: results cannot be written, or another process watches a folder that was gone meanwhile.
        ModelError: the model failed.
    """
    passed_over = Search()
    try:
        with _interrupted_by_sigterm(), arrivals, new_run(predictor, readers, options) as run:
            while True:
                start = time.monotonic()
                ready = arrivals.poll()
                spent = time.monotonic() - start
                films = [film for film in ready.folder_of if run.earlier is None or run.earlier.status(film) is None]
                run.look(films, ready)
                passed_over.passed_over.update(ready.passed_over)
                pause(max(_EVERY, _SHARE * spent))
    finally:
        if summary := passed_over.summary():
            say(summary)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which services are ended, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
