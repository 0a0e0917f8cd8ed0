"""Limits that a control group (cgroup v1 or v2) sets.

Containers and services run in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgecxr.machine.system import text_of


def memory_limit(root: Path) -> tuple[int | None, int]:
    """Return the control group's memory limit and use, in bytes.

    The lowest limit of this process's groups counts; it is None, and the use 0, if there is none. The use leaves out
    inactive file cache, which the kernel can drop.
    """
    limits: list[tuple[int, int]] = []
    for folder in _groups(root, "memory"):
        for name, usage, cache_key in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = text_of(folder / name).strip()
            if limit.isdigit():
                cache = re.search(rf"^{cache_key} (\d+)$", text_of(folder / "memory.stat"), flags=re.MULTILINE)
                used = int(text_of(folder / usage).strip() or 0) - (int(cache[1]) if cache else 0)
                limits.append((int(limit), max(0, used)))
    return min(limits, default=(None, 0), key=lambda pair: pair[0] or 0)


def cpu_quota(root: Path) -> float | None:
    """Return the CPU quota of the control group, in cores.

    None if it sets no limit.
    """
    quotas = []
    for folder in _groups(root, "cpu"):
        fields = text_of(folder / "cpu.max").split() or [
            text_of(folder / "cpu.cfs_quota_us").strip(),
            text_of(folder / "cpu.cfs_period_us").strip(),
        ]
        if all(field.isdigit() for field in fields) and len(fields) == 2 and int(fields[1]):
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups, innermost first."""
    mount = root / "sys/fs/cgroup"
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        # In a container this may be the host's path, which is missing here and reads as empty.
        inner = Path(path.strip().lstrip("/"))
        base = mount / controller if names else mount
        yield base / inner
        if inner.parts:
            yield from (base / parent for parent in inner.parents)
