"""CPU, memory, board and GPU, read from files and scripts that the tests write."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from edgecxr.doctor import machine_rows as doctor
from edgecxr.doctor.listing import Row
from edgecxr.machine import gpu
from edgecxr.machine.gpu import Gpu

V100 = """#!/bin/sh
case "$*" in
  *compute_cap*) echo "Tesla V100-SXM2-16GB, 7.0, 16384, 535.183.01" ;;
  *) echo "| NVIDIA-SMI 535.183.01    Driver Version: 535.183.01    CUDA Version: 12.2 |" ;;
esac
"""
OLD_DRIVER = """#!/bin/sh
case "$*" in
  *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
  *query*) echo "Tesla V100-SXM2-16GB, 16384, 450.80.02" ;;
esac
"""
TWO = """#!/bin/sh
case "$*" in *query*) printf 'NVIDIA L4, 8.9, 23034, 550.1\\nNVIDIA GB10, 12.1, [N/A], 580.1\\n' ;; esac
"""
BROKEN = """#!/bin/sh
echo "Failed to initialize NVML: Driver/library version mismatch"
exit 18
"""
HANGING = "#!/bin/sh\nsleep 30\n"


def files(root: Path, **contents: str) -> Path:
    """Write files; "__" in a name stands for "/", "ZZ" for ".", "QQ" for "-"."""
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("ZZ", ".").replace("QQ", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts a script on PATH as nvidia-smi."""

    def write(script: str | None) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if script is not None:
            (folder / "nvidia-smi").write_text(script)
            (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin" if script is not None else str(folder))

    return write


def look(root: Path) -> tuple[list[Gpu], list[Row]]:
    gpus = gpu.gpus(root)
    return list(gpus.usable), doctor.gpu_rows(gpus, root)


def only(rows) -> Row:
    (row,) = rows
    return row


def test_a_v100(smi, tmp_path: Path) -> None:
    smi(V100)
    gpus, rows = look(tmp_path)
    assert gpus == [Gpu("Tesla V100-SXM2-16GB", "7.0", 16384, "535.183.01", "12.2")]
    row = only(rows)
    assert row.status == "ok" and row.facts["capability"] == "7.0"
    assert "16 GiB, driver 535.183.01, CUDA up to 12.2, no INT8 tensor cores" in row.value


def test_a_driver_that_does_not_know_the_compute_capability(smi, tmp_path: Path) -> None:
    smi(OLD_DRIVER)
    gpus, _ = look(tmp_path)
    assert gpus == [Gpu("Tesla V100-SXM2-16GB", None, 16384, "450.80.02", None)]


def test_several_gpus_and_one_without_memory_of_its_own(smi, tmp_path: Path) -> None:
    smi(TWO)
    gpus, rows = look(tmp_path)
    assert [row.name for row in rows] == ["gpu 0", "gpu 1"]
    assert [each.memory_mib for each in gpus] == [23034, None]


def test_a_driver_that_fails_is_a_warning_with_its_own_words(smi, tmp_path: Path) -> None:
    smi(BROKEN)
    gpus, rows = look(tmp_path)
    row = only(rows)
    assert (gpus, row.status) == ([], "warn")
    assert row.value == "Failed to initialize NVML: Driver/library version mismatch" and row.remedy


def test_a_driver_that_hangs_is_left_alone(smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(HANGING)
    monkeypatch.setattr(gpu, "TIMEOUT", 0.3)
    started = time.monotonic()
    row = only(look(tmp_path)[1])
    assert time.monotonic() - started < 5
    assert row.status == "warn" and re.fullmatch(r"did not answer .*0\.3 s", row.value)


def test_no_gpu(smi, tmp_path: Path) -> None:
    smi(None)
    assert only(look(tmp_path)[1]).status == "absent"


def test_a_container_without_the_drivers_tools(smi, tmp_path: Path) -> None:
    smi(None)
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
    row = only(look(files(tmp_path, proc__driver__nvidia__version=version))[1])
    assert row.status == "warn" and row.value.startswith("driver 535.183.01 is loaded")


def test_a_gpu_without_a_driver(smi, tmp_path: Path) -> None:
    smi(None)
    bus = files(tmp_path, sys__bus__pci__devices__1__vendor="0x10de\n", sys__bus__pci__devices__1__class="0x030200\n")
    row = only(look(bus)[1])
    assert row.status == "warn" and "no driver" in row.value


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    return files(
        tmp_path,
        etc__nv_tegra_release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        **{"proc__deviceQQtree__model": "NVIDIA Jetson Orin Nano Developer Kit\0"},
        **{"proc__deviceQQtree__compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0"},
        usr__local__cuda__versionZZjson='{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
        var__lib__nvpmodel__status="pmode:0002\n",
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="schedutil\n",
    )


def test_a_jetson(jetson: Path, smi) -> None:
    smi(None)
    gpus, rows = look(jetson)
    orin = only(gpus)
    assert (orin.capability, orin.cuda, orin.driver, orin.jetson) == ("8.7", "12.6.68", "Jetson Linux 36.4.3", True)
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[1].facts == {"mode": "2", "governor": "schedutil"} and "sudo jetson_clocks" in rows[1].value
    board = {row.name: row for row in doctor.system_rows(jetson)}["board"]
    assert board.value == "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3 (JetPack 6)"


def test_an_old_jetpack_is_warned_of(jetson: Path) -> None:
    files(jetson, etc__nv_tegra_release="# R32 (release), REVISION: 7.4, GCID: 1, BOARD: t210ref\n")
    board = {row.name: row for row in doctor.system_rows(jetson)}["board"]
    assert board.status == "warn" and "(JetPack 4)" in board.value


def test_instructions_that_matter_to_int8(tmp_path: Path) -> None:
    files(tmp_path, proc__cpuinfo="model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni\n")
    facts = only(doctor.cpu_rows(tmp_path)).facts
    assert (facts["model"], facts["int8"]) == ("Some CPU", ["AVX-VNNI", "AVX512-VNNI"])
    files(tmp_path, proc__cpuinfo="model name\t: Cortex\nFeatures\t: fp asimd asimddp\n")
    assert only(doctor.cpu_rows(tmp_path)).facts["int8"] == ["ASIMD dot product"]
    files(tmp_path, proc__cpuinfo="model name\t: Cortex-A57\nFeatures\t: fp asimd\n")
    assert re.search(r"nothing .*INT8", only(doctor.cpu_rows(tmp_path)).value)


MEMORY = "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n"


def test_memory_without_a_limit(tmp_path: Path) -> None:
    files(tmp_path, proc__meminfo=MEMORY, proc__self__cgroup="0::/\n", sys__fs__cgroup__memoryZZmax="max\n")
    row = only(doctor.memory_rows(tmp_path))
    assert (row.value, row.facts["limited"]) == ("8.0 of 16.0 GiB available", False)


def test_the_limit_of_a_control_group_above_counts(tmp_path: Path) -> None:
    files(
        tmp_path,
        proc__meminfo=MEMORY,
        proc__self__cgroup="0::/box/inner\n",
        sys__fs__cgroup__box__inner__memoryZZmax="max\n",
        sys__fs__cgroup__box__memoryZZmax=str(4 * 2**30),
        sys__fs__cgroup__box__memoryZZcurrent=str(3 * 2**30),
        sys__fs__cgroup__box__memoryZZstat=f"anon 5\ninactive_file {2**30}\n",
        sys__fs__cgroup__box__cpuZZmax="50000 100000\n",
    )
    row = only(doctor.memory_rows(tmp_path))
    assert re.fullmatch(r"2\.0 of 4\.0 GiB available \(.*control group\)", row.value)
    facts = only(doctor.cpu_rows(tmp_path)).facts
    assert (facts["quota"], facts["allowed"]) == (0.5, 1)


def test_the_limit_of_a_first_generation_control_group(tmp_path: Path) -> None:
    files(
        tmp_path,
        proc__meminfo=MEMORY,
        proc__self__cgroup="5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        sys__fs__cgroup__memory__memoryZZlimit_in_bytes=str(2**30),
        sys__fs__cgroup__memory__memoryZZusage_in_bytes=str(2**30 - 2**28),
    )
    row = only(doctor.memory_rows(tmp_path))
    assert row.status == "warn" and row.facts["available_bytes"] == 2**28


def test_cores_withheld_from_this_process_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    files(tmp_path, proc__cpuinfo="model name\t: CPU\nflags : avx2\n")
    assert "2 of 8 cores for this process" in only(doctor.cpu_rows(tmp_path)).value
