"""benchmarks/throughput.py as a person runs it, on few small steps: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "throughput.py"
sys.path.insert(0, str(SCRIPT.parent))

import throughput  # noqa: E402

SMALL = ["--steps", "2", "--batch", "2", "--depth", "2", "--patch", "56", "--rounds", "1", "--workers", "1"]


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *SMALL, "--device", "cpu", "--out", str(out), *more]
    # More threads than free cores make such small steps wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiled", "precision", "limit", "code"),
    [
        pytest.param(False, "bf16", "0", 6, marks=pytest.mark.long),
        pytest.param(True, "fp32", "1000", 0, marks=[pytest.mark.long, COMPILER]),
    ],
)
def test_every_ratio_is_measured(tmp_path: Path, compiled: bool, precision: str, limit: str, code: int) -> None:
    out = tmp_path / "record.json"
    done = run(out, "--limit", limit, "--precision", precision, *(["--compile"] if compiled else []))
    assert done.returncode == code, done.stderr
    assert ("limit exceeded: distill over bare loop" in done.stderr) is (code == 6)
    record = json.loads(out.read_text())
    assert record["status"] == ("fail" if code else "pass")
    names = ["distill over bare loop", "distill over DataLoader loop", "share of matrix peak"]
    assert [result["name"] for result in record["results"]] == names + ["compiled over eager"] * compiled
    for result in record["results"]:
        ratio = result["ratio"]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"] and math.isfinite(ratio["max"])
    assert list(record["images_per_s"]) == ["distill", "bare", "dataloader"] + ["compiled"] * compiled
    assert all(speed["min"] > 0 for speed in record["images_per_s"].values())
    assert 0 < record["data_share"]["median"] < 1
    # Of each image, products with 192 numbers a token: the student's blocks thrice (50 tokens, with the class token),
    # its patches twice, and the teacher's once (17 tokens).
    student, teacher = (2 * 2 * tokens * 192 * (12 * 192 + 2 * tokens) for tokens in (50, 17))
    patches = 2 * 192 * (224**2 + 2 * 28**2)
    assert record["gflop_per_step"] == pytest.approx(2 * (3 * student + teacher + patches) / 1e9, rel=0.01)
    device = record["device"]
    assert (device["type"], device["gpu"], device["precision"], device["threads"]) == ("cpu", None, precision, 1)
    assert device["torch"] and "out" not in record["settings"]


def test_what_edgecxr_refuses_ends_the_benchmark(monkeypatch, capsys) -> None:
    # In this process, which has torch already: nothing is measured.
    monkeypatch.setattr(sys, "argv", ["throughput.py", *SMALL, "--device", "cpu", "--precision", "fp16"])
    assert throughput.main() == 2
    assert re.search(r"--precision fp16 needs .*GPU", capsys.readouterr().err)
