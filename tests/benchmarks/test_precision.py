"""benchmarks/precision.py as a person runs it, on a small bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "precision.py"


@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0.01", 6)])
def test_each_file_has_its_drop_and_its_size(complete, films, tmp_path, limit, code):
    shutil.copytree(films.path, tmp_path / "runs" / "data" / "films")
    command = [sys.executable, str(SCRIPT), str(complete.path), "--data", "films", "--replicates", "100"]
    done = subprocess.run(
        [*command, "--limit", limit, "--out", str(tmp_path / "record.json")],
        env=os.environ | {"EDGECXR_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    (result,) = record["results"]
    assert list(result["files"]) == ["fp16", "int8"]
    for comparison in result["files"].values():
        drop = comparison["auroc_drop"]["findings"]
        assert drop["low"] <= drop["auroc"] <= drop["high"]
        assert comparison["images"] == len(films.rows("test"))
    assert result["bytes"]["int8"] < result["bytes"]["fp16"] < result["bytes"]["fp32"]
    assert result["checks"][0]["pass"] is (code == 0)
    assert ("limit exceeded" in done.stderr) is (code == 6)
