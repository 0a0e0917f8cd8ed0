"""Energy meters: NVML of GPUs, INA3221 of Jetsons, RAPL of x86 CPUs.

Energy is never estimated: without a meter there is none.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from edgecxr.errors import brief
from edgecxr.machine.system import text_of

RAPL = "sys/class/powercap"
INA3221 = "sys/bus/i2c/drivers/ina3221"
# Names of the rail that supplies the whole module; boards without one need the sum of the rails below.
_WHOLE = ("VDD_IN", "POM_5V_IN")
_PARTS = {
    "AGX Orin": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    "AGX Xavier": ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
}
_SECONDS_BETWEEN_SAMPLES = 0.01


class Meter(Protocol):
    """A meter that counts energy.

    Attributes:
        name: such as "RAPL".
        scope: the measured part of the machine, such as "CPU package"; it always includes more than the model.
    """

    name: str
    scope: str

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> float:
        """Return the joules since `start`."""
        ...


class Rapl:
    """Energy counters of x86 packages.

    They count microjoules and wrap around at a limit.
    """

    name = "RAPL"
    scope = "CPU package"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._limits = [int(text_of(zone / "max_energy_range_uj") or 0) for zone in zones]
        self._read()  # fails early if only root may read

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def start(self) -> None:
        """Begin."""
        self._first = self._read()

    def stop(self) -> float:
        """Return the joules since `start`."""
        pairs = zip(self._first, self._read(), self._limits, strict=True)
        return sum(last - first + (limit if last < first else 0) for first, last, limit in pairs) / 1e6


class Ina3221:
    """Power monitors of a Jetson module, sampled and integrated.

    Args:
        rails: name -> (file with millivolts, file with milliamperes).
    """

    name = "INA3221"

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        self._files = list(rails.values())
        self.scope = f"whole module ({' + '.join(rails)})"
        self._watts()

    def _watts(self) -> float:
        return sum(int(volts.read_text()) * int(amperes.read_text()) for volts, amperes in self._files) / 1e6

    def start(self) -> None:
        """Begin."""
        self._samples = [(time.monotonic(), self._watts())]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_SAMPLES):
            with suppress(OSError, ValueError):  # a monitor may be busy for a moment
                self._samples.append((time.monotonic(), self._watts()))

    def stop(self) -> float:
        """Return the joules since `start`, by the trapezoidal rule."""
        self._ended.set()
        self._thread.join()
        samples = [*self._samples, (time.monotonic(), self._watts())]
        return sum((t2 - t1) * (w1 + w2) / 2 for (t1, w1), (t2, w2) in pairwise(samples))


class Nvml:
    """Energy counter of an NVIDIA GPU, Volta or newer, in millijoules.

    Args:
        nvml: the module pynvml.
        index: of the GPU.
    """

    name = "NVML"
    scope = "GPU board"

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        self._read()

    def _read(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))

    def start(self) -> None:
        """Begin."""
        self._first = self._read()

    def stop(self) -> float:
        """Return the joules since `start`."""
        return (self._read() - self._first) / 1e3


def gpu_memory() -> Callable[[], float] | None:
    """Return a function that measures the used memory of the GPU.

    Returns:
        A function that returns the MiB in use on the first visible GPU, by all processes; None without NVML.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(visible_gpu())
        pynvml.nvmlDeviceGetMemoryInfo(gpu)
    except Exception:  # NVML has its own exceptions; `find` reports why it fails
        return None
    return lambda: float(pynvml.nvmlDeviceGetMemoryInfo(gpu).used) / 2**20


def visible_gpu() -> int:
    """Return the index of the GPU that engines use.

    GPUs are numbered by PCI bus, as NVML does and CUDA after `agree_on_gpus`.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return int(first) if first.isdigit() else 0


def agree_on_gpus() -> None:
    """Make CUDA number GPUs by PCI bus, as NVML does.

    This affects processes started afterwards. By default CUDA has its own order.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def find(root: Path) -> tuple[dict[str, Meter], dict[str, str]]:
    """Return the meters of this machine.

    Args:
        root: "/", except in tests.

    Returns:
        Two dictionaries by "cpu", "gpu" and "board": the meters that work, and why the others do not.
    """
    meters: dict[str, Meter] = {}
    absent: dict[str, str] = {}
    for kind, opener in (("board", _ina3221), ("cpu", _rapl), ("gpu", _nvml)):
        try:
            meter = opener(root)
        except Exception as error:  # NVML has its own exceptions
            absent[kind] = brief(error)
            continue
        meters[kind] = meter
    return meters, absent


def _rapl(root: Path) -> Meter:
    # Skip zones within a package, which it already includes, and "psys", which covers more than the packages.
    zones = [zone for zone in sorted((root / RAPL).glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    zones = [zone for zone in zones if text_of(zone / "name").startswith("package")]
    if not zones:
        raise LookupError("RAPL: this machine has no energy counters of its CPU")
    try:
        return Rapl(zones)
    except PermissionError as error:
        raise LookupError(f"RAPL: {error.filename} is for root only; run as root to measure energy") from error


def _ina3221(root: Path) -> Meter:
    rails = {}
    for label in sorted((root / INA3221).glob("*/hwmon/hwmon*/in*_label")):
        number = re.findall(r"\d+", label.name)[0]
        rails[text_of(label).strip()] = (label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
    for names in (*((whole,) for whole in _WHOLE), *_PARTS.values()):
        if set(names) <= set(rails):
            return Ina3221({name: rails[name] for name in names})
    if rails:
        raise LookupError(f"INA3221: of the rails {', '.join(sorted(rails))} it is not known which make up the module")
    raise LookupError("INA3221: no power monitor of a Jetson here")


def _nvml(root: Path) -> Meter:
    try:
        import pynvml
    except ImportError as error:
        raise LookupError("NVML: nvidia-ml-py is not installed; pip install nvidia-ml-py") from error
    return Nvml(pynvml, visible_gpu())
