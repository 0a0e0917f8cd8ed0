"""benchmarks/training_step.py as a person runs it, on few small steps: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code", "status"), [("1", 0, "pass"), ("0", 6, "fail")])
@pytest.mark.long
def test_each_kind_of_training_has_its_share(tmp_path: Path, limit: str, code: int, status: str) -> None:
    out = tmp_path / "record.json"
    small = ["--steps", "3", "--batch", "2", "--depth", "2", "--limit", limit]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small, "--out", str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    record = json.loads(out.read_text())
    assert record["status"] == status
    assert len(record["results"]) == 4
    for result in record["results"]:
        assert 0 < result["share"]["min"] <= result["share"]["max"] < 1
        assert result["data_ms"]["max"] < result["step_ms"]["max"]
