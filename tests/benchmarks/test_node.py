"""node.py, soak.py and kills.py of benchmarks/, on few small films: that they measure and judge, not how fast."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "dcmsend", "storescp"))),
        reason="needs root, unshare and DCMTK",
    ),
]


def measured(script: str, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    assert done.returncode in (0, 6), done.stderr
    return {result["name"]: result for result in json.loads(out.read_text())["results"]}


def test_each_part_is_measured_and_judged(tmp_path: Path) -> None:
    few = ("--films", "2", "--mib", "1.5", "--senders", "1", "--idle", "1")
    parts = measured("node.py", tmp_path / "record.json", *few)
    assert list(parts) == ["start", "sustained", "delay", "hostile"]
    checks = {check["name"]: check["ratio"] for part in parts.values() for check in part["checks"]}
    assert set(checks) == {
        "start to C-ECHO", "start to prediction", "CPU idle", "PSS idle", "sustained large", "sustained 1 MiB",
        "PSS peak", "delay p50", "delay p95", "echo",
    }  # fmt: skip
    assert all(value > 0 for name, value in checks.items() if name != "CPU idle")
    assert set(parts["sustained"]["large"]["received_per_s"]) == {"node", "plain", "storescp"}
    # What the listener of few lines does not survive, the node does.
    assert parts["hostile"]["node"]["unanswered"] == 0 < parts["hostile"]["plain"]["unanswered"]


def test_a_soak_loses_no_film_and_no_descriptor(tmp_path: Path) -> None:
    soak = measured("soak.py", tmp_path / "record.json", "--films", "200", "--seconds", "1")["soak"]
    checks = {check["name"]: check for check in soak["checks"]}
    assert checks["not filed"]["pass"] and soak["points"][-1]["films"] == 200
    assert set(soak["points"][-1]["roles"]) == {"serve", "receive", "infer_films", "send", "web_process"}
    # Memory settles later than after so few films.
    assert checks["descriptors"]["ratio"] < 1.1 and checks["memory"]["ratio"] < 1.3


def test_kills_of_all_processes_at_one_time_lose_nothing(tmp_path: Path) -> None:
    kills = measured("kills.py", tmp_path / "record.json", "--kills", "5", "--life", "4")["kills"]
    assert kills["kills"] == dict.fromkeys(("receive", "stow", "infer", "send", "web"), 5)
    assert all(kills["acknowledged"].values()) and all(map(passed, kills["checks"]))
    # A film may be on the disk although its sender did not get to know.
    assert set(kills["states"]) == {"filed"} and kills["states"]["filed"] >= sum(kills["acknowledged"].values())


def passed(check: dict[str, Any]) -> bool:
    return bool(check["pass"])
