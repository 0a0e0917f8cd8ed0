"""Conditions of a benchmark: the machine, its clocks, temperatures and load."""

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
"""Figures are doubtful if a clock falls below this share of its initial value."""

# Bits of NVML's throttle reasons that a user can fix: power, heat, power supply.
_THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
OTHERS = 0.25
"""Figures are doubtful if other programs keep more cores busy, on average over a group."""

_SMI = ("clocks.sm", "temperature.gpu", "power.draw", "pstate", "clocks_throttle_reasons.active")


def device(root: Path) -> dict[str, Any]:
    """Return a description of the machine.

    It contains no host names and no names of persons.
    """
    processor, devices, board = cpu(root), gpus(root).usable, board_model(root)
    plural = "s" if processor.allowed > 1 else ""
    name = board or (devices[0].name if devices else f"{processor.model}, {processor.allowed} core{plural}")
    return {
        "name": name,
        "cpu": asdict(processor),
        "memory_bytes": memory(root).total_bytes,
        "gpus": [asdict(gpu) for gpu in devices],
        "board": board,
        "jetson_linux": jetson_linux(root),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages in `PACKAGES`."""
    return {name: version for name in PACKAGES if (version := extras.installed(name))}


def sample(root: Path) -> dict[str, Any]:
    """Return the current clocks, temperatures and load.

    Returns:
        "cpu_mhz" (of the fastest core), "gpu_mhz", "temperature_c" (the highest), "gpu_temperature_c", "power_mode" (of
        a Jetson), "governor", "gpu_performance_state", "gpu_throttle" (NVML's bits), "load_1min"; each only if known.
    """
    state: dict[str, Any] = {"load_1min": round(os.getloadavg()[0], 2)}
    cores = root / "sys/devices/system/cpu"
    clocks = [int(text) / 1000 for path in cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq") if (text := text_of(path))]
    clocks = clocks or [
        float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text_of(root / "proc/cpuinfo"), re.M)
    ]
    if clocks:
        state["cpu_mhz"] = round(max(clocks))
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    heat = [int(text) / 1000 for zone in zones if (text := text_of(zone).strip()).lstrip("-").isdigit()]
    if heat:
        state["temperature_c"] = round(max(heat), 1)
    mode, governor = power_mode(root)
    if governor:
        state["governor"] = governor
    if jetson_linux(root):
        state["power_mode"] = mode
        devices = (path for path in (root / "sys/class/devfreq").glob("*") if re.search("gpu|gv11b|ga10b", path.name))
        speeds = [int(text) / 1e6 for path in devices if (text := text_of(path / "cur_freq"))]
        if speeds:
            state["gpu_mhz"] = round(max(speeds))
    else:
        state |= _by_nvidia_smi()
    return state


def _by_nvidia_smi() -> dict[str, Any]:
    output = run(
        ["nvidia-smi", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits", f"--id={visible_gpu()}"],
        TIMEOUT,
    )
    words = [word.strip() for word in output.out.strip().split(",")]
    if output.problem or len(words) != len(_SMI):
        return {}
    names = ("gpu_mhz", "gpu_temperature_c", "gpu_watts", "gpu_performance_state", "gpu_throttle")
    state: dict[str, Any] = {}
    for name, word in zip(names, words, strict=True):
        if name in ("gpu_performance_state", "gpu_throttle"):
            state[name] = word
        elif re.fullmatch(r"[\d.]+", word):
            state[name] = float(word)
    return state


def warnings(samples: list[dict[str, Any]]) -> list[str]:
    """Return warnings about the conditions, one sentence each.

    Args:
        samples: results of `sample` in order of time; those taken while models ran also have a "group", and in
            "others" the number of cores that other programs kept busy.
    """
    messages = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in samples:
        if "group" in entry:
            groups.setdefault(entry["group"], []).append(entry)
    for key, clock in (("cpu_mhz", "the CPU's clock"), ("gpu_mhz", "the GPU's clock")):
        # Compare the passes of one group only, since engines load the clocks differently.
        falls = {
            group: (clocks[0], min(clocks))
            for group, entries in groups.items()
            if (clocks := [entry[key] for entry in entries if key in entry]) and min(clocks) < FELL * clocks[0]
        }
        if falls:
            group, (first, least) = next(iter(falls.items()))
            messages.append(
                f"{clock} fell from {first:.0f} to {least:.0f} MHz ({group}): cool it, fix the clocks, measure again"
            )
    masks = [entry.get("gpu_throttle", "") for entry in samples if "group" in entry]
    if any(int(mask, 16) & _THROTTLED for mask in masks if re.fullmatch(r"0x[0-9a-fA-F]+", mask)):
        messages.append("the GPU slowed itself down, for power or heat: cool it or raise its limit, measure again")
    # A Jetson's mode stays as it is set; the performance state of other NVIDIA GPUs varies with the load.
    modes = list(dict.fromkeys(entry["power_mode"] for entry in samples if "power_mode" in entry))
    if len(modes) > 1:
        messages.append(f"the power mode changed: {', '.join(modes)}")
    others = max((entry["others"] for entry in samples if entry.get("others") is not None), default=0.0)
    if others > OTHERS:
        messages.append(
            f"up to {others:.1f} cores were at work for other programs: end them, which slow the models down"
        )
    return messages
