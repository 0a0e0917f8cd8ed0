"""The machine itself: operating system, board, Python, CPU, memory. Files are read under a root that tests replace."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edgecxr.doctor.process import run, text_of
from edgecxr.doctor.report import Row

GIB = 2**30

# What makes INT8 quicker than float32 on a CPU, by the kernel's names of the flags.
_INT8 = {
    "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX512-VNNI", "amx_int8": "AMX-INT8",
    "asimddp": "ASIMD dot product", "i8mm": "I8MM",
}  # fmt: skip
_VECTORS = {"avx2": "AVX2", "avx512f": "AVX-512", "asimd": "ASIMD", "sve": "SVE"}
# JetPack by the major version of Jetson Linux.
_JETPACK = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}


def rows(root: Path) -> Iterator[Row]:
    """Yield the operating system, the board if it has a name, and Python."""
    facts = {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
    name = _pretty_name(root) or platform.system()
    yield Row("system", "os", "ok", f"{name}, {platform.system()} {platform.release()}, {platform.machine()}", "",
              facts=facts)  # fmt: skip
    board = board_model(root)
    if board:
        yield from _board(board, jetson_linux(root))
    yield Row("system", "python", "ok", f"{platform.python_version()} ({sys.executable})", "",
              facts={"version": platform.python_version(), "executable": sys.executable})  # fmt: skip


def cpu(root: Path) -> Iterator[Row]:
    """Yield the CPU: model, cores that this process may use, instructions that matter to INT8."""
    text = text_of(root / "proc/cpuinfo")
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)).split())
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    name = model[1].strip() if model else _arm_name() or platform.machine()
    present = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    quota = cpu_quota(root)
    allowed = min(affinity, math.ceil(quota)) if quota else affinity
    int8 = [shown for flag, shown in _INT8.items() if flag in flags]
    vectors = [shown for flag, shown in _VECTORS.items() if flag in flags]
    cores = f"{present} cores" if allowed == present else f"{allowed} of {present} cores for this process"
    kinds = f"{', '.join(vectors + int8) or 'no vector units known'}" + (
        "" if int8 else "; nothing that speeds up INT8"
    )
    facts = {"model": name, "cores": present, "allowed": allowed, "quota": quota, "vectors": vectors, "int8": int8}
    yield Row("system", "cpu", "ok", f"{name}, {cores}, {kinds}", facts=facts)


def memory(root: Path) -> Iterator[Row]:
    """Yield the memory, as far as a control group lets this process have it."""
    stated = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text_of(root / "proc/meminfo"), flags=re.MULTILINE))
    total, available = (int(stated[key]) * 1024 for key in ("MemTotal", "MemAvailable"))
    limit, used = memory_limit(root)
    limited = limit is not None and limit < total
    if limit is not None and limited:
        total, available = limit, max(0, min(available, limit - used))
    value = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available" + (" (limited by a control group)" * limited)
    facts = {"total_bytes": total, "available_bytes": available, "limited": limited}
    if available < GIB / 2:
        yield Row("system", "memory", "warn", value, "close other programs: less than 0.5 GiB is free", facts=facts)
    else:
        yield Row("system", "memory", "ok", value, facts=facts)


def board_model(root: Path) -> str | None:
    """Return the name of an ARM board, such as "NVIDIA Jetson Orin Nano Developer Kit"."""
    return text_of(root / "proc/device-tree/model").strip("\0 \n") or None


def jetson_linux(root: Path) -> str | None:
    """Return the version of Jetson Linux, such as "36.4.3"; None where it is not a Jetson."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(root / "etc/nv_tegra_release"))
    return f"{match[1]}.{match[2]}" if match else None


def jetpack(root: Path) -> str | None:
    """Return the major version of JetPack."""
    return _JETPACK.get((jetson_linux(root) or "").partition(".")[0])


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


def _board(board: str, linux: str | None) -> Iterator[Row]:
    facts = {"model": board, "jetson_linux": linux}
    if linux is None:
        yield Row("system", "board", "ok", board, facts=facts)
        return
    pack = _JETPACK.get(linux.partition(".")[0])
    value = f"{board}, Jetson Linux {linux}" + (f" (JetPack {pack})" if pack else "")
    if pack in ("4", "5"):
        remedy = "flash JetPack 6 if the board takes it; older ones have a TensorRT for Python 3.6 or 3.8"
        yield Row("system", "board", "warn", value, remedy, facts=facts)
    else:
        yield Row("system", "board", "ok", value, facts=facts)


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


def _arm_name() -> str | None:
    match = re.search(r"^Model name:\s*(.+)$", run(["lscpu"], 2).out, flags=re.MULTILINE)
    return match[1].strip() if match else None


def _pretty_name(root: Path) -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', text_of(root / "etc/os-release"), flags=re.MULTILINE)
    return match[1] if match else None
