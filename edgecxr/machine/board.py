"""The board of a small computer, such as a Jetson."""

from __future__ import annotations

import re
from pathlib import Path

from edgecxr.machine.system import run, text_of

_JETPACK = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}
"""Major version of JetPack, by that of Jetson Linux."""


def board_model(root: Path) -> str | None:
    """Return the name of an ARM board; None if it has none.

    An example is "NVIDIA Jetson Orin Nano Developer Kit".
    """
    return text_of(root / "proc/device-tree/model").strip("\0 \n") or None


def jetson_linux(root: Path) -> str | None:
    """Return the version of Jetson Linux, such as "36.4.3".

    None if this machine is not a Jetson.
    """
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(root / "etc/nv_tegra_release"))
    return f"{match[1]}.{match[2]}" if match else None


def jetpack(linux: str | None) -> str | None:
    """Return JetPack's major version for a version of Jetson Linux.

    None if it is not known.
    """
    return _JETPACK.get((linux or "").partition(".")[0])


def power_mode(root: Path) -> tuple[str, str]:
    """Return a Jetson's power mode and the CPU's clock governor.

    Returns:
        The power mode ("not known" if it cannot be read or this is no Jetson), and the governor ("" if there is none).
    """
    mode = stored = None
    if jetson_linux(root):
        mode = re.search(r"NV Power Mode:\s*(\S+)", run(["nvpmodel", "-q"], 3).out)
        stored = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status"))
    name = mode[1] if mode else str(int(stored[1])) if stored else "not known"
    return name, text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
