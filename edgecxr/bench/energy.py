"""Energy, where the machine can tell: NVML for discrete GPUs, the INA3221 of a Jetson, RAPL of x86. Never guessed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from edgecxr.doctor.process import text_of
from edgecxr.errors import brief

RAPL = "sys/class/powercap"
INA3221 = "sys/bus/i2c/drivers/ina3221"
# The rail of the whole module, by the names that the boards have for it.
_WHOLE = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "SYS5V")
_SECONDS_BETWEEN_SAMPLES = 0.01


class Meter(Protocol):
    """Counts energy.

    Attributes:
        name: such as "RAPL".
        scope: what is measured, such as "CPU package"; more than the model, in any case.
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
    """The energy counters of x86 packages, which count microjoules and begin again at a limit."""

    name = "RAPL"
    scope = "CPU package"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = zones
        self._limits = [int(text_of(zone / "max_energy_range_uj") or 0) for zone in zones]
        self._read()  # an OSError where only root may

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
    """The power monitor of a Jetson's module, sampled and integrated.

    Args:
        voltage: file with millivolts.
        current: file with milliamperes.
        rail: its name.
    """

    name = "INA3221"

    def __init__(self, voltage: Path, current: Path, rail: str) -> None:
        self._files = voltage, current
        self.scope = f"whole module ({rail})"
        self._watts()

    def _watts(self) -> float:
        millivolts, milliamperes = (int(file.read_text()) for file in self._files)
        return millivolts * milliamperes / 1e6

    def start(self) -> None:
        """Begin."""
        self._samples = [(time.monotonic(), self._watts())]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_SAMPLES):
            self._samples.append((time.monotonic(), self._watts()))

    def stop(self) -> float:
        """Return the joules since `start`, by the trapezoidal rule."""
        self._ended.set()
        self._thread.join()
        samples = [*self._samples, (time.monotonic(), self._watts())]
        return sum((t2 - t1) * (w1 + w2) / 2 for (t1, w1), (t2, w2) in pairwise(samples))


class Nvml:
    """The energy counter of an NVIDIA GPU from Volta on, in millijoules.

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

    def used_mib(self) -> float:
        """Return how much of the GPU's memory is in use, by whomever."""
        return float(self._nvml.nvmlDeviceGetMemoryInfo(self._gpu).used) / 2**20


def find(root: Path) -> tuple[dict[str, Meter], dict[str, str]]:
    """Return the meters that work here, by "cpu", "gpu" or "board"; and for those that do not, why not.

    Args:
        root: "/", but for tests.
    """
    found: dict[str, Meter] = {}
    absent: dict[str, str] = {}
    for kind, opener in (("board", _ina3221), ("cpu", _rapl), ("gpu", _nvml)):
        try:
            meter = opener(root)
        except Exception as error:  # NVML has errors of its own
            absent[kind] = brief(error)
            continue
        found[kind] = meter
    return found, absent


def _rapl(root: Path) -> Meter:
    # Zones within a package are parts of it.
    zones = [zone for zone in sorted((root / RAPL).glob("intel-rapl:*")) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    if not zones:
        raise LookupError("RAPL: this machine has no energy counters of its CPU")
    try:
        return Rapl(zones)
    except PermissionError as error:
        raise LookupError(f"RAPL: {error.filename} is for root only; run as root to measure energy") from error


def _ina3221(root: Path) -> Meter:
    for label in sorted((root / INA3221).glob("*/hwmon/hwmon*/in*_label")):
        rail = text_of(label).strip()
        if rail in _WHOLE:
            number = re.findall(r"\d+", label.name)[0]
            return Ina3221(label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"), rail)
    raise LookupError("INA3221: no power monitor of a Jetson here")


def _nvml(root: Path) -> Meter:
    try:
        import pynvml
    except ImportError as error:
        raise LookupError("NVML: nvidia-ml-py is not installed; pip install nvidia-ml-py") from error
    return Nvml(pynvml)
