"""benchmarks/receive.py as a person runs it, on few small films: that it measures and judges, not how fast."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_three_receivers_are_measured_in_turn(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "dcmsend", "storescp"))):
        pytest.skip("needs root, unshare and DCMTK")
    out = tmp_path / "record.json"
    command = [sys.executable, str(BENCHMARKS / "receive.py"), "--films", "1", "--mib", "0.2", "--senders", "2"]
    done = subprocess.run([*command, "--rounds", "1", "--out", str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 6), done.stderr
    single, many = json.loads(out.read_text())["results"]
    kinds = ("node", "plain", "storescp")
    assert all(part[kind]["films_per_s"]["median"] > 0 for part in (single, many) for kind in kinds)
    assert [check["name"] for check in single["checks"] + many["checks"]] == ["one", "many", "memory"]
    assert many["films"] == 2
