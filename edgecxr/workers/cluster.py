"""A Ray cluster: reached, left, and refused where its nodes are not like this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import edgecxr
from edgecxr.errors import EdgeCxrError, MissingPackage, brief


@contextmanager
def connected() -> Iterator[Any]:
    """Give Ray, connected to a cluster; one that was connected to before stays so, another is left at the end.

    RAY_ADDRESS names the cluster ("auto": the one that `ray start` started on this machine); without it one is started
    here for the while. What else runs on this machine is not joined unasked: its answers are pickles.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: the cluster cannot be reached, or fails.
    """
    # Ray would report its use over the network; nothing shall leave a machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will do one day
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "ray", "--executor ray") from error
    address = os.environ.get("RAY_ADDRESS") or "local"
    own = not ray.is_initialized()
    try:
        if own:
            # Of the tasks nothing goes to this program's terminal.
            options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EdgeCxrError(
            f"the Ray cluster at {address} cannot be reached ({brief(error)}): start one with `ray start --head` and "
            "set RAY_ADDRESS=auto, or leave it out"
        ) from error
    try:
        yield ray
    except ray.exceptions.RayTaskError as error:  # what a task raised
        raise EdgeCxrError(f"the Ray cluster failed: {brief(error.cause, 320)}") from error
    except ray.exceptions.RayError as error:
        raise EdgeCxrError(
            f"the Ray cluster failed ({brief(error)}): see `ray status`, and type the same again"
        ) from error
    finally:
        if own:
            ray.shutdown()


def check_version(version: str) -> None:
    """Raise RuntimeError where this node has another edgecxr than the program that asks."""
    if edgecxr.__version__ != version:
        raise RuntimeError(f"a node has edgecxr {edgecxr.__version__}, not {version}: install the same on all nodes")


def check_seen(reason: str, path: Path) -> None:
    """Raise EdgeCxrError where a node does not find a file that there is: it would reject all that it gets."""
    if reason == "not-found" and os.path.exists(path):
        raise EdgeCxrError(f"a node of the Ray cluster does not see {path}: mount it there under the same path")
