"""How many cores this process may use: one answer for all that ask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecxr.machine.cores import cores, lacks_bfloat16


def grant(root: Path, maximum: str) -> Path:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text("0::/box\n")
    (root / "sys/fs/cgroup/box").mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/cgroup/box/cpu.max").write_text(maximum)
    return root


@pytest.mark.parametrize(
    ("maximum", "affinity", "expected"),
    [
        ("50000 100000", 8, 1),
        ("150000 100000", 8, 2),
        ("800000 100000", 2, 2),
        ("max 100000", 3, 3),
        ("", 3, 3),
        ("garbage", 1, 1),
    ],
)
def test_affinity_and_quota_count(tmp_path: Path, monkeypatch, maximum: str, affinity: int, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    assert cores(grant(tmp_path, maximum)) == expected


def test_a_quota_of_the_first_generation_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/docker/abc\n")
    box = tmp_path / "sys/fs/cgroup/cpu/docker/abc"
    box.mkdir(parents=True)
    (box / "cpu.cfs_quota_us").write_text("250000\n")
    (box / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2", True),
        ("flags\t\t: avx2 avx512f avx512_vnni", True),
        ("flags\t\t: avx512f avx512_bf16", False),
        ("flags\t\t: avx512f amx_bf16 amx_tile", False),
        ("Features\t: fp asimd i8mm", True),
        ("Features\t: fp asimd i8mm bf16", False),
        ("model name\t: bf16 of nothing", False),
        ("", False),
    ],
)
def test_a_cpu_lacks_bfloat16_only_where_the_system_lists_its_instructions(
    tmp_path: Path, line: str, expected: bool
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert lacks_bfloat16(tmp_path) is expected


def test_every_part_that_starts_processes_or_threads_asks_here() -> None:
    package = Path(cores.__code__.co_filename).parents[1]
    asks = {"sched_getaffinity", "cpu_count"}
    modules = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in asks)
    }
    assert modules == {"machine/cores.py", "engines/onnx_model.py"}  # the second asks whether it is all of them
