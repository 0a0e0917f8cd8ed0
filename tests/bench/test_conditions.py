from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from edgecxr.bench import conditions


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_jetsons_clocks_heat_and_mode_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvpmodel
    put(tmp_path, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1")
    put(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    for core, mhz in ((0, 1500), (1, 1700)):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{mhz * 1000}\n")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41500\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "52000\n")
    put(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", "624750000\n")
    found = conditions.sample(tmp_path)
    assert found.pop("load_1min") == round(os.getloadavg()[0], 2)
    assert found == {
        "cpu_mhz": 1700, "temperature_c": 52.0, "governor": "schedutil", "power_mode": "2", "gpu_mhz": 625,
    }  # fmt: skip


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(conditions.sample(tmp_path)) == {"load_1min"}


def test_a_discrete_gpu_is_asked_by_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '1980, 44, 121.5, P0, 0x0000000000000000'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = conditions.sample(tmp_path)
    assert (found["gpu_mhz"], found["gpu_temperature_c"], found["gpu_watts"]) == (1980, 44, 121.5)
    assert (found["power_mode"], found["gpu_throttle"]) == ("P0", "0x0000000000000000")


def test_a_clock_that_fell_a_mode_that_changed_and_a_busy_machine_are_warned_of() -> None:
    start = {"load_1min": 0.1, "cpu_mhz": 2000, "gpu_mhz": 1000.0, "power_mode": "15W"}
    start["governor"] = "schedutil"
    idle = start | {"cpu_mhz": 800}
    assert conditions.warnings([idle, start, start | {"cpu_mhz": 1950, "load_1min": 3.5}, idle], 4, 2) == []
    found = conditions.warnings([start, start, start | {"cpu_mhz": 1500, "power_mode": "7W"}, idle], 4, 2)
    assert ["the CPU's clock fell from 2000 to 1500 MHz" in found[0], found[1]] == [
        True, "the power mode changed: 15W, 7W",
    ]  # fmt: skip
    assert len(found) == 2
    assert "other programs" in conditions.warnings([start | {"load_1min": 3.0}], 4, 2)[0]
    assert "load 3.0" in conditions.warnings([start, start | {"load_1min": 5.0}], 4, 2)[0], "those that came later"


def test_the_machine_is_described_without_the_names_of_host_and_person() -> None:
    text = json.dumps(conditions.device(Path("/")))
    assert "cpu" in json.loads(text)
    host = socket.gethostname()
    assert len(host) < 4 or host not in text
