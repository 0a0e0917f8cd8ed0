"""What confined workers may do here, found out by trying."""

from __future__ import annotations

from typing import Any

from edgecxr.workers import confine
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Limits, Work, WorkerEnd, run


def isolation() -> dict[str, Any]:
    """Return what is possible in a confined worker.

    Returns:
        "possible": list of what it could do; "by": what confines it; "landlock": version of the kernel's, 0 without.

    Raises:
        RuntimeError: the worker has ended.
    """
    with Pool(Work(_attempt_all, _answer, _ended, confined=True), 1, Limits(seconds=20)) as pool:
        ((_, facts),) = run(pool, [None])
    return {**facts, "landlock": confine.landlock_version()}


def _answer(item: None, answer: Any, data: bytes) -> Any:
    return answer


def _ended(item: None, ended: WorkerEnd) -> Any:
    raise RuntimeError(f"a worker ended: {ended.reason}")


def _attempt_all(item: None) -> tuple[dict[str, Any], bytes]:
    return {"possible": confine.still_possible(), "by": confine.in_force}, b""
