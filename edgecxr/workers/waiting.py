"""Queue of items that wait for a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic

from edgecxr.workers.work import T


@dataclass(eq=False)
class Job(Generic[T]):
    """An item and the number of workers it has lost.

    Attributes:
        item: the item.
        request: the item as sent to a worker.
        seconds: its time limit.
        ended: how often its worker has ended alone.
        orphaned: how often its worker has ended with the template, for which no item need be to blame.
    """

    item: T
    request: bytes
    seconds: float
    ended: int = 0
    orphaned: int = 0


class Queue(Generic[T]):
    """Queue of items that wait for a worker.

    An item that has lost a worker is retried by a worker with no other items, so that it cannot delay any.
    """

    def __init__(self) -> None:
        self._fresh: deque[Job[T]] = deque()
        self._again: deque[Job[T]] = deque()
        self._last: deque[Job[T]] = deque()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._last)

    def add(self, job: Job[T]) -> None:
        """Add a new job."""
        self._fresh.append(job)

    def give_back(self, jobs: Iterable[Job[T]]) -> None:
        """Return untouched jobs to the front of the queue."""
        for job in reversed(list(jobs)):
            (self._again if job.ended else self._fresh).appendleft(job)

    def try_again(self, job: Job[T], slow: bool) -> None:
        """Add a job whose worker has ended.

        A slow job is retried after all others.
        """
        (self._last if slow else self._again).append(job)

    def following(self, alone: bool, slow: bool) -> Job[T] | None:
        """Remove and return the next job.

        Args:
            alone: whether the worker has no other job; only then may the job be one that has lost a worker.
            slow: whether it may be a slow job.

        Returns:
            None if there is no such job.
        """
        for jobs in self._turns(alone, slow):
            if jobs:
                return jobs.popleft()
        return None

    def has_for_one_alone(self, slow: bool) -> bool:
        """Return whether there is a job for an idle worker."""
        return any(self._turns(True, slow))

    def _turns(self, alone: bool, slow: bool) -> list[deque[Job[T]]]:
        if not alone:
            return [self._fresh]
        return [self._again, self._fresh, self._last] if slow else [self._again, self._fresh]
