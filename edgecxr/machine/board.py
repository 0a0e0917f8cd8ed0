"""The board, if it is a small computer with a name; Jetsons."""

from __future__ import annotations

import re
from pathlib import Path

from edgecxr.machine.system import run, text_of

_JETPACK = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}
"""JetPack by the major version of Jetson Linux."""


def board_model(root: Path) -> str | None:
    """Return the name of an ARM board, such as "NVIDIA Jetson Orin Nano Developer Kit"."""
    return text_of(root / "proc/device-tree/model").strip("\0 \n") or None


def jetson_linux(root: Path) -> str | None:
    """Return the version of Jetson Linux, such as "36.4.3"; None where it is not a Jetson."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(root / "etc/nv_tegra_release"))
    return f"{match[1]}.{match[2]}" if match else None


def jetpack(linux: str | None) -> str | None:
    """Return the major version of JetPack that a version of Jetson Linux belongs to."""
    return _JETPACK.get((linux or "").partition(".")[0])


def power_mode(root: Path) -> tuple[str, str]:
    """Return a Jetson's power mode ("not known" elsewhere) and the governor of the CPU's clocks ("" where none)."""
    mode = kept = None
    if jetson_linux(root):
        mode = re.search(r"NV Power Mode:\s*(\S+)", run(["nvpmodel", "-q"], 3).out)
        kept = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status"))
    shown = mode[1] if mode else str(int(kept[1])) if kept else "not known"
    return shown, text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
