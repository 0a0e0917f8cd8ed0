"""Films read on a Ray cluster, whose nodes see the same files, instead of by processes of this machine.

Each task of the cluster reads a few films by `Readers` of its own, a process that is killed and replaced where a file
has the better of it: what a file may do to a node is what it may do to this machine.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import edgecxr
from edgecxr.errors import EdgeCxrError, MissingPackage, brief
from edgecxr.runtime.readers import TIME_LIMIT, Read, Readers

_CHUNK = 32
"""Films for one task, which starts a process: fewer would wait for these."""

_RETRIES = 3
_AHEAD = 2


def connect() -> Any:
    """Return Ray, connected to its cluster as Ray finds it.

    That is by RAY_ADDRESS, or the cluster that `ray start --head` started on this machine; else one is started here.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: no cluster can be reached.
    """
    # Ray would report its use over the network; nothing shall leave a machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do one day
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "ray", "--executor ray") from error
    if not ray.is_initialized():
        try:
            # Of the tasks nothing goes to this program's terminal.
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise EdgeCxrError(
                f"no Ray cluster can be reached ({brief(error)}): start one with `ray start --head`, or set RAY_ADDRESS"
            ) from error
    return ray


def failed(error: Exception) -> EdgeCxrError:
    """Return what is said when a cluster fails."""
    return EdgeCxrError(
        f"the Ray cluster failed ({brief(error)}): see `ray status`; the same command goes on from here"
    )


class RayReaders:
    """Reads films on a cluster; used as `edgecxr.runtime.readers.Readers` is.

    Args:
        time_limit: seconds for one file.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._ray = connect()

    def read(
        self, paths: Iterable[Path], size: int, display: bool = False, most: int = 1, header: str | None = None
    ) -> Iterator[list[Read]]:
        """Read files and yield what became of them, in order; the arguments are those of `Readers.read`.

        Raises:
            EdgeCxrError: the cluster fails, or a node has another edgecxr.
        """
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_read)
        source = (str(path) for path in paths)
        chunks = iter(lambda: list(islice(source, _CHUNK)), [])
        running: deque[Any] = deque()
        try:
            ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            for chunk in chunks:
                running.append(task.remote(chunk, size, display, header, self._time_limit, edgecxr.__version__))
                if len(running) >= ahead:
                    yield from _parts(ray.get(running.popleft()), most)
            while running:
                yield from _parts(ray.get(running.popleft()), most)
        except ray.exceptions.RayError as error:
            raise failed(error) from error

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def __enter__(self) -> RayReaders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _parts(found: list[Read], most: int) -> Iterator[list[Read]]:
    for start in range(0, len(found), most):
        yield found[start : start + most]


def _read(
    paths: list[str], size: int, display: bool, header: str | None, time_limit: float, version: str
) -> list[Read]:
    if edgecxr.__version__ != version:
        raise RuntimeError(f"this node has edgecxr {edgecxr.__version__}, not {version}: install the same on all nodes")
    with Readers(1, time_limit) as readers:
        return [one for part in readers.read(map(Path, paths), size, display, header=header) for one in part]
