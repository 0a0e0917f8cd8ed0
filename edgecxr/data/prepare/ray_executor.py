"""Decoding a data set on a Ray cluster, whose nodes see the same files: each core does what a process here would do.

Ray starts a task anew whose node has died. What a film may do to the process that reads it is contained on the node, as
it is on this machine.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import edgecxr
from edgecxr.data.prepare.decode import Decoded, Film, decode_in
from edgecxr.workers.cluster import check_seen, check_version, connected
from edgecxr.workers.processes import Processes

_CHUNK = 4
"""Films for one task."""

_RETRIES = 3
_AHEAD = 3
"""Tasks for each core of the cluster that may wait: more would fill the cluster's memory with pixels."""


def decoded(films: Iterable[Film], sizes: tuple[int, ...], time_limit: float) -> Generator[Decoded, None, None]:
    """Decode images on a Ray cluster, in the order in which they get ready.

    Args:
        films: picklable; their files are seen by all nodes.
        sizes: sides of the images that are kept.
        time_limit: seconds for one image.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: the cluster cannot be reached or fails, or its nodes have another edgecxr.
    """
    with connected() as ray:
        yield from _results(ray, iter(films), sizes, time_limit)


def _results(
    ray: Any, films: Iterable[Film], sizes: tuple[int, ...], time_limit: float
) -> Generator[Decoded, None, None]:
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_decode_chunk)
    chunks = iter(lambda: list(islice(films, _CHUNK)), [])
    running: dict[Any, dict[int, Path]] = {}
    while True:
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        for chunk in islice(chunks, max(0, _AHEAD * cores - len(running))):
            files = {film.index: film.file for film in chunk}
            running[task.remote(chunk, sizes, time_limit, edgecxr.__version__)] = files
        if not running:
            return
        ready, _ = ray.wait(list(running), num_returns=1)
        for one in ready:
            files = running.pop(one)
            for outcome, pixels in ray.get(one):
                check_seen(outcome.reason, files[outcome.index])
                yield outcome, pixels


_processes: dict[float, Processes] = {}  # of a process of the cluster: it ends with that


def _decode_chunk(chunk: list[Film], sizes: tuple[int, ...], time_limit: float, version: str) -> list[Decoded]:
    check_version(version)
    processes = _processes.setdefault(time_limit, Processes(1, time_limit))
    return list(decode_in(processes, chunk, sizes, time_limit))
