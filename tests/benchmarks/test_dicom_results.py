"""benchmarks/dicom_results.py as a person runs it, on a small film: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_results_and_what_highdicom_makes_are_timed_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    command = [sys.executable, str(BENCHMARKS / "dicom_results.py"), "--rounds", "2", "--side", "300", "260"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "record.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 6), done.stderr
    (result,) = json.loads((tmp_path / "record.json").read_text())["results"]
    assert len(result["cpu_ms"]) == 4 and all(spread["min"] > 0 for spread in result["cpu_ms"].values())
    sizes = result["bytes"]
    both, report, picture = sizes["report and picture"], *(n for name, n in sizes.items() if name.startswith("high"))
    assert abs(both - report - picture) < 4000, "not the same content"
    assert [check["name"] for check in result["checks"]] == ["results-highdicom"]
