"""A process pool that survives crashed and hung workers.

That contains crashes and delays, not an attacker: what comes back is a pickle, and a process has its user's rights.
On a device `edgecxr.infer.film_readers` reads films, which takes nothing but JSON and pixels from its processes.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgecxr.errors import EdgeCxrError, brief

_MOST_KILLED = 20
"""Processes that may be killed one after the other without a result; more are the machine's doing, and no item's."""

_TRIES = 3
"""To start a process."""

_AHEAD = 2
"""Items that a process has been given: that it works on, and the next, so that it need not wait for this process."""

_SMALL = 60_000
"""Bytes of an item that fit into a channel of which nobody reads just now."""

# Forked from a process that has no threads and has loaded what nearly all of them need: this one may have threads.
_FORKED = multiprocessing.get_context("forkserver")
_LOADED = ["numpy", "pydicom", "pydicom.pixels", "PIL.Image"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Ended:
    """What comes of an item whose process has ended twice.

    Attributes:
        reason: how the second time: "crash", "killed" (from outside, as a system without memory does), or "too-slow".
    """

    reason: str


@dataclass(eq=False)
class _Job(Generic[T]):
    """An item, and whether a process has ended with it before."""

    item: T
    suspect: bool = False


class _Queue(Generic[T]):
    """Items that wait for a process, and those that have lost one."""

    def __init__(self, items: Iterable[T]) -> None:
        self._fresh = map(_Job, items)
        self._innocent: deque[_Job[T]] = deque()
        self._again: deque[_Job[T]] = deque()
        self._last: deque[_Job[T]] = deque()

    def following(self, alone: bool) -> _Job[T] | None:
        """Return the job whose turn it is, None where there is none; suspects only where it will be `alone`."""
        if alone and self._again:
            return self._again.popleft()
        if self._innocent:
            return self._innocent.popleft()
        return next(self._fresh, None) or (self._last.popleft() if alone and self._last else None)

    def give_back(self, job: _Job[T]) -> None:
        """Take back a job that nothing has happened to."""
        (self._again if job.suspect else self._innocent).appendleft(job)

    def rejects(self, jobs: list[_Job[T]], reason: str) -> bool:
        """Take back what an ended process had; whether the first, on which it worked, has had its two tries."""
        job, *rest = jobs
        self._innocent.extend(rest)
        if job.suspect:
            return True
        job.suspect = True
        (self._last if reason == "too-slow" else self._again).append(job)
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
        self._killed_in_a_row = 0

    def run(self, work: Callable[[T], R], items: Iterable[T]) -> Generator[tuple[T, R | Ended], None, None]:
        """Work off items and yield each with what came of it, in the order in which they get ready.

        An item whose process ends is tried once more, since anything may have ended it; one that was too slow, after
        all others.

        Args:
            work: importable; what it raises is raised here.
            items: picklable, consumed as processes get free; str() names one in a message.

        Raises:
            EdgeCxrError: processes are killed one after the other, or end before they begin.
        """
        queue = _Queue(items)
        try:
            while self._hand_out(work, queue):
                busy = [process for process in self._all if process.jobs]
                self._wait(busy)
                for process in busy:
                    for job, result in process.results():
                        self._killed_in_a_row = 0
                        yield job.item, result
                    reason = process.why_ended(self._time_limit)
                    if reason:
                        jobs = process.end()
                        self._count(reason, jobs)
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
        """Give each process a job and then one more; False where there are none left, nor at work."""
        for given in range(_AHEAD):
            for process in self._all:
                if len(process.jobs) != given or (given and process.jobs[0].suspect):
                    continue
                job = queue.following(alone=not given)
                if job is not None and not process.give(work, job):
                    queue.give_back(job)
        return any(process.jobs for process in self._all)

    def _wait(self, busy: list[_Process]) -> None:
        """Wait until one has a result, or has ended, or may be overdue."""
        soonest = min(process.began for process in busy) + self._time_limit
        left = max(0.0, min(soonest - time.monotonic(), 3600))
        wait([process.channel for process in busy if process.channel], left)

    def _count(self, reason: str, jobs: list[_Job[Any]]) -> None:
        self._killed_in_a_row += reason == "killed"
        if self._killed_in_a_row == _MOST_KILLED:
            self._killed_in_a_row = 0
            last = f", the last one with {jobs[0].item}" if jobs else ""
            raise EdgeCxrError(
                f"{_MOST_KILLED} processes in a row were killed{last}: is there too little memory? Give fewer "
                "--workers; what was done is kept"
            )


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

    def give(self, work: Callable[[Any], Any], job: _Job[Any]) -> bool:
        """Give it a job; False where it is to wait, since the process has ended with those that it has, or it is large.

        Raises:
            EdgeCxrError: no process can be started.
        """
        message = pickle.dumps((work, job.item))
        if self.jobs and len(message) > _SMALL:
            return False  # sent while an answer comes, it would be waited for on both sides
        if self.channel is not None and not self._sent(message):
            if self.jobs:  # `why_ended` finds out
                return False
            self.end()  # it was idle: nothing is lost
        if self.channel is None:
            self._start(work)
            self._gone = not self._sent(message)
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
        """Return "crash" or "killed" where it has ended, "too-slow" where it must be ended, else ""."""
        if self._gone and self._process:
            self._process.join(1)
            # 255 is what is known of it where the server has been killed.
            return "killed" if self._process.exitcode in (-signal.SIGKILL, 255) else "crash"
        return "too-slow" if self.jobs and time.monotonic() > self.began + time_limit else ""

    def end(self) -> list[_Job[Any]]:
        """End the process, if there is one, and return the jobs that it had."""
        if self._process is not None and self._process.pid is not None and self._process.is_alive():
            self._process.kill()
            self._process.join(1)  # one that waits for a disk ends when the disk answers
        if self.channel is not None:
            self.channel.close()
        self._process, self.channel, self._gone = None, None, False
        jobs = list(self.jobs)
        self.jobs.clear()
        return jobs

    def _sent(self, message: bytes) -> bool:
        assert self.channel
        try:
            self.channel.send_bytes(message)
        except OSError:
            self._gone = True
            return False
        return True

    def _start(self, work: Callable[[Any], Any]) -> None:
        for _ in range(_TRIES):
            try:
                _start_server()
                self.channel, theirs = _FORKED.Pipe()
                with theirs:
                    self._process = _FORKED.Process(target=_serve, args=(theirs, work), daemon=True)
                    self._process.start()
                self.channel.recv()  # the time that it takes to start, and to load the work, is not the first job's
                return
            except (EOFError, OSError) as error:
                self.end()
                cause = error
        said = f" ({brief(cause)})" if str(cause) else ""
        raise EdgeCxrError(
            f"processes end before they begin to work{said}: is there too little memory, or does a program call this "
            "outside `if __name__ == '__main__'`?"
        ) from cause


def _start_server() -> None:
    """Start what processes are forked from, unless it runs.

    It is a `python -c`, which would import from the current directory, where anybody's files may lie.
    """
    safe = "PYTHONSAFEPATH"
    before = os.environ.get(safe)
    os.environ[safe] = "1"
    try:
        # An older Python does not know of it: each process loads what it needs, from where this one does.
        _FORKED.set_forkserver_preload(_LOADED if sys.version_info >= (3, 11) else [])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ[safe]
        else:
            os.environ[safe] = before


def _serve(channel: Connection, work: Callable[[Any], Any]) -> None:
    """Work off what comes through a channel; the work is given for what must be loaded for it."""
    _follow_parent()
    channel.send("ready")
    while True:
        try:
            message = channel.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            work, item = pickle.loads(message)
            answer = pickle.dumps((True, work(item)))
        except Exception as error:
            answer = pickle.dumps((False, _portable(error)))
        channel.send_bytes(answer)


def _portable(error: Exception) -> Exception:
    """Return an error as it is where it can be sent, else what it says."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return EdgeCxrError(f"{type(error).__name__}: {brief(error)}")


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
