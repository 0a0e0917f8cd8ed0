"""What a pool and one of its workers say to each other.

A worker that decodes strangers' files may be in a stranger's hands. Each request has a number that nobody can guess,
and its answer repeats it: what was sent in advance, twice or for another request is seen, and is not believed.
"""

from __future__ import annotations

import secrets
import select
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from edgecxr.workers.channel import Channel, packed
from edgecxr.workers.waiting import Job

_ANSWERING = 5.0
"""Seconds for the rest of an answer that has begun to come, however late this process looks."""

_READY = 0
"""The number of a worker's first message, which answers no request."""

_BEFORE, _AFTER = ("ready", "error"), ("done", "error", "memory")
"""Kinds of messages of a worker before and after it has loaded its work."""


class Disputed(Exception):
    """A message that answers no request of this worker.

    An earlier job may be to blame.
    """


@dataclass(eq=False)
class Worker:
    """A worker process and its jobs; the first one is running.

    Attributes:
        pid: its process id.
        channel: connection to it.
        largest: greatest number of bytes in an answer.
        began: when it began its job, or began to load its work.
        ready: whether it has loaded its work.
        answered: number of jobs answered so far.
        stops: number of times that time was forgiven since it began.
        jobs: jobs sent and not answered yet.
    """

    pid: int
    channel: Channel
    largest: int
    began: float = field(default_factory=time.monotonic)
    ready: bool = False
    answered: int = 0
    stops: int = 0
    jobs: deque[Job[Any]] = field(default_factory=deque)
    _numbers: deque[int] = field(default_factory=deque)

    def send(self, job: Job[Any], seconds: float) -> None:
        """Send a job.

        Raises:
            OSError: the worker has ended, or did not read it within `seconds`.
        """
        number = secrets.randbelow(1 << 62) + 1
        self.channel.send(packed(number, job.request), seconds)
        if not self.jobs and self.ready:
            self._begins()
        self.jobs.append(job)
        self._numbers.append(number)

    def receive(self) -> tuple[str, Any, bytes]:
        """Return the kind, content and bytes of the message that has come.

        It answers the first job, but for "ready".

        Raises:
            Disputed: it does not, or is no message.
            EOFError: the worker has ended.
            OSError: the connection is lost.
            TimeoutError: the rest of the message does not come.
        """
        expected = self._numbers[0] if self.ready else _READY
        try:
            (number, kind, content), data = self.channel.receive(time.monotonic() + _ANSWERING, self.largest)
        except (ValueError, TypeError, RecursionError) as error:
            raise Disputed from error
        if type(number) is not int or number != expected or kind not in (_AFTER if self.ready else _BEFORE):
            raise Disputed
        if data and kind != "done":
            raise Disputed
        return kind, content, data

    def begin(self) -> None:
        """Note that the worker has loaded its work."""
        self.ready = True
        self._begins()

    def finish(self) -> Job[Any]:
        """Remove and return the first job, which was answered."""
        self._numbers.popleft()
        self._begins()
        self.answered += 1
        return self.jobs.popleft()

    def forgive(self, seconds: float, most: int) -> None:
        """Add to the time of its job, at most so many times."""
        if self.stops < most:
            self.began, self.stops = self.began + seconds, self.stops + 1

    def _begins(self) -> None:
        self.began, self.stops = time.monotonic(), 0

    def has_more(self) -> bool:
        """Return whether it has sent something, or has ended, without being asked."""
        return self.ready and not self.jobs and readable([self.channel], 0)


def readable(channels: list[Channel], milliseconds: int) -> bool:
    """Wait for data on any channel, and return whether there is some."""
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    return bool(poll.poll(milliseconds))


def ready_message() -> bytes:
    """Return what a worker says when it has loaded its work."""
    return packed([_READY, "ready", None])


def failed_message(error: Any) -> bytes:
    """Return what a worker says when it cannot load its work."""
    return packed([_READY, "error", error])
