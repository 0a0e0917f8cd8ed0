"""The machine itself as rows: operating system, board, Python, CPU, memory, GPU."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edgecxr.doctor.listing import Row
from edgecxr.machine.board import board_model, jetpack, jetson_linux, power_mode
from edgecxr.machine.cores import cpu
from edgecxr.machine.gpu import Gpu, Gpus
from edgecxr.machine.memory import memory
from edgecxr.machine.system import distribution

GIB = 2**30


def system_rows(root: Path) -> Iterator[Row]:
    """Yield the operating system, the board if it has a name, and Python."""
    facts = {"system": platform.system(), "release": platform.release(), "machine": platform.machine()}
    name = distribution(root) or platform.system()
    yield Row("system", "os", "ok", f"{name}, {platform.system()} {platform.release()}, {platform.machine()}", "",
              facts=facts)  # fmt: skip
    board = board_model(root)
    if board:
        yield from _board(board, jetson_linux(root))
    yield Row("system", "python", "ok", f"{platform.python_version()} ({sys.executable})", "",
              facts={"version": platform.python_version(), "executable": sys.executable})  # fmt: skip


def cpu_rows(root: Path) -> Iterator[Row]:
    """Yield the CPU: model, cores that this process may use, instructions that matter to INT8."""
    found = cpu(root)
    many = f"{found.cores} cores"
    shown = many if found.allowed == found.cores else f"{found.allowed} of {many} for this process"
    units = ", ".join(found.vectors + found.int8) or "no vector units known"
    slow = "" if found.int8 else "; nothing that speeds up INT8"
    yield Row("system", "cpu", "ok", f"{found.model}, {shown}, {units}{slow}", facts=asdict(found))


def memory_rows(root: Path) -> Iterator[Row]:
    """Yield the memory, as far as a control group lets this process have it."""
    found = memory(root)
    value = f"{found.available_bytes / GIB:.1f} of {found.total_bytes / GIB:.1f} GiB available"
    value += " (limited by a control group)" if found.limited else ""
    if found.available_bytes < GIB / 2:
        remedy = "close other programs: less than 0.5 GiB is free"
        yield Row("system", "memory", "warn", value, remedy, facts=asdict(found))
    else:
        yield Row("system", "memory", "ok", value, facts=asdict(found))


def gpu_rows(gpus: Gpus, root: Path) -> list[Row]:
    """Return the rows that describe the GPUs, or say why there are none."""
    if gpus.found:
        many = len(gpus.found) > 1
        rows = [_gpu(f"gpu {i}" if many else "gpu", gpu) for i, gpu in enumerate(gpus.found)]
        return rows + (_power(root) if gpus.found[0].jetson else [])
    if gpus.problem:
        remedy = "restart, or install the driver again: CUDA does not work until nvidia-smi does"
        return [Row("gpu", "nvidia-smi", "warn", gpus.problem, remedy, facts={"driver": gpus.driver})]
    if gpus.driver:
        remedy = "give the container its driver tools (NVIDIA_DRIVER_CAPABILITIES=compute,utility), or put them on PATH"
        value = f"driver {gpus.driver} is loaded, but there is no nvidia-smi"
        return [Row("gpu", "gpu", "warn", value, remedy, facts={"driver": gpus.driver})]
    if gpus.on_bus:
        value = "an NVIDIA GPU is there, but no driver for it"
        return [Row("gpu", "gpu", "warn", value, "install NVIDIA's driver if the GPU shall be used")]
    return [
        Row("gpu", "gpu", "absent", "no NVIDIA GPU found", "none is needed to run models; training is slow without")
    ]


def _gpu(name: str, gpu: Gpu) -> Row:
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


def _power(root: Path) -> list[Row]:
    """Return the power mode and whether clocks are fixed: on a Jetson they decide what a benchmark measures."""
    shown, governor = power_mode(root)
    facts = {"mode": shown, "governor": governor or None}
    value = f"mode {shown}" + (f", clocks {governor}" if governor else "")
    if governor != "performance":
        value += "; before a benchmark: sudo jetson_clocks"
    return [Row("gpu", "power", "ok", value, facts=facts)]


def _board(board: str, linux: str | None) -> Iterator[Row]:
    facts = {"model": board, "jetson_linux": linux}
    if linux is None:
        yield Row("system", "board", "ok", board, facts=facts)
        return
    pack = jetpack(linux)
    value = f"{board}, Jetson Linux {linux}" + (f" (JetPack {pack})" if pack else "")
    if pack in ("4", "5"):
        remedy = "flash JetPack 6 if the board takes it; older ones have a TensorRT for Python 3.6 or 3.8"
        yield Row("system", "board", "warn", value, remedy, facts=facts)
    else:
        yield Row("system", "board", "ok", value, facts=facts)
