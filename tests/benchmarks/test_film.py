"""benchmarks/film.py as a person runs it, on a small film: that it measures, compares and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_readers_are_timed_in_turn_and_their_images_compared(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "film.py"), "--rounds", "2", "--side", "300", "260"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "record.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 6), done.stderr
    (result,) = json.loads((tmp_path / "record.json").read_text())["results"]
    assert {"edgecxr", "plain", "floats", "numpy"} <= set(result["cpu_ms"])
    assert all(spread["min"] > 0 for spread in result["cpu_ms"].values())
    assert (result["grey_levels_apart"]["plain"], result["grey_levels_apart"]["floats"]) == (0, 0)
    assert [check["name"] for check in result["checks"]] == ["film-plain", "film-floats", "film-numpy"]
