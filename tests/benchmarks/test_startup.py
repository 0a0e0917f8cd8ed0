"""benchmarks/startup.py as a person runs it, on small films: that it measures, compares and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ANY = [f"--limit={name}=1000" for name in ("infer-memory", "version-wall", "help-wall")]


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "startup.py"), "--runs", "1", "--size", "300", "260"]
    return subprocess.run([*command, "--out", str(out), *more], capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_every_pair_is_measured_and_an_exceeded_limit_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "record.json", *ANY, "--limit=infer-wall=0")
    assert done.returncode == 6, done.stderr
    assert "limit exceeded: infer-wall" in done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["status"] == "fail"
    names = [result["name"] for result in record["results"]]
    films = ("jpeg-lossless", "jpeg2000", "uncompressed")
    assert names == [*(f"edgecxr infer, {film}" for film in films), "edgecxr --version", "edgecxr --help"]
    for result in record["results"]:
        assert result["ours"]["wall_s"]["median"] > 0
        assert result["theirs"]["memory_mib"]["median"] > 1
        assert result["ratio"]["wall"]["median"] > 0
        assert result["checks"]


@pytest.mark.slow
@pytest.mark.long
def test_the_bare_script_does_the_same_work(tmp_path: Path) -> None:
    done = run(tmp_path / "record.json", *ANY, "--limit=infer-wall=1000")
    assert done.returncode == 0, done.stderr
    for result in json.loads((tmp_path / "record.json").read_text())["results"][:3]:
        assert result["abnormal"] == pytest.approx(result["abnormal_bare"], abs=0.005)


def test_an_unknown_limit_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "record.json", "--limit=infer-speed=1")
    assert done.returncode == 2
    assert "infer-speed" in done.stderr
