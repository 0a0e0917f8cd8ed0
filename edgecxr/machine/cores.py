"""The CPU, and how many of its cores this process may use."""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edgecxr.machine.control_group import cpu_quota
from edgecxr.machine.system import run, text_of

# Instructions that make INT8 faster than float32, by the kernel's flag names.
_INT8 = {
    "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX512-VNNI", "amx_int8": "AMX-INT8",
    "asimddp": "ASIMD dot product", "i8mm": "I8MM",
}  # fmt: skip
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_VECTORS = {"avx2": "AVX2", "avx512f": "AVX-512", "asimd": "ASIMD", "sve": "SVE"}


@dataclass(frozen=True)
class Cpu:
    """Description of the CPU.

    Attributes:
        model: name of the CPU.
        cores: number of cores of the machine.
        allowed: number of cores that this process may use.
        quota: cores' worth of time that a control group grants; None if it sets no limit.
        vectors: names of the vector units.
        int8: names of the instructions that speed up INT8.
    """

    model: str
    cores: int
    allowed: int
    quota: float | None
    vectors: list[str]
    int8: list[str]


def cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may use.

    Its affinity and the CPU quota of its control group limit it.

    Args:
        root: root of the file system that describes the machine; tests pass another one.

    Returns:
        At least 1; a quota is rounded up.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, min(affinity, math.ceil(quota))) if quota else affinity


def lacks_bfloat16(root: Path = Path("/")) -> bool:
    """Tell whether the CPU has no instructions for products of bfloat16.

    Args:
        root: root of the file system that describes the machine; tests pass another one.

    Returns:
        False if the system does not list the CPU's instructions.
    """
    flags = _flags(text_of(root / "proc/cpuinfo"))
    return bool(flags) and not flags & _BFLOAT16


def cpu(root: Path = Path("/")) -> Cpu:
    """Describe the CPU."""
    text = text_of(root / "proc/cpuinfo")
    flags = _flags(text)
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return Cpu(
        model=model[1].strip() if model else _arm_name() or platform.machine(),
        cores=os.cpu_count() or 1,
        allowed=cores(root),
        quota=cpu_quota(root),
        vectors=[name for flag, name in _VECTORS.items() if flag in flags],
        int8=[name for flag, name in _INT8.items() if flag in flags],
    )


def _flags(cpuinfo: str) -> set[str]:
    return set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)).split())


def _arm_name() -> str | None:
    match = re.search(r"^Model name:\s*(.+)$", run(["lscpu"], 2).out, flags=re.MULTILINE)
    return match[1].strip() if match else None
