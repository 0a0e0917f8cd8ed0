"""Films read on a Ray cluster, whose nodes see the same files, instead of by processes of this machine.

Each task of the cluster reads a few films by `Readers` of its own, a process that is killed and replaced when a file
breaks it: a file can do no more to a node than to this machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import edgecxr
from edgecxr.errors import EdgeCxrError
from edgecxr.infer.film_readers import TIME_LIMIT, Read, Readers
from edgecxr.infer.prediction import Rejection
from edgecxr.workers.cluster import check_seen, check_version, connected
from edgecxr.workers.processes import Ended, Processes

_CHUNK = 32
"""Films for one task, which starts a process: fewer would wait for these."""

_RETRIES = 3
_AHEAD = 2


class RayReaders:
    """Reads films on a cluster; used as `edgecxr.infer.film_readers.Readers` is.

    Args:
        time_limit: seconds for one file.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._cluster = ExitStack()
        self._ray = self._cluster.enter_context(connected())

    def read(
        self, paths: Iterable[Path], size: int, display: bool = False, most: int = 1, header: str | None = None
    ) -> Iterator[list[Read]]:
        """Read files and yield what became of them, in order; the arguments are those of `Readers.read`.

        Raises:
            EdgeCxrError: the cluster fails, or a node has another edgecxr.
        """
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_read)
        source = iter(paths)
        chunks = iter(lambda: list(islice(source, _CHUNK)), [])
        running: deque[tuple[list[Path], Any]] = deque()
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for chunk in chunks:
            # Where a node's processes run, what was typed may mean another place.
            names = [os.fspath(path.absolute()) for path in chunk]
            running.append((chunk, task.remote(names, size, display, header, self._time_limit, edgecxr.__version__)))
            if len(running) >= ahead:
                yield from _parts(self._got(*running.popleft()), most)
        while running:
            yield from _parts(self._got(*running.popleft()), most)

    def _got(self, paths: list[Path], task: Any) -> list[Read]:
        found = []
        for path, one in zip(paths, self._ray.get(task), strict=True):
            if isinstance(one, Rejection):
                check_seen(one.reason, path)
                one = replace(one, message=one.message.replace(os.fspath(path.absolute()), str(path)))
            found.append(replace(one, source=str(path)))
        return found

    def __enter__(self) -> RayReaders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster.__exit__(kind, error, traceback)


def _parts(found: list[Read], most: int) -> Iterator[list[Read]]:
    for start in range(0, len(found), most):
        yield found[start : start + most]


_processes = Processes(1, float("inf"))  # of a process of the cluster: it ends with that


def _read(
    paths: list[str], size: int, display: bool, header: str | None, time_limit: float, version: str
) -> list[Read]:
    check_version(version)
    # `Readers` forks, and threads of a process of the cluster may hold locks just then; in ours one sleeps, no more.
    work = partial(_read_here, size=size, display=display, header=header, time_limit=time_limit)
    ((_, found),) = _processes.run(work, [paths])
    if isinstance(found, Ended):
        raise EdgeCxrError(f"the process that reads {paths[0]} and {len(paths) - 1} more films ended twice")
    return found


def _read_here(paths: list[str], size: int, display: bool, header: str | None, time_limit: float) -> list[Read]:
    with Readers(1, time_limit) as readers:
        return [one for part in readers.read(map(Path, paths), size, display, header=header) for one in part]
