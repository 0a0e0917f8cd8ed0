"""benchmarks/verdicts.py as a person runs it, with few cases; and its record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("lost", "code"), [("0.035", 0), ("0", 6)])
def test_false_passes_are_counted(tmp_path: Path, lost: str, code: int) -> None:
    command = [sys.executable, str(ROOT / "verdicts.py"), "--sizes", "4:1", "20:2", "40:20", "300:150", "--cases", "12"]
    done = subprocess.run(
        [*command, "--replicates", "100", "--lost", lost, "--out", str(tmp_path / "record.json")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    results = json.loads((tmp_path / "record.json").read_text())["results"]
    assert [(result["films"], result["positive"]) for result in results] == [(4, 1), (20, 2), (40, 20), (300, 150)]
    for result in results[:2]:
        assert set(result["passed"].values()) == {0.0}, "too few films decide nothing"
    assert results[-1]["passed"]["no loss"] == 1
    # What loses nothing passes where there are films enough, which is then no false "pass".
    assert (results[-1]["passed"]["misses"] == 1) is (lost == "0")


def test_the_record_keeps_the_limit_at_every_size() -> None:
    record = json.loads((ROOT / "results" / "cpu-2core" / "verdicts.json").read_text())
    assert record["status"] == "pass" and record["settings"]["lost"] == 0.035
    assert {(result["films"], result["positive"]) for result in record["results"]} >= {(4, 1), (20, 2)}
    assert all(check["limit"] == 0.05 for result in record["results"] for check in result["checks"])
