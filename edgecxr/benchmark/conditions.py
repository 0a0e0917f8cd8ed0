"""Under what conditions a machine measures: what it is, its clocks, power mode, temperatures and load."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecxr import extras
from edgecxr.benchmark.energy import visible_gpu
from edgecxr.machine.board import board_model, jetson_linux, power_mode
from edgecxr.machine.cores import cpu
from edgecxr.machine.gpu import TIMEOUT, gpus
from edgecxr.machine.memory import memory
from edgecxr.machine.system import run, text_of

PACKAGES = ("edgecxr", "numpy", "pydicom", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorrt",
            "tensorrt-rtx-cu13-libs", "pycuda", "cuda-python")  # fmt: skip
FELL = 0.95
"""A clock below this share of what it was at the start makes figures doubtful."""

# Bits of NVML's reasons for lower clocks that a user can do something about: power, heat, its supply.
_THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
OTHERS = 0.25
"""More cores than this at work for others, on average over a group, make figures doubtful."""

_SMI = ("clocks.sm", "temperature.gpu", "power.draw", "pstate", "clocks_throttle_reasons.active")


def device(root: Path) -> dict[str, Any]:
    """Say what the machine is; no name of a host or a person."""
    processor, found, board = cpu(root), gpus(root).found, board_model(root)
    many = "s" if processor.allowed > 1 else ""
    name = board or (found[0].name if found else f"{processor.model}, {processor.allowed} core{many}")
    return {
        "name": name,
        "cpu": asdict(processor),
        "memory_bytes": memory(root).total_bytes,
        "gpus": [asdict(gpu) for gpu in found],
        "board": board,
        "jetson_linux": jetson_linux(root),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {name: version for name in PACKAGES if (version := extras.installed(name))}


def sample(root: Path) -> dict[str, Any]:
    """Return clocks, temperatures and load of this moment, as far as the machine tells them.

    Returns:
        "cpu_mhz" (of the fastest core), "gpu_mhz", "temperature_c" (the highest), "gpu_temperature_c", "power_mode",
        "governor", "gpu_throttle" (NVML's bits), "load_1min"; each only if known.
    """
    found: dict[str, Any] = {"load_1min": round(os.getloadavg()[0], 2)}
    cores = root / "sys/devices/system/cpu"
    clocks = [int(text) / 1000 for path in cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (text := text_of(path))]
    clocks = clocks or [
        float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text_of(root / "proc/cpuinfo"), re.M)
    ]
    if clocks:
        found["cpu_mhz"] = round(max(clocks))
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    heat = [int(text) / 1000 for zone in zones if (text := text_of(zone).strip()).lstrip("-").isdigit()]
    if heat:
        found["temperature_c"] = round(max(heat), 1)
    mode, governor = power_mode(root)
    if governor:
        found["governor"] = governor
    if jetson_linux(root):
        found["power_mode"] = mode
        devices = (path for path in (root / "sys/class/devfreq").glob("*") if re.search("gpu|gv11b|ga10b", path.name))
        speeds = [int(text) / 1e6 for path in devices if (text := text_of(path / "cur_freq"))]
        if speeds:
            found["gpu_mhz"] = round(max(speeds))
    else:
        found |= _by_nvidia_smi()
    return found


def _by_nvidia_smi() -> dict[str, Any]:
    asked = run(
        ["nvidia-smi", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits", f"--id={visible_gpu()}"],
        TIMEOUT,
    )
    words = [word.strip() for word in asked.out.strip().split(",")]
    if asked.problem or len(words) != len(_SMI):
        return {}
    names = ("gpu_mhz", "gpu_temperature_c", "gpu_watts", "power_mode", "gpu_throttle")
    found: dict[str, Any] = {}
    for name, word in zip(names, words, strict=True):
        if name in ("power_mode", "gpu_throttle"):
            found[name] = word
        elif re.fullmatch(r"[\d.]+", word):
            found[name] = float(word)
    return found


def warnings(samples: list[dict[str, Any]]) -> list[str]:
    """Return what was wrong with the conditions, a sentence each.

    Args:
        samples: what `sample` returned, in the order of time; those taken at work have a "group", and say under
            "others" how many cores were busy for others.
    """
    found = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in samples:
        if "group" in one:
            groups.setdefault(one["group"], []).append(one)
    for key, what in (("cpu_mhz", "the CPU's clock"), ("gpu_mhz", "the GPU's clock")):
        # Different engines drive a clock differently: a group is compared with itself, pass after pass.
        falls = {
            group: (clocks[0], min(clocks))
            for group, those in groups.items()
            if (clocks := [one[key] for one in those if key in one]) and min(clocks) < FELL * clocks[0]
        }
        if falls:
            group, (first, least) = next(iter(falls.items()))
            found.append(
                f"{what} fell from {first:.0f} to {least:.0f} MHz ({group}): cool it, fix the clocks, measure again"
            )
    masks = [one.get("gpu_throttle", "") for one in samples if "group" in one]
    if any(int(mask, 16) & _THROTTLED for mask in masks if re.fullmatch(r"0x[0-9a-fA-F]+", mask)):
        found.append("the GPU slowed itself down, for power or heat: cool it or raise its limit, measure again")
    # An NVIDIA GPU's performance state changes with its work; a Jetson's mode does not.
    modes = list(dict.fromkeys(one["power_mode"] for one in samples if "governor" in one and "power_mode" in one))
    if len(modes) > 1:
        found.append(f"the power mode changed: {', '.join(modes)}")
    others = max((one["others"] for one in samples if one.get("others") is not None), default=0.0)
    if others > OTHERS:
        found.append(f"up to {others:.1f} cores were at work for other programs: end them, or figures are theirs too")
    return found
