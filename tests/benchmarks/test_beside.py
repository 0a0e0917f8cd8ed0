"""benchmarks/beside.py as a person runs it, on few small steps: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "beside.py"


@pytest.mark.parametrize(
    ("ways", "limit", "code", "status"),
    [
        (["as typed"], "1e9", 0, "pass"),
        (["as typed", "spinning"], "0", 6, "fail"),
    ],
)
@pytest.mark.long
def test_training_alone_and_beside_other_work(
    tmp_path: Path, ways: list[str], limit: str, code: int, status: str
) -> None:
    out = tmp_path / "record.json"
    small = ["--rounds", "1", "--epochs", "2", "--steps", "2", "--batch", "2", "--depth", "2", "--limit", limit]
    small += [] if len(ways) == 2 else ["--ways", *ways]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr
    record = json.loads(out.read_text())
    assert record["status"] == status and record["settings"]["busy_processes"] >= 1
    assert [result["name"] for result in record["results"]] == ways
    assert [len(result["checks"]) for result in record["results"]] == [1, 0][: len(ways)]
    for result in record["results"]:
        assert result["images_per_s_alone"]["min"] > 0 and result["images_per_s_beside"]["min"] > 0
        alone, beside = (result[f"images_per_s_{name}"]["median"] for name in ("alone", "beside"))
        assert result["alone_over_beside"]["median"] == pytest.approx(alone / beside, rel=0.02)
