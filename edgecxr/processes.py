"""Processes that work for this one, each of which may end, or be ended, without harm to what the others do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgecxr.errors import EdgeCxrError, brief

_MOST_ENDS = 20
"""Processes that may end one after the other without a result; more are the machine's doing, and no item's."""

_TRIES = 3
"""To start a process."""

_AHEAD = 2
"""Items that a process has been given: that it works on, and the next, so that it need not wait for this process."""

# Forked from a process that has no threads and has loaded what nearly all of them need: this one may have threads.
_FORKED = multiprocessing.get_context("forkserver")
_LOADED = ["edgecxr.runtime.dicom", "edgecxr.runtime.image", "edgecxr.data.decode"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Ended:
    """What comes of an item whose process has ended twice.

    Attributes:
        reason: "crash", or "too-slow" where it was ended for its slowness.
    """

    reason: str


@dataclass(eq=False)
class _Job(Generic[T]):
    """An item, and whether a process has ended with it before."""

    item: T
    suspect: bool = False


class _Queue(Generic[T]):
    """Items that wait for a process, and those that have lost one.

    Attributes:
        first: jobs that come before the items that are left.
        ended_in_a_row: processes that have ended since the last result.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self.first: deque[_Job[T]] = deque()
        self._fresh = map(_Job, items)
        self._last: deque[_Job[T]] = deque()
        self.ended_in_a_row = 0

    def following(self) -> _Job[T] | None:
        """Return the job whose turn it is; None where there are none left."""
        if self.first:
            return self.first.popleft()
        return next(self._fresh, None) or (self._last.popleft() if self._last else None)

    def rejects(self, jobs: list[_Job[T]], reason: str) -> bool:
        """Take back what an ended process had; whether the first, on which it worked, has had its two tries.

        Raises:
            EdgeCxrError: processes end one after the other.
        """
        job, *rest = jobs
        self.first.extend(rest)
        self.ended_in_a_row += reason == "crash"
        if self.ended_in_a_row == _MOST_ENDS:
            raise EdgeCxrError(
                f"{_MOST_ENDS} processes in a row have ended, the last one with {job.item}: is there too little "
                "memory? Type the same again to go on"
            )
        if job.suspect:
            return True
        job.suspect = True
        if reason == "crash":
            self.first.appendleft(job)
        else:
            self._last.append(job)
        return False


class Processes:
    """A few processes, each of which works on one item at a time and is replaced when it has ended.

    Used as a context manager, by one thread. The calling program must be importable (`if __name__ == "__main__"`).

    Args:
        count: of processes; each is started when there is something for it.
        time_limit: seconds for one item, or infinity.
    """

    def __init__(self, count: int, time_limit: float) -> None:
        self._time_limit = time_limit
        self._all = [_Process() for _ in range(count)]

    def run(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[tuple[T, R | Ended], None, None]:
        """Work off items and yield each with what came of it, in the order in which they get ready.

        An item whose process ends is tried once more, since anything may have ended it; one that was too slow, after
        all others.

        Args:
            work: importable; what it raises is raised here.
            items: picklable and small (a process takes two, of together less than 100 KB), consumed as processes get
                free; str() names one in a message.

        Raises:
            EdgeCxrError: processes end one after the other, or before they begin.
        """
        queue = _Queue(items)
        try:
            while self._hand_out(work, queue):
                busy = [process for process in self._all if process.jobs]
                self._wait(busy)
                for process in busy:
                    for job, result in process.results():
                        queue.ended_in_a_row = 0
                        yield job.item, result
                    reason = process.why_ended(self._time_limit)
                    if reason:
                        jobs = process.end()
                        if jobs and queue.rejects(jobs, reason):
                            yield jobs[0].item, Ended(reason)
        finally:
            for process in self._all:
                if process.jobs:  # whoever asked has gone
                    process.end()

    def close(self) -> None:
        """End all processes, whatever they do."""
        for process in self._all:
            process.end()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _hand_out(self, work: Callable[[T], R], queue: _Queue[T]) -> bool:
        """Give jobs to all processes that have room; False where there are none left, nor at work."""
        for process in self._all:
            while process.has_room() and (job := queue.following()):
                if not process.give(work, job):
                    queue.first.appendleft(job)
                    break
        return any(process.jobs for process in self._all)

    def _wait(self, busy: list[_Process]) -> None:
        """Wait until one has a result, or has ended, or is overdue."""
        soonest = min(process.began for process in busy) + self._time_limit
        left = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
        wait([process.channel for process in busy if process.channel], left)


class _Process:
    """One process, started with its first job and anew when it has ended.

    It has a channel of its own: one that several share may be left locked, or with half a message, by the death of one.

    Attributes:
        jobs: that it was given; it works on the first.
        began: when it began with that.
        channel: to it; None where it has not been started.
    """

    def __init__(self) -> None:
        self.jobs: deque[_Job[Any]] = deque()
        self.began = 0.0
        self.channel: Connection | None = None
        self._process: ForkServerProcess | None = None
        self._gone = False

    def has_room(self) -> bool:
        return len(self.jobs) < _AHEAD

    def give(self, work: Callable[[Any], Any], job: _Job[Any]) -> bool:
        """Give it a job; False where it has ended with those that it has, which is for `why_ended` to find."""
        while True:
            try:
                (self.channel or self._start()).send((work, job.item))
                break
            except OSError:
                if self.jobs:
                    self._gone = True
                    return False
                self.end()  # it was idle: nothing is lost
        if not self.jobs:
            self.began = time.monotonic()
        self.jobs.append(job)
        return True

    def results(self) -> Generator[tuple[_Job[Any], Any], None, None]:
        """Yield the jobs that are done with their results.

        Raises:
            Exception: what the work has raised.
        """
        assert self.channel
        while self.jobs and self.channel.poll():
            try:
                done, result = self.channel.recv()
            except (EOFError, OSError):
                self._gone = True
                return
            job = self.jobs.popleft()
            self.began = time.monotonic()
            if not done:
                raise result
            yield job, result

    def why_ended(self, time_limit: float) -> str:
        """Return "crash" where it has ended, "too-slow" where it must be ended, else ""."""
        if self._gone:
            return "crash"
        return "too-slow" if self.jobs and time.monotonic() > self.began + time_limit else ""

    def end(self) -> list[_Job[Any]]:
        """End the process, if there is one, and return the jobs that it had."""
        if self._process is not None and self.channel is not None:
            if self._process.pid is not None:
                self._process.kill()
                self._process.join(1)  # one that waits for a disk ends when the disk answers
            self.channel.close()
        self._process, self.channel, self._gone = None, None, False
        jobs = list(self.jobs)
        self.jobs.clear()
        return jobs

    def _start(self) -> Connection:
        _FORKED.set_forkserver_preload(_LOADED)
        for _ in range(_TRIES):
            self.channel, theirs = _FORKED.Pipe()
            self._process = _FORKED.Process(target=_serve, args=(theirs,), daemon=True)
            try:
                self._process.start()
                theirs.close()
                self.channel.recv()  # the time that it takes to start is not the first job's
                return self.channel
            except (EOFError, OSError) as error:
                self.end()
                cause = error
        said = f" ({brief(cause)})" if str(cause) else ""
        raise EdgeCxrError(
            f"processes end before they begin to work{said}: is there too little memory, or does a program "
            "call this outside `if __name__ == '__main__'`?"
        ) from cause


def _serve(channel: Connection) -> None:
    """Work off what comes through a channel."""
    _follow_parent()
    channel.send("ready")
    while True:
        try:
            work, item = channel.recv()
        except (EOFError, OSError):
            return
        except Exception as error:  # it cannot be imported here
            channel.send((False, error))
            continue
        try:
            answer = True, work(item)
        except Exception as error:
            answer = False, error
        channel.send(answer)


def _follow_parent() -> None:
    """Let this process end when its parent is gone, and not by Ctrl-C, which the parent answers for all.

    Workers of a parent that was killed would otherwise work on, and then wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
