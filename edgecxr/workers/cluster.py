"""Connect to a Ray cluster, and check that its nodes match."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edgecxr
from edgecxr.errors import EdgeCxrError, MissingPackage, brief
from edgecxr.terminal import say
from edgecxr.workers.new_python import leave_current_folder


@contextmanager
def connected() -> Iterator[Any]:
    """Yield the `ray` module, connected to a cluster.

    An existing connection is kept; a new one is closed at the end. RAY_ADDRESS names the cluster ("auto": the one that
    `ray start` started on this machine). Without it, a temporary cluster is started here, for this machine alone: it
    listens on the loopback interface, and asks for a token that only its processes have. A cluster that happens to run
    on this machine is not joined, since its answers are pickles.

    Raises:
        MissingPackage: Ray is not installed.
        EdgeCxrError: the cluster cannot be reached, or fails.
    """
    # Ray would report usage over the network; nothing may leave a machine without consent.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise Ray warns of a future change
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address == "local" and "ray" not in sys.modules:
        _keep_to_this_machine()
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("ray", "ray", "--executor ray") from error
    own = not ray.is_initialized()
    try:
        if own:
            # Keep the output of tasks off this program's terminal.
            options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            if address == "local" and not _kept():
                say(
                    "warning: Ray will listen on all network interfaces, and runs what it is sent: install Ray 2.52 or "
                    "newer, or be in a network that you trust"
                )
            with _no_folder_to_import_from():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EdgeCxrError(
            f"the Ray cluster at {address} cannot be reached ({brief(error)}): start one with `ray start --head` and "
            "set RAY_ADDRESS=auto, or leave it out"
        ) from error
    try:
        with faults(ray):
            yield ray
    finally:
        if own:
            ray.shutdown()


def _keep_to_this_machine() -> None:
    """Set the variables that a cluster of one machine is started with.

    Ray reads them when it is imported.
    """
    # On Linux, too, this is what makes Ray take the loopback address as the node's; `_node_ip_address` does not.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)


def _kept() -> bool:
    """Return whether strangers cannot reach a cluster that is started now."""
    with suppress(ImportError, AttributeError):
        from ray._private import ray_constants

        if not ray_constants.ENABLE_RAY_CLUSTER:
            return True
    asks = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    try:
        return asks and find_spec("ray._private.authentication") is not None
    except ImportError:
        return False


@contextmanager
def _no_folder_to_import_from() -> Iterator[None]:
    """Start Ray's processes outside the current folder.

    Ray puts the folder in which it is started first on its workers' import path.
    """
    leave_current_folder()
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextmanager
def faults(ray: Any) -> Iterator[None]:
    """Turn Ray's errors into an EdgeCxrError."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:  # raised by a task
        raise EdgeCxrError(f"the Ray cluster failed: {brief(error.cause, 320)}") from error
    except ray.exceptions.RayError as error:
        raise EdgeCxrError(
            f"the Ray cluster failed ({brief(error)}): see `ray status`, and type the same again"
        ) from error


def check_version(version: str) -> None:
    """Check that this node has the caller's edgecxr version.

    Raises:
        RuntimeError: the node has another version.
    """
    if edgecxr.__version__ != version:
        raise RuntimeError(f"a node has edgecxr {edgecxr.__version__}, not {version}: install the same on all nodes")


def check_seen(reason: str, path: Path) -> None:
    """Check that a file "not-found" on a node is absent here too.

    A node that does not see the same files would reject every item.

    Raises:
        EdgeCxrError: the file exists here.
    """
    if reason == "not-found" and os.path.isfile(path) and os.access(path, os.R_OK):
        raise EdgeCxrError(f"a node of the Ray cluster does not see {path}: mount it there under the same path")
