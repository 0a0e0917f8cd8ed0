from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgecxr.benchmark import energy
from edgecxr.benchmark.energy import Nvml


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_machine_without_meters_says_so_for_each(tmp_path: Path) -> None:
    meters, absent = energy.find(tmp_path)
    assert not meters
    assert {kind: why.partition(":")[0] for kind, why in absent.items()} == {
        "board": "INA3221", "cpu": "RAPL", "gpu": "NVML"
    }  # fmt: skip


def test_rapl_adds_up_packages_and_survives_a_counter_that_begins_again(tmp_path: Path) -> None:
    for number, value in enumerate((990_000, 100)):
        put(tmp_path, f"{energy.RAPL}/intel-rapl:{number}/energy_uj", str(value))
        put(tmp_path, f"{energy.RAPL}/intel-rapl:{number}/max_energy_range_uj", "1000000")
        put(tmp_path, f"{energy.RAPL}/intel-rapl:{number}/name", f"package-{number}\n")
    put(tmp_path, f"{energy.RAPL}/intel-rapl:2/energy_uj", "7")  # of the whole machine, which contains the packages
    put(tmp_path, f"{energy.RAPL}/intel-rapl:2/name", "psys\n")
    put(tmp_path, f"{energy.RAPL}/intel-rapl:0:0/energy_uj", "5")  # a part of a package, counted there
    meter = energy.find(tmp_path)[0]["cpu"]
    meter.start()
    put(tmp_path, f"{energy.RAPL}/intel-rapl:0/energy_uj", "20000")
    put(tmp_path, f"{energy.RAPL}/intel-rapl:1/energy_uj", "500100")
    assert meter.stop() == pytest.approx(0.030 + 0.5)
    assert (meter.name, meter.scope) == ("RAPL", "CPU package")


def test_rapl_that_only_root_may_read_is_absent_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path, f"{energy.RAPL}/intel-rapl:0/energy_uj", "1")
    put(tmp_path, f"{energy.RAPL}/intel-rapl:0/name", "package-0\n")
    read = Path.read_text

    def refuse(self: Path, *args: Any, **options: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(file))
        return read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    meters, absent = energy.find(tmp_path)
    assert "cpu" not in meters and "run as root" in absent["cpu"]


def test_a_jetsons_monitor_is_integrated_over_time(tmp_path: Path) -> None:
    folder = f"{energy.INA3221}/1-0040/hwmon/hwmon3"
    for number, rail, current in ((1, "VDD_IN", "2000"), (2, "VDD_CPU_GPU_CV", "900")):
        put(tmp_path, f"{folder}/in{number}_label", rail + "\n")
        put(tmp_path, f"{folder}/in{number}_input", "5000\n")
        put(tmp_path, f"{folder}/curr{number}_input", current + "\n")
    meter = energy.find(tmp_path)[0]["board"]
    assert meter.scope == "whole module (VDD_IN)"
    begun = time.monotonic()
    meter.start()
    time.sleep(0.2)
    joules = meter.stop()
    assert 10 * 0.2 <= joules <= 10 * (time.monotonic() - begun)  # 5 V x 2 A


@pytest.mark.parametrize(
    ("rails", "scope"),
    [
        (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"), "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), "GPU + CPU + SOC + CV + VDDRQ + SYS5V"),
        (("VIN_SYS_5V0", "OTHER"), None),
    ],
)
def test_a_board_without_a_rail_of_the_whole_module_is_the_sum_of_its_parts(
    tmp_path: Path, rails: tuple[str, ...], scope: str | None
) -> None:
    for number, rail in enumerate(rails, start=1):
        folder = f"{energy.INA3221}/1-004{number % 2}/hwmon/hwmon{number % 2}"
        put(tmp_path, f"{folder}/in{number}_label", rail)
        put(tmp_path, f"{folder}/in{number}_input", "1000")
        put(tmp_path, f"{folder}/curr{number}_input", "1000")
    meters, absent = energy.find(tmp_path)
    if scope is None:
        assert not meters and "OTHER, VIN_SYS_5V0 it is not known" in absent["board"]
        return
    assert meters["board"].scope == f"whole module ({scope})"
    meters["board"].start()
    time.sleep(0.1)
    assert meters["board"].stop() == pytest.approx(0.1 * (scope.count("+") + 1), rel=0.5)


def test_nvml_counts_millijoules_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = iter([1000, 5_000, 12_500])
    module = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}",
        nvmlDeviceGetTotalEnergyConsumption=lambda gpu: next(counted),
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=3 << 20),
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    meter = energy.find(tmp_path)[0]["gpu"]
    assert isinstance(meter, Nvml)
    used = energy.gpu_memory()
    assert used is not None and used() == 3
    meter.start()
    assert meter.stop() == 7.5


def test_a_gpu_without_the_counter_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unsupported(gpu: object) -> int:
        raise RuntimeError("Not Supported")

    module = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=unsupported,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert energy.find(tmp_path)[1]["gpu"] == "Not Supported"


def test_the_gpu_is_the_one_that_engines_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert energy.visible_gpu() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert energy.visible_gpu() == 2
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    energy.agree_on_gpus()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
