from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from edgecxr.benchmark import conditions


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
    sample = conditions.sample(tmp_path)
    assert sample.pop("load_1min") == round(os.getloadavg()[0], 2)
    assert sample == {
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
    sample = conditions.sample(tmp_path)
    assert (sample["gpu_mhz"], sample["gpu_temperature_c"], sample["gpu_watts"]) == (1980, 44, 121.5)
    assert (sample["gpu_performance_state"], sample["gpu_throttle"]) == ("P0", "0x0000000000000000")


def test_a_gpu_s_performance_state_that_follows_the_load_is_no_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    tool = tmp_path / "nvidia-smi"
    samples = []
    for state in ("P8", "P0"):
        tool.write_text(f"#!/bin/sh\necho '1980, 44, 121.5, {state}, 0x0000000000000000'\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        samples.append(conditions.sample(tmp_path) | {"group": "a", "others": 0.0})
    assert samples[0]["governor"] == "powersave"
    assert [sample["gpu_performance_state"] for sample in samples] == ["P8", "P0"]
    assert conditions.warnings(samples) == []


def at_work(group: str, **facts: object) -> dict[str, object]:
    return {"when": "pass", "group": group, "load_1min": 1.0, "others": 0.0} | facts


def test_a_clock_that_fell_within_a_group_is_warned_of_and_no_difference_between_groups() -> None:
    idle = {"when": "before", "load_1min": 0.0, "cpu_mhz": 800, "gpu_mhz": 210}
    slow, fast = at_work("onnxruntime fp32", gpu_mhz=210), at_work("tensorrt fp16", gpu_mhz=1980)
    assert conditions.warnings([idle, fast, slow, fast, slow, idle]) == []
    (warning,) = conditions.warnings([idle, fast, slow, fast | {"gpu_mhz": 900}])
    assert warning.startswith("the GPU's clock fell from 1980 to 900 MHz (tensorrt fp16)")
    (warning,) = conditions.warnings([at_work("a", cpu_mhz=2000), at_work("a", cpu_mhz=1500)])
    assert "the CPU's clock fell from 2000 to 1500" in warning


def test_a_gpu_that_slowed_itself_down_is_warned_of() -> None:
    idle = "0x0000000000000001"
    assert conditions.warnings([at_work("a", gpu_throttle=idle), at_work("a", gpu_throttle="[N/A]")]) == []
    assert "slowed itself down" in conditions.warnings([at_work("a", gpu_throttle="0x0000000000000040")])[0]


def test_a_mode_that_changed_and_the_work_of_others_are_warned_of() -> None:
    jetson = {"governor": "schedutil", "power_mode": "15W"}
    warnings = conditions.warnings([at_work("a", **jetson), at_work("a", **jetson | {"power_mode": "7W"}, others=0.8)])
    assert warnings[0] == "the power mode changed: 15W, 7W" and "0.8 cores were at work" in warnings[1]
    assert conditions.warnings([at_work("a", others=0.1), at_work("a", others=None)]) == []


def test_the_machine_is_described_without_the_names_of_host_and_person() -> None:
    text = json.dumps(conditions.device(Path("/")))
    assert "cpu" in json.loads(text)
    host = socket.gethostname()
    assert len(host) < 4 or host not in text
