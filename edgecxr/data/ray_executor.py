"""Decoding a data set on a Ray cluster, whose nodes see the same files: the same code for each file as on one machine.

A cluster is found as Ray finds it: by RAY_ADDRESS, or the one that `ray start --head` started on this machine; else one
is started here for the while. Ray starts a task anew whose process or node has died; an image that ends its process
alone, too, is rejected.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from typing import Any

import edgecxr
from edgecxr.data.dataset import CxrDataset
from edgecxr.data.decode import CHUNK, Decoded, crashed, decode_one
from edgecxr.errors import EdgeCxrError, MissingPackage, brief

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
    ray = _ray()
    own = not ray.is_initialized()
    try:
        if own:
            # Of this program only what it was asked for goes to the terminal.
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level=logging.ERROR)
        chunk = ray.remote(num_cpus=1, max_retries=_RETRIES)(_decode_chunk)
        yield from _results(ray, chunk, dataset, todo, sizes)
    except ray.exceptions.RayError as error:
        raise EdgeCxrError(
            f"the Ray cluster failed ({brief(error)}): see `ray status`; the same command goes on from here"
        ) from error
    except ConnectionError as error:
        raise EdgeCxrError(
            f"no Ray cluster can be reached ({brief(error)}): start one with `ray start --head`, or set RAY_ADDRESS"
        ) from error
    finally:
        if own:
            ray.shutdown()


def _results(
    ray: Any, chunk: Any, dataset: CxrDataset, todo: list[int], sizes: tuple[int, ...]
) -> Generator[Decoded, None, None]:
    shared = ray.put(dataset)
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    chunks.reverse()
    running: dict[Any, list[int]] = {}
    while chunks or running:
        cores = int(ray.cluster_resources().get("CPU", 1))
        while chunks and len(running) < _AHEAD * cores:
            part = chunks.pop()
            running[chunk.remote(shared, part, sizes, edgecxr.__version__)] = part
        ready, _ = ray.wait(list(running), num_returns=1)
        for task in ready:
            part = running.pop(task)
            try:
                yield from ray.get(task)
            except ray.exceptions.WorkerCrashedError:
                # After all retries: one of them ends its process. Alone, it shows which.
                if len(part) == 1:
                    yield crashed(dataset, part[0])
                else:
                    chunks += [[index] for index in part]


def _decode_chunk(dataset: CxrDataset, indices: list[int], sizes: tuple[int, ...], version: str) -> list[Decoded]:
    if edgecxr.__version__ != version:
        raise RuntimeError(f"this node has edgecxr {edgecxr.__version__}, not {version}: install the same on all nodes")
    return [decode_one(dataset, index, sizes) for index in indices]


def _ray() -> Any:
    # Ray would report its use over the network; nothing shall leave a machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do one day
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "ray", "--executor ray") from error
    return ray
