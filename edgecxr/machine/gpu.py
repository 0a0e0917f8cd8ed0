"""NVIDIA GPUs: by nvidia-smi, on a Jetson by files of the board's system image."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgecxr.machine.board import board_model, jetson_linux
from edgecxr.machine.system import Ended, run, text_of

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


@dataclass(frozen=True)
class Gpus:
    """The GPUs, or what stands for them.

    Attributes:
        found: those that can be used.
        problem: why nvidia-smi names none; "" where it does, or is not there.
        driver: that the kernel has loaded, where nvidia-smi names none.
        on_bus: whether there is a GPU without a driver.
    """

    found: tuple[Gpu, ...]
    problem: str = ""
    driver: str | None = None
    on_bus: bool = False


def gpus(root: Path = Path("/")) -> Gpus:
    """Look for GPUs. Raises nothing."""
    if jetson_linux(root):
        return Gpus((_jetson(root),))
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return Gpus((), driver=_kernel_driver(root), on_bus=_on_bus(root))
    asked = _query(smi, _FIELDS)
    if asked.problem and "compute_cap" in asked.problem:  # drivers before 510 do not know it
        asked = _query(smi, tuple(field for field in _FIELDS if field != "compute_cap"))
    found = [] if asked.problem else [gpu for line in asked.out.splitlines() if (gpu := _parse(line))]
    if not found:
        problem = asked.problem or (asked.out.strip().splitlines() or ["no GPU listed"])[0]
        return Gpus((), problem, _kernel_driver(root))
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)", run([smi], TIMEOUT).out)
    return Gpus(tuple(replace(gpu, cuda=version[1] if version else None) for gpu in found))


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
