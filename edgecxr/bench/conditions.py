"""Under what conditions a machine measures: what it is, its clocks, power mode, temperatures and load."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecxr import extras
from edgecxr.doctor import gpu, system
from edgecxr.doctor.process import run, text_of

PACKAGES = ("edgecxr", "numpy", "pydicom", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorrt",
            "tensorrt-rtx-cu13-libs", "pycuda", "cuda-python")  # fmt: skip
FELL = 0.95
"""A clock below this share of what it was at the start makes figures doubtful."""

_SMI = ("clocks.sm", "temperature.gpu", "power.draw", "pstate", "clocks_throttle_reasons.active")


def device(root: Path) -> dict[str, Any]:
    """Say what the machine is; no name of a host or a person."""
    (cpu,), (memory,) = system.cpu(root), system.memory(root)
    gpus, _ = gpu.look(root)
    board = system.board_model(root)
    cores = cpu.facts["allowed"]
    name = board or (gpus[0].name if gpus else f"{cpu.facts['model']}, {cores} core{'s' if cores > 1 else ''}")
    return {
        "name": name,
        "cpu": cpu.facts,
        "memory_bytes": memory.facts["total_bytes"],
        "gpus": [asdict(found) for found in gpus],
        "board": board,
        "jetson_linux": system.jetson_linux(root),
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
    mode, governor = gpu.power_mode(root)
    if governor:
        found["governor"] = governor
    if system.jetson_linux(root):
        found["power_mode"] = mode
        speeds = [
            int(text) / 1e6 for path in (root / "sys/class/devfreq").glob("*gpu*/cur_freq") if (text := text_of(path))
        ]
        if speeds:
            found["gpu_mhz"] = round(max(speeds))
    else:
        found |= _by_nvidia_smi()
    return found


def _by_nvidia_smi() -> dict[str, Any]:
    asked = run(["nvidia-smi", f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits", "--id=0"], gpu.TIMEOUT)
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


def warnings(samples: list[dict[str, Any]], cores: int, threads: int) -> list[str]:
    """Return what was wrong with the conditions, a sentence each.

    Args:
        samples: what `sample` returned, in the order of time; the first one before the work.
        cores: that this process may use.
        threads: that each engine used.
    """
    found = []
    for key, what in (("cpu_mhz", "the CPU's clock"), ("gpu_mhz", "the GPU's clock")):
        # A processor without work may have slowed down: the first sample with work is the measure.
        clocks = [one[key] for one in samples[1:-1] if key in one]
        if clocks and min(clocks) < FELL * clocks[0]:
            found.append(
                f"{what} fell from {clocks[0]:.0f} to {min(clocks):.0f} MHz: cool it, fix the clocks, measure again"
            )
    # An NVIDIA GPU's performance state changes with its work; a Jetson's mode does not.
    modes = list(dict.fromkeys(one["power_mode"] for one in samples if "governor" in one and "power_mode" in one))
    if len(modes) > 1:
        found.append(f"the power mode changed: {', '.join(modes)}")
    others = [one["load_1min"] - (threads if number else 0) for number, one in enumerate(samples)]
    load = max(others, default=0.0)
    if load > cores / 2:
        found.append(
            f"other programs were at work (load {load:.1f} beside this on {cores} cores): figures are theirs too"
        )
    return found
