"""benchmarks/decode.py as a person runs it, on few small films: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.long
def test_speed_and_memory_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "decode.py"), "--films", "12", "--side", "300", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--few", "12", "--out", str(tmp_path / "record.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 6), done.stderr
    speed, memory = json.loads((tmp_path / "record.json").read_text())["results"]
    assert all(speed[name]["films_per_s"]["median"] > 0 for name in ("one", "two", "bare"))
    assert [check["name"] for check in speed["checks"] + memory["checks"]] == [
        "decode-one",
        "decode-two",
        "decode-memory",
    ]
    assert memory["mib"]["12"]["all_mib"] > memory["mib"]["12"]["main_mib"] > 10, "workers are processes of their own"
