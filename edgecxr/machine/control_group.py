"""What a control group (cgroup v1 or v2) lets this process have; containers and services are in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgecxr.machine.system import text_of


def memory_limit(root: Path) -> tuple[int | None, int]:
    """Return the control group's limit and what it uses, less what could be dropped, in bytes."""
    found: list[tuple[int, int]] = []
    for folder in _groups(root, "memory"):
        for name, usage, stale in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = text_of(folder / name).strip()
            if limit.isdigit():
                cache = re.search(rf"^{stale} (\d+)$", text_of(folder / "memory.stat"), flags=re.MULTILINE)
                used = int(text_of(folder / usage).strip() or 0) - (int(cache[1]) if cache else 0)
                found.append((int(limit), max(0, used)))
    return min(found, default=(None, 0), key=lambda pair: pair[0] or 0)


def cpu_quota(root: Path) -> float | None:
    """Return how many cores' worth of time the control group grants; None where it sets no limit."""
    quotas = []
    for folder in _groups(root, "cpu"):
        words = text_of(folder / "cpu.max").split() or [
            text_of(folder / "cpu.cfs_quota_us").strip(),
            text_of(folder / "cpu.cfs_period_us").strip(),
        ]
        if all(word.isdigit() for word in words) and len(words) == 2 and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, from its own up to the outermost."""
    mount = root / "sys/fs/cgroup"
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        # A container may see the path that its group has outside: what is not there reads as empty.
        inner = Path(path.strip().lstrip("/"))
        base = mount / controller if names else mount
        yield base / inner
        if inner.parts:
            yield from (base / parent for parent in inner.parents)
