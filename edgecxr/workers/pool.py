"""A process pool that survives crashed, hung and killed workers.

It also survives the loss of the template process from which workers are forked. It contains crashes and excessive
resource use. Workers of `Work.confined` give up their user's rights before they see an item, where the kernel can do
that. Workers send back only JSON and bytes, for the items that they were given.
"""

from __future__ import annotations

import math
import pickle
import signal
import time
from types import TracebackType
from typing import Generic

from edgecxr.errors import EdgeCxrError, brief
from edgecxr.workers.channel import Channel
from edgecxr.workers.conversation import Disputed, Worker, readable
from edgecxr.workers.template import Life, Template, TemplateGone, raised
from edgecxr.workers.waiting import Job, Queue
from edgecxr.workers.work import LONGEST_WAIT, UNLIMITED, Limits, R, T, Work, WorkerEnd

_MOST_KILLED = 20
"""Workers killed in a row, without a result between, after which the machine is blamed and not the items."""

_TRIES = 3
"""Attempts to start a worker."""

_START_LIMIT = 120.0
"""Seconds in which a worker must load its work."""

AHEAD = 2
"""Items that a worker holds: the current and the next, so that it need not wait for this process."""

_WAIT = 1.0
"""Longest seconds of one wait.

If it ends later than that by as much again, this process was stopped meanwhile, such as by a snapshot of its machine.
"""

_MOST_STOPS = 5
"""Such waits that do not count towards the time of an item: it might only be that this process gets no memory."""

_SMALL = 60_000
"""Bytes of an item that fit into a channel's buffer while nobody reads from it."""


class Pool(Generic[T, R]):
    """A pool of local workers that replaces those that have ended.

    Each worker processes one item at a time. Use the pool as a context manager, from one thread at a time.

    Args:
        work: what the workers do.
        count: number of workers; each is started when there is an item for it.
        limits: limits for one item.
        fork: fork this process to start workers, which is fast but safe only before it has started any threads.

    Attributes:
        last_code: exit code of the worker that was lost last, as in `WorkerEnd`.

    Raises:
        EdgeCxrError: no process can be started.
    """

    def __init__(self, work: Work[T, R], count: int, limits: Limits = UNLIMITED, fork: bool = False) -> None:
        self._work, self._count, self._limits = work, count, limits
        self._life = Life(pickle.dumps(work.do), limits.memory_mib, work.preload, work.confined)
        self._queue: Queue[T] = Queue()
        self._workers: list[Worker] = []
        self._results: list[tuple[T, R]] = []
        self._killed_in_a_row = self._failed_starts = 0
        self.last_code: int | None = None
        self._template: Template | None = None
        if fork:
            try:
                self._template = Template(self._life, fork=True)
            except OSError as error:
                raise _cannot_start(error) from error

    @property
    def window(self) -> int:
        """Number of outstanding items that keeps all workers busy."""
        return AHEAD * self._count

    @property
    def outstanding(self) -> int:
        """Number of submitted items whose result was not returned yet."""
        return len(self._queue) + sum(len(worker.jobs) for worker in self._workers) + len(self._results)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def submit(self, item: T, seconds: float | None = None) -> None:
        """Queue an item; the queue has no size limit.

        Args:
            item: picklable.
            seconds: time limit of this item, instead of that in `Limits`.
        """
        limit = self._limits.seconds if seconds is None else seconds
        self._queue.add(Job(item, pickle.dumps(item), limit))

    def poll(self, seconds: float = 0.0) -> list[tuple[T, R]]:
        """Return newly finished items, each with its result.

        This returns as soon as one item is finished.

        Args:
            seconds: time to wait for the first result.

        Raises:
            EdgeCxrError: raised by the work for an item, which then has no other result; or too many workers in a row
                are killed, or end before they begin to work.
        """
        until = time.monotonic() + seconds
        while True:
            # After results, more items may be submitted: slow items are retried only after those.
            self._hand_out(slow=not self._results)
            busy = [worker for worker in self._workers if worker.jobs]
            if self._results or not busy:
                results, self._results = self._results, []
                return results
            self._wait(busy, until)
            for worker in busy:
                self._take(worker)
            if not self._results and time.monotonic() >= until:
                return []

    def cancel(self) -> None:
        """Discard all items, and end the workers that hold any."""
        self._queue = Queue()
        self._results = []
        for worker in [worker for worker in self._workers if worker.jobs]:
            self._lose(worker, kill=True)

    def close(self) -> None:
        """End all workers, even busy ones."""
        self.cancel()
        if self._template is not None:
            self._template.close()
        for worker in self._workers:
            worker.channel.close()
        self._workers = []

    def __enter__(self) -> Pool[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- handing out

    def _hand_out(self, slow: bool) -> None:
        """Give each worker jobs, and start workers for waiting jobs."""
        for job_count in range(AHEAD):
            for worker in list(self._workers):
                if len(worker.jobs) == job_count and not (job_count and worker.jobs[0].ended):
                    self._give_following(worker, alone=not job_count, slow=slow)
            while not job_count and len(self._workers) < self._count and self._queue.has_for_one_alone(slow):
                fresh = self._started()
                if fresh is None:
                    break
                self._give_following(fresh, alone=True, slow=slow)

    def _give_following(self, worker: Worker, alone: bool, slow: bool) -> None:
        renew = self._limits.renew_after
        if renew and worker.answered + len(worker.jobs) >= renew:
            return
        if worker.has_more():
            self._lose(worker, kill=True)
            return
        job = self._queue.following(alone, slow)
        if job is None:
            return
        if worker.jobs and len(job.request) > _SMALL:
            self._queue.give_back([job])  # if the worker sends an answer meanwhile, both sides would block
            return
        try:
            worker.send(job, max(1.0, min(job.seconds, LONGEST_WAIT)))
        except OSError:
            self._queue.give_back([job])
            if not worker.jobs:  # no job is lost with this worker
                code = self._lose(worker, kill=True)
                if not worker.ready:
                    self._failed_to_start(code)

    def _started(self) -> Worker | None:
        """Return a new worker.

        Returns:
            None if no process can be started now but other workers exist.

        Raises:
            EdgeCxrError: no process can be started, and there are no other workers.
        """
        cause: Exception = EdgeCxrError()
        for _ in range(_TRIES):
            try:
                if self._template is None:  # start a new Python: this process may have threads by now
                    self._template = Template(self._life, fork=False)
                pid, connection = self._template.start_worker()
                self._workers.append(Worker(pid, Channel(connection), self._work.largest))
                return self._workers[-1]
            except TemplateGone as error:
                assert self._template
                self._template.close()
                self._template, cause = None, error
            except OSError as error:
                cause = error
                if self._workers:
                    return None
        raise _cannot_start(cause) from cause

    # ---- taking back

    def _wait(self, busy: list[Worker], until: float) -> None:
        soonest = min(until, *(self._deadline(worker) for worker in busy))
        start = time.monotonic()
        left = max(0.0, min(soonest - start, _WAIT))
        readable([worker.channel for worker in busy], math.ceil(1000 * left))
        late = time.monotonic() - start - left
        if late > _WAIT:
            for worker in busy:
                worker.forgive(late, _MOST_STOPS)

    @staticmethod
    def _deadline(worker: Worker) -> float:
        return worker.began + (worker.jobs[0].seconds if worker.ready else _START_LIMIT)

    def _take(self, worker: Worker) -> None:
        """Read a worker's messages, and handle its end or timeout.

        Raises:
            EdgeCxrError: raised by the work for an item.
        """
        while worker.jobs and readable([worker.channel], 0):
            try:
                kind, content, data = worker.receive()
                if kind == "ready":
                    worker.begin()
                    self._failed_starts = 0
                    continue
                if kind == "error" and worker.ready and self._work.confined:
                    raise Disputed  # such work tells of errors in its answers
                result = self._work.accept(worker.jobs[0].item, content, data) if kind == "done" else None
                error = raised(*content) if kind == "error" else None
            except (EOFError, ConnectionError):
                self._ended(worker, None)
                return
            except Exception as error:  # a broken worker may send anything
                doubt = isinstance(error, Disputed | TimeoutError) and worker.answered > 0
                self._ended(worker, "too-slow" if isinstance(error, TimeoutError) else "crash", doubt)
                return
            if kind == "memory":  # the worker may not free all of the memory
                self._ended(worker, "memory")
                return
            job = worker.finish()
            if error is not None:
                if not worker.ready:  # the worker could not load its work
                    self._queue.give_back(list(worker.jobs))
                    self._lose(worker, kill=True)
                raise error
            self._killed_in_a_row = 0
            self._results.append((job.item, result))  # type: ignore[arg-type]
            if not worker.jobs and worker.answered == self._limits.renew_after:
                self._lose(worker, kill=True)
                return
        if worker.jobs and time.monotonic() > self._deadline(worker):
            self._ended(worker, "too-slow")

    def _ended(self, worker: Worker, reason: str | None, doubt: bool = False) -> None:
        """Remove a worker, and retry or give up its first job.

        Args:
            worker: the worker.
            reason: why it is killed; None means that it has ended by itself.
            doubt: whether an earlier item may be to blame: the first job is then as good as new.
        """
        jobs = list(worker.jobs)
        code = self._lose(worker, kill=reason is not None)
        if reason is None:
            reason = "killed" if code in (None, -signal.SIGKILL) else "crash"
        self._queue.give_back(jobs[1:])
        job = jobs[0]
        if not worker.ready:
            self._queue.give_back([job])
            self._failed_to_start(code)
            return
        if doubt:
            self._queue.try_again(job, slow=False)
            return
        orphaned = reason == "killed" and code is None
        job.orphaned += orphaned
        job.ended += not orphaned
        if reason == "memory" or job.ended >= self._limits.tries or job.orphaned > 1:
            self._results.append((job.item, self._work.ended(job.item, WorkerEnd(reason, code))))
        elif orphaned:
            self._queue.give_back([job])
        else:
            self._queue.try_again(job, slow=reason == "too-slow")
        self._count_killed(reason, job)

    def _failed_to_start(self, code: int | None) -> None:
        self._failed_starts += 1
        if self._failed_starts == _TRIES:
            self._failed_starts = 0
            raise _cannot_start(EdgeCxrError("" if code is None else f"exit code {code}"))

    def _count_killed(self, reason: str, job: Job[T]) -> None:
        self._killed_in_a_row += reason == "killed"
        if self._killed_in_a_row == _MOST_KILLED:
            self._killed_in_a_row = 0
            raise EdgeCxrError(
                f"{_MOST_KILLED} processes in a row were killed, the last one with {job.item}: is there too little "
                "memory? Give fewer --workers; what was done is kept"
            )

    def _lose(self, worker: Worker, kill: bool) -> int | None:
        """Remove a worker and return its exit code, None if unknown."""
        self._workers.remove(worker)
        worker.channel.close()
        worker.jobs.clear()
        self.last_code = None if self._template is None else self._template.end(worker.pid, kill)
        return self.last_code


def _cannot_start(error: Exception) -> EdgeCxrError:
    why = f" ({brief(error)})" if str(error) else ""
    return EdgeCxrError(
        f"processes end before they begin to work{why}: is there too little memory? Close other programs, or give "
        "fewer --workers"
    )
