"""benchmarks/auto_precision.py as a person runs it: that it chooses, measures and judges, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="openvino is not installed")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "auto_precision.py"


@pytest.mark.long
def test_it_measures_each_engine_and_judges_what_was_chosen(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--choices", "1", "--out", out], stdout=subprocess.PIPE, text=True, check=False
    )
    whole = json.loads(out.read_text())
    names = [result["name"] for result in whole["results"]]
    assert names == [f"research-28, {way}" for way in ("onnxruntime", "openvino", "openvino, no more than AVX2")]
    for result in whole["results"]:
        (chosen,), ms = result["chosen"], result["ms"]
        assert result["ratio"] == round(ms[chosen] / ms["fp32"], 4) and set(ms) == {"fp32", "int8"}
        assert result["checks"][0]["pass"] == (result["ratio"] <= 1.03)
    assert ended.returncode == (0 if whole["status"] == "pass" else 6)
