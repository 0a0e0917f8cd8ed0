"""NVIDIA GPUs, as nvidia-smi or a Jetson's system image describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from edgecxr.machine.board import board_model, jetson_linux
from edgecxr.machine.system import ProgramOutcome, program, run, text_of
from edgecxr.storage.json_values import parse_json

TIMEOUT = 10.0
"""Seconds; without the persistence daemon, nvidia-smi first starts each GPU's driver."""

_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
# GPU generation and compute capability, by the chip in the device tree.
_TEGRA = {
    "tegra210": ("Maxwell", "5.3"), "tegra186": ("Pascal", "6.2"), "tegra194": ("Volta", "7.2"),
    "tegra234": ("Ampere", "8.7"), "tegra264": ("Blackwell", "11.0"),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU; attributes that are not known are None.

    Attributes:
        name: such as "Tesla V100-SXM2-16GB".
        capability: compute capability, such as "7.0".
        memory_mib: None on a Jetson, which shares the CPU's memory.
        driver: version of the driver.
        cuda: newest CUDA version that the driver runs; on a Jetson the installed one.
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
    """Outcome of the search for GPUs.

    Attributes:
        usable: the GPUs that can be used.
        problem: why nvidia-smi lists none; "" if it lists some or is not installed.
        driver: version of the driver that the kernel has loaded, if nvidia-smi lists no GPU.
        on_bus: whether there is a GPU without a driver.
    """

    usable: tuple[Gpu, ...]
    problem: str = ""
    driver: str | None = None
    on_bus: bool = False


def gpus(root: Path = Path("/")) -> Gpus:
    """Look for GPUs. Raises nothing."""
    if jetson_linux(root):
        return Gpus((_jetson(root),))
    smi = program("nvidia-smi")
    if smi is None:
        return Gpus((), driver=_kernel_driver(root), on_bus=_on_bus(root))
    answer = _query(smi, _FIELDS)
    if answer.problem and "compute_cap" in answer.problem:  # drivers before 510 do not know this field
        answer = _query(smi, tuple(field for field in _FIELDS if field != "compute_cap"))
    usable = [] if answer.problem else [gpu for line in answer.out.splitlines() if (gpu := _parse(line))]
    if not usable:
        problem = answer.problem or (answer.out.strip().splitlines() or ["no GPU listed"])[0]
        return Gpus((), problem, _kernel_driver(root))
    version = re.search(r"CUDA (?:UMD )?Version\s*:\s*([\d.]+)", run([smi], TIMEOUT).out)
    return Gpus(tuple(replace(gpu, cuda=version[1] if version else None) for gpu in usable))


def _query(smi: str, fields: tuple[str, ...]) -> ProgramOutcome:
    return run([smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], TIMEOUT)


def _parse(line: str) -> Gpu | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) == 3:
        words.insert(1, "")
    if len(words) != 4:
        return None
    name, capability, memory, driver = words
    is_version = re.fullmatch(r"\d+\.\d+", capability)
    # nvidia-smi shows [N/A] for a GPU that shares the CPU's memory.
    return Gpu(name, capability if is_version else None, int(memory) if memory.isdigit() else None, driver)


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
        cuda = str(parse_json(text_of(root / "usr/local/cuda/version.json"))["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        cuda = None
    name = f"{board_model(root) or 'Jetson'}, integrated" + (f" {generation} GPU" if generation else " GPU")
    return Gpu(name, capability, driver=f"Jetson Linux {jetson_linux(root)}", cuda=cuda, jetson=True)
