"""Memory of this process, within the limit of its control group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgecxr.machine.control_group import memory_limit
from edgecxr.machine.system import text_of


@dataclass(frozen=True)
class Memory:
    """Memory of this process.

    Attributes:
        total_bytes: memory of the machine, or the limit of the control group.
        available_bytes: memory that is free or can be freed.
        limited: whether a control group allows less than the machine has.
    """

    total_bytes: int
    available_bytes: int
    limited: bool


def memory(root: Path = Path("/")) -> Memory:
    """Return the memory of this process.

    Raises:
        KeyError: /proc/meminfo does not tell.
    """
    stated = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text_of(root / "proc/meminfo"), flags=re.MULTILINE))
    total, available = (int(stated[key]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit, used = memory_limit(root)
    if limit is not None and limit < total:
        return Memory(limit, max(0, min(available, limit - used)), limited=True)
    return Memory(total, available, limited=False)
