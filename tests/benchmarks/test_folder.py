"""benchmarks/folder.py as a person runs it, on few small films: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.long
def test_speed_and_memory_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "folder.py"), "--films", "6", "--side", "300", "--rounds", "1"]
    command += ["--few", "2", "--many", "4", "--out", str(tmp_path / "record.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 6), done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    speed, memory = record["results"]
    assert speed["ours"]["films_per_s"]["median"] > 0 and speed["theirs"]["films_per_s"]["median"] > 0
    assert [check["name"] for check in speed["checks"] + memory["checks"]] == ["folder-wall", "folder-memory"]
    assert memory["mib"]["2"]["all_mib"] > memory["mib"]["2"]["main_mib"] > 10, "readers are processes of their own"
