"""What the web page says of the node and its machine."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgecxr import __version__
from edgecxr.machine.system import text_of
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.supervisor import roles

_PACKAGES = ("pynetdicom", "pydicom", "highdicom", "onnxruntime", "numpy", "Pillow", "starlette", "uvicorn")


@dataclass(frozen=True)
class ProcessState:
    """A process of the node.

    Attributes:
        name: such as "receive".
        since: when it was started, seconds since the epoch; None if it does not run.
        bytes: its memory and that of its workers, each shared page counted in part (PSS).
    """

    name: str
    since: float | None
    bytes: int


def processes(config: NodeConfig) -> list[ProcessState]:
    """Return the processes of a node.

    Each holds a lock in the state folder, which names it.
    """
    return [_process(config.folder, name) for name in ("serve", *roles(config))]


def versions() -> list[tuple[str, str]]:
    """Return what runs here: name and version."""
    rows = [("edgecxr", __version__), ("Python", platform.python_version()), ("Linux", platform.release())]
    for package in _PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return [*rows, ("machine", f"{platform.machine()}, {sys.platform}")]


def _process(folder: Path, name: str) -> ProcessState:
    match = re.match(r"process (\d+) ", text_of(folder / f".{name}.lock"))
    place = Path("/proc", match[1]) if match else Path("/nowhere")
    # A killed process leaves its number in the lock file, and another program may have the number now.
    if "edgecxr" not in text_of(place / "cmdline"):
        return ProcessState(name, None, 0)
    fields = text_of(place / "stat").rpartition(")")[2].split()
    booted = re.search(r"^btime (\d+)$", text_of(Path("/proc/stat")), flags=re.MULTILINE)
    if len(fields) < 20 or booted is None:
        return ProcessState(name, None, 0)
    since = int(booted[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    # The supervisor's children are the other processes; theirs are their workers.
    return ProcessState(name, since, _memory(place, with_children=name != "serve"))


def _memory(place: Path, with_children: bool) -> int:
    match = re.search(r"^Pss:\s+(\d+) kB$", text_of(place / "smaps_rollup"), flags=re.MULTILINE)
    match = match or re.search(r"^VmRSS:\s+(\d+) kB$", text_of(place / "status"), flags=re.MULTILINE)
    total = int(match[1]) * 1024 if match else 0
    if with_children:
        for thread in place.glob("task/*"):
            total += sum(_memory(Path("/proc", child), True) for child in text_of(thread / "children").split())
    return total
