"""NVIDIA GPUs: by nvidia-smi, on a Jetson by files of the board's system image."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgecxr.doctor.process import Ended, run, text_of
from edgecxr.doctor.report import Row
from edgecxr.doctor.system import board_model, jetson_linux

TIMEOUT = 10.0
"""Seconds; without the persistence daemon, nvidia-smi starts the driver of each GPU first."""

_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
# Name and compute capability by the chip that the device tree names.
_TEGRA = {
    "tegra210": ("Maxwell", "5.3"), "tegra186": ("Pascal", "6.2"), "tegra194": ("Volta", "7.2"),
    "tegra234": ("Ampere", "8.7"), "tegra264": ("Blackwell", "11.0"),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU; None is what could not be found out.

    Attributes:
        name: such as "Tesla V100-SXM2-16GB".
        capability: compute capability, such as "7.0".
        memory_mib: None on a Jetson, where it is the CPU's.
        driver: its version.
        cuda: the newest CUDA that the driver runs; on a Jetson the CUDA that is installed.
        jetson: whether it is part of a Jetson.
    """

    name: str
    capability: str | None = None
    memory_mib: int | None = None
    driver: str | None = None
    cuda: str | None = None
    jetson: bool = False

    @property
    def level(self) -> tuple[int, int]:
        """The compute capability as numbers; (0, 0) if it is not known."""
        major, _, minor = (self.capability or "").partition(".")
        return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def look(root: Path) -> tuple[list[Gpu], list[Row]]:
    """Return the GPUs, and the rows that describe them or say why there are none."""
    if jetson_linux(root):
        gpu = _jetson(root)
        return [gpu], [_row("gpu", gpu), *_power(root)]
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return [], [_without_tool(root)]
    asked = _query(smi, _FIELDS)
    if asked.problem and "compute_cap" in asked.problem:  # drivers before 510 do not know it
        asked = _query(smi, tuple(field for field in _FIELDS if field != "compute_cap"))
    gpus = [] if asked.problem else [found for line in asked.out.splitlines() if (found := _parse(line))]
    if not gpus:
        problem = asked.problem or (asked.out.strip().splitlines() or ["no GPU listed"])[0]
        remedy = "restart, or install the driver again: CUDA does not work until nvidia-smi does"
        return [], [Row("gpu", "nvidia-smi", "warn", problem, remedy, facts={"driver": _kernel_driver(root)})]
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)", run([smi], TIMEOUT).out)
    gpus = [replace(gpu, cuda=version[1] if version else None) for gpu in gpus]
    return gpus, [_row(f"gpu {i}" if len(gpus) > 1 else "gpu", found) for i, found in enumerate(gpus)]


def _query(smi: str, fields: tuple[str, ...]) -> Ended:
    return run([smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], TIMEOUT)


def _parse(line: str) -> Gpu | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) == 3:
        words.insert(1, "")
    if len(words) != 4:
        return None
    name, capability, memory, driver = words
    known = re.fullmatch(r"\d+\.\d+", capability)
    # A GPU that shares the CPU's memory answers [N/A].
    return Gpu(name, capability if known else None, int(memory) if memory.isdigit() else None, driver)


def _row(name: str, gpu: Gpu) -> Row:
    parts = [
        gpu.name,
        gpu.capability and f"compute capability {gpu.capability}",
        gpu.memory_mib and f"{gpu.memory_mib / 1024:.0f} GiB",
        gpu.driver and f"driver {gpu.driver}",
        gpu.cuda and (f"CUDA {gpu.cuda}" if gpu.jetson else f"CUDA up to {gpu.cuda}"),
    ]
    if (0, 0) < gpu.level < (7, 2):
        parts.append("no INT8 tensor cores: FP16 is its fast precision" if gpu.level == (7, 0) else "no tensor cores")
    return Row("gpu", name, "ok", ", ".join(part for part in parts if part), facts=asdict(gpu))


def _without_tool(root: Path) -> Row:
    driver = _kernel_driver(root)
    if driver:
        remedy = "give the container its driver tools (NVIDIA_DRIVER_CAPABILITIES=compute,utility), or put them on PATH"
        value = f"driver {driver} is loaded, but there is no nvidia-smi"
        return Row("gpu", "gpu", "warn", value, remedy, facts={"driver": driver})
    if _on_bus(root):
        value = "an NVIDIA GPU is there, but no driver for it"
        return Row("gpu", "gpu", "warn", value, "install NVIDIA's driver if the GPU shall be used")
    return Row("gpu", "gpu", "absent", "no NVIDIA GPU found", "none is needed to run models; training is slow without")


def _kernel_driver(root: Path) -> str | None:
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", text_of(root / "proc/driver/nvidia/version"))
    return match[1] if match else None


def _on_bus(root: Path) -> bool:
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if text_of(device / "vendor").strip() == "0x10de" and text_of(device / "class").startswith(
            ("0x0300", "0x0302")
        ):
            return True
    return False


def _jetson(root: Path) -> Gpu:
    chips = re.findall(r"nvidia,(tegra\d+)", text_of(root / "proc/device-tree/compatible"))
    generation, capability = next((_TEGRA[chip] for chip in chips if chip in _TEGRA), (None, None))
    try:
        cuda = str(json.loads(text_of(root / "usr/local/cuda/version.json"))["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        cuda = None
    name = f"{board_model(root) or 'Jetson'}, integrated" + (f" {generation} GPU" if generation else " GPU")
    return Gpu(name, capability, driver=f"Jetson Linux {jetson_linux(root)}", cuda=cuda, jetson=True)


def power_mode(root: Path) -> tuple[str, str]:
    """Return a Jetson's power mode ("not known" elsewhere) and the governor of the CPU's clocks ("" where none)."""
    mode = kept = None
    if jetson_linux(root):
        mode = re.search(r"NV Power Mode:\s*(\S+)", run(["nvpmodel", "-q"], 3).out)
        kept = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status"))
    shown = mode[1] if mode else str(int(kept[1])) if kept else "not known"
    return shown, text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()


def _power(root: Path) -> list[Row]:
    """Return the power mode and whether clocks are fixed: on a Jetson they decide what a benchmark measures."""
    shown, governor = power_mode(root)
    facts = {"mode": shown, "governor": governor or None}
    value = f"mode {shown}" + (f", clocks {governor}" if governor else "")
    if governor != "performance":
        value += "; before a benchmark: sudo jetson_clocks"
    return [Row("gpu", "power", "ok", value, facts=facts)]
