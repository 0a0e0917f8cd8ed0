"""Work for workers, its limits, and the interface of pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

LONGEST_WAIT = 3600.0
"""Upper limit of a single wait, in seconds."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WorkerEnd:
    """Reason why an item has no result.

    Attributes:
        reason: why its worker ended: "crash", "killed" (from outside, for example by a system out of memory),
            "too-slow" or "memory" (the item needed more than its limit).
        code: the worker's exit code, or minus the number of the signal that ended it; None if unknown.
    """

    reason: str
    code: int | None = None


@dataclass(frozen=True)
class Work(Generic[T, R]):
    """Functions that process an item and make its result.

    Attributes:
        do: run by workers, must be importable; turns an item into a JSON value and bytes. Errors that it raises are
            raised by `poll`.
        accept: makes the result from the item and its answer; raises if the answer is not valid.
        ended: makes the result of an item that has no answer.
        preload: modules that are loaded before `do`.
        largest: greatest number of bytes in an answer.
        confined: whether items are strangers' files: workers can then do no more than read, compute and answer. Errors
            that `do` raises are crashes, so it returns those that it expects.
    """

    do: Callable[[T], tuple[Any, bytes]]
    accept: Callable[[T, Any, bytes], R]
    ended: Callable[[T, WorkerEnd], R]
    preload: tuple[str, ...] = ()
    largest: int = 64 << 20
    confined: bool = False


@dataclass(frozen=True)
class Limits:
    """Limits for one item.

    Attributes:
        seconds: greatest time.
        memory_mib: greatest growth of its worker's memory, MiB; None is no limit.
        tries: number of ended workers after which the item has no result.
        renew_after: number of items after which a worker is replaced, since decoders sometimes leak memory; 0 is never.
    """

    seconds: float = math.inf
    memory_mib: int | None = None
    tries: int = 1
    renew_after: int = 0


UNLIMITED = Limits()


class AnyPool(Protocol[T, R]):
    """Interface of all pools.

    It is implemented by `edgecxr.workers.pool.Pool` and `edgecxr.workers.ray_pool.RayPool`.
    """

    @property
    def window(self) -> int:
        """Number of outstanding items that keeps all workers busy."""

    @property
    def outstanding(self) -> int:
        """Number of items whose result was not returned yet."""

    def submit(self, item: T) -> None:
        """Queue an item."""

    def poll(self, seconds: float = 0.0) -> list[tuple[T, R]]:
        """Return newly finished items, each with its result."""

    def cancel(self) -> None:
        """Discard all items."""

    def close(self) -> None:
        """End all workers."""


def run(pool: AnyPool[T, R], items: Iterable[T]) -> Generator[tuple[T, R], None, None]:
    """Process items and yield each with its result.

    They come in the order in which they finish.

    Args:
        pool: a pool that nobody else is using.
        items: consumed as workers become free.

    Raises:
        EdgeCxrError: raised by the work, or by `pool.poll`.
    """
    source = iter(items)
    try:
        while True:
            for item in islice(source, max(0, pool.window - pool.outstanding)):
                pool.submit(item)
            if not pool.outstanding:
                return
            yield from pool.poll(LONGEST_WAIT)
    finally:
        pool.cancel()  # the caller may have stopped iterating
