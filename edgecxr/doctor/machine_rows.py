"""Rows about the operating system, board, Python, CPU, memory and GPU."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edgecxr.doctor.ask import Answer
from edgecxr.doctor.listing import Row
from edgecxr.machine.board import board_model, jetpack, jetson_linux, power_mode
from edgecxr.machine.cores import cpu
from edgecxr.machine.gpu import Gpu, Gpus
from edgecxr.machine.memory import memory
from edgecxr.machine.system import distribution

GIB = 2**30


def system_rows(root: Path) -> Iterator[Row]:
    """Yield the operating system, the board if known, and Python."""
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
    """Yield the CPU.

    The row has its model, the cores that this process may use, and the instructions that speed up INT8.
    """
    processor = cpu(root)
    all_cores = f"{processor.cores} cores"
    shown = (
        all_cores if processor.allowed == processor.cores else f"{processor.allowed} of {all_cores} for this process"
    )
    units = ", ".join(processor.vectors + processor.int8) or "no vector units known"
    slow = "" if processor.int8 else "; nothing that speeds up INT8"
    yield Row("system", "cpu", "ok", f"{processor.model}, {shown}, {units}{slow}", facts=asdict(processor))


def memory_rows(root: Path) -> Iterator[Row]:
    """Yield the memory, within the limits of a control group."""
    usage = memory(root)
    value = f"{usage.available_bytes / GIB:.1f} of {usage.total_bytes / GIB:.1f} GiB available"
    value += " (limited by a control group)" if usage.limited else ""
    if usage.available_bytes < GIB / 2:
        remedy = "close other programs: less than 0.5 GiB is free"
        yield Row("system", "memory", "warn", value, remedy, facts=asdict(usage))
    else:
        yield Row("system", "memory", "ok", value, facts=asdict(usage))


def gpu_rows(gpus: Gpus, root: Path) -> list[Row]:
    """Return rows about the GPUs, or why there are none."""
    if gpus.usable:
        several = len(gpus.usable) > 1
        rows = [_gpu(f"gpu {i}" if several else "gpu", gpu) for i, gpu in enumerate(gpus.usable)]
        return rows + (_power(root) if gpus.usable[0].jetson else [])
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
    details = [
        gpu.name,
        gpu.capability and f"compute capability {gpu.capability}",
        gpu.memory_mib and f"{gpu.memory_mib / 1024:.0f} GiB",
        gpu.driver and f"driver {gpu.driver}",
        gpu.cuda and (f"CUDA {gpu.cuda}" if gpu.jetson else f"CUDA up to {gpu.cuda}"),
    ]
    if (0, 0) < gpu.level < (7, 2):
        details.append("no INT8 tensor cores: FP16 is its fast precision" if gpu.level == (7, 0) else "no tensor cores")
    return Row("gpu", name, "ok", ", ".join(detail for detail in details if detail), facts=asdict(gpu))


def _power(root: Path) -> list[Row]:
    """Return the power mode and clock governor of a Jetson.

    Benchmarks of a Jetson depend on both.
    """
    mode, governor = power_mode(root)
    facts = {"mode": mode, "governor": governor or None}
    value = f"mode {mode}" + (f", clocks {governor}" if governor else "")
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


def isolation(answer: Answer) -> Row:
    """Return the row about what decoders are kept from.

    Args:
        answer: of the probe "isolation".
    """
    remedy = "read films of strangers on Linux on x86_64 or aarch64 whose kernel has seccomp, or in a virtual machine"
    possible = answer.facts.get("possible", ["unknown"])
    if not possible:
        by = ", ".join(answer.facts.get("by", ())) or "another sandbox"
        without = "" if answer.facts.get("landlock") else "; this kernel has no Landlock"
        value = f"decoders have no network, no files to write, no processes and no signals, by {by}{without}"
        return Row("system", "isolation", "ok", value, facts=answer.facts)
    why = f" ({answer.problem})" if answer.problem else ""
    value = f"what decodes films has rights that it does not need: {', '.join(possible)}{why}"
    return Row("system", "isolation", "warn", value, remedy, facts=answer.facts)
