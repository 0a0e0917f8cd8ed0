"""A pool of workers on a Ray cluster.

All nodes must see the same files. Each core does the work of a local worker. Ray restarts the tasks of a
node that has died. Each node runs a pool of its own, so that an item that crashes its worker does not crash the task.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic

import edgecxr
from edgecxr.workers.cluster import check_version, connected, faults
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Limits, R, T, Work, WorkerEnd, run

_CHUNK = 4
"""Items per Ray task."""

_RETRIES = 3
_AHEAD = 3
"""Outstanding tasks per core; more would fill the cluster's memory with pixels."""

Answer = tuple[Any, bytes] | WorkerEnd


class RayPool(Generic[T, R]):
    """Workers on a cluster, used as `edgecxr.workers.pool.Pool` is.

    Args:
        work: what the workers do; picklable.
        limits: limits for one item.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: the cluster cannot be reached. From `poll`: it fails, or its nodes have another edgecxr version.
    """

    def __init__(self, work: Work[T, R], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._waiting: list[T] = []
        self._running: dict[Any, list[T]] = {}
        self._cluster = ExitStack()
        self._ray = self._cluster.enter_context(connected())
        self._task = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_answers)

    @property
    def window(self) -> int:
        """Number of outstanding items that keeps all cores busy."""
        return _CHUNK * _AHEAD * self._cores

    @property
    def outstanding(self) -> int:
        """Number of items that have no result yet."""
        return len(self._waiting) + sum(map(len, self._running.values()))

    def submit(self, item: T) -> None:
        """Queue an item."""
        self._waiting.append(item)
        if len(self._waiting) == _CHUNK:
            self._start()

    def poll(self, seconds: float = 0.0) -> list[tuple[T, R]]:
        """Return newly finished items, each with its result.

        Args:
            seconds: time to wait for the first result, as in `Pool.poll`.
        """
        if self._waiting and len(self._running) < self._cores:
            self._start()
        if not self._running:
            return []
        timeout = None if seconds == math.inf else seconds
        with faults(self._ray):
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
            done = [(self._running.pop(task), self._ray.get(task)) for task in ready]
        results = []
        for items, answers in done:
            for item, answer in zip(items, answers, strict=True):
                ended = isinstance(answer, WorkerEnd)
                results.append((item, self._work.ended(item, answer) if ended else self._work.accept(item, *answer)))
        return results

    def cancel(self) -> None:
        """Discard all items."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._waiting, self._running = [], {}

    def close(self) -> None:
        """Cancel all tasks and leave the cluster."""
        self.__exit__(None, None, None)

    @property
    def _cores(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _start(self) -> None:
        caller = (edgecxr.__version__, os.fspath(Path.cwd()))
        task = self._task.remote(
            self._waiting, self._work.do, self._work.preload, self._work.confined, self._limits, *caller
        )
        self._running[task] = self._waiting
        self._waiting = []

    def __enter__(self) -> RayPool[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        self._cluster.__exit__(kind, error, traceback)


_pools: dict[Any, Pool[Any, Any]] = {}  # on a cluster node: pools end with their process


def _answers(
    items: list[Any], do: Any, preload: tuple[str, ...], confined: bool, limits: Limits, version: str, folder: str
) -> list[Answer]:
    """Return the answers of a worker on this node, in item order.

    Args:
        items: of the task.
        do: what the worker does.
        preload: modules that are loaded before.
        confined: whether workers give up their rights.
        limits: for one item.
        version: of edgecxr, on the caller's machine.
        folder: the caller's current one, from which relative paths lead here too.
    """
    check_version(version)
    with suppress(OSError):
        os.chdir(folder)
    key = (repr(do), limits, confined)
    if key not in _pools:
        work: Work[tuple[int, Any], Answer] = Work(do, _as_it_is, _as_ended, preload, confined=confined)
        _pools[key] = Pool(work, 1, limits)
    answers: dict[int, Answer] = {}
    for item, answer in run(_pools[key], items):
        answers[id(item)] = answer
    return [answers[id(item)] for item in items]


def _as_it_is(item: Any, value: Any, data: bytes) -> Answer:
    return value, data


def _as_ended(item: Any, ended: WorkerEnd) -> Answer:
    return ended
