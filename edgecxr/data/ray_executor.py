"""Decoding a data set on a Ray cluster, whose nodes see the same files: the same code for each file as on one machine.

Ray starts a task anew whose process or node has died; an image that ends its process alone, too, is rejected.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import edgecxr
from edgecxr.data.dataset import CxrDataset
from edgecxr.data.decode import CHUNK, Decoded, crashed, decode_one
from edgecxr.runtime.ray_readers import check_seen, check_version, connected

_RETRIES = 3
_AHEAD = 3
"""Tasks for each core of the cluster that may wait: more would fill the cluster's memory with pixels."""


def decoded(dataset: CxrDataset, todo: list[int], sizes: tuple[int, ...]) -> Generator[Decoded, None, None]:
    """Decode images on a Ray cluster, in the order in which they get ready.

    Args:
        dataset: picklable; its files are seen by all nodes.
        todo: indices of the images.
        sizes: sides of the images that are kept.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: the cluster cannot be reached or fails, or its nodes have another edgecxr.
    """
    with connected() as ray:
        chunk = ray.remote(num_cpus=1, max_retries=_RETRIES)(_decode_chunk)
        yield from _results(ray, chunk, dataset, todo, sizes)


def _results(
    ray: Any, chunk: Any, dataset: CxrDataset, todo: list[int], sizes: tuple[int, ...]
) -> Generator[Decoded, None, None]:
    shared = ray.put(dataset)  # handed over in a list: else Ray would unpickle it anew for each task
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    chunks.reverse()
    running: dict[Any, list[int]] = {}
    while chunks or running:
        cores = int(ray.cluster_resources().get("CPU", 1))
        while chunks and len(running) < _AHEAD * cores:
            part = chunks.pop()
            running[chunk.remote([shared], part, sizes, edgecxr.__version__)] = part
        ready, _ = ray.wait(list(running), num_returns=1)
        for task in ready:
            part = running.pop(task)
            try:
                for outcome, pixels in ray.get(task):
                    check_seen(outcome.reason, dataset.files[outcome.index])
                    yield outcome, pixels
            except ray.exceptions.WorkerCrashedError:
                # After all retries: one of them ends its process. Alone, it shows which.
                if len(part) == 1:
                    yield crashed(dataset, part[0])
                else:
                    chunks += [[index] for index in part]


_held: dict[str, CxrDataset] = {}  # of a process of the cluster


def _decode_chunk(shared: list[Any], indices: list[int], sizes: tuple[int, ...], version: str) -> list[Decoded]:
    check_version(version)
    name = shared[0].hex()
    if name not in _held:
        import ray

        _held.clear()
        _held[name] = ray.get(shared[0])
    return [decode_one(_held[name], index, sizes) for index in indices]
