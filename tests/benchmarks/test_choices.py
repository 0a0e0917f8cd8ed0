"""benchmarks/choices.py as a person runs it: each choice has its AUROC and its latency."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "choices.py"


@pytest.mark.slow
@pytest.mark.long
def test_each_choice_is_measured_against_the_default(finished, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(finished.workspace.root, root)
    command = [sys.executable, str(SCRIPT), "--data", "clinic", "--epochs", "1", "--batch", "12", "--device", "cpu"]
    command += ["--replicates", "100", "--only", "gamma 0.1", "tokens 16"]
    environment = os.environ | {"EDGECXR_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads((root / "choices-clinic" / "choices.json").read_text())
    assert list(record["rows"]) == ["default", "gamma 0.1", "tokens 16"]
    default, gamma, tokens = record["rows"].values()
    assert default["findings"]["difference"] == default["abnormal"]["low"] == 0
    assert default["time_ratio"] == 1
    for row in (gamma, tokens):
        for task in ("findings", "abnormal"):
            expected = row[task]["auroc"] - default[task]["auroc"]
            assert row[task]["difference"] == pytest.approx(expected)
            assert row[task]["low"] <= expected <= row[task]["high"]
    assert tokens["ms_min"] > 0
    cards = {row["run"]: json.loads((root / row["run"] / "card.json").read_text()) for row in record["rows"].values()}
    assert [card["tokens"] for card in cards.values()] == [49, 49, 16]
    assert [card["training"]["gamma"] for card in cards.values()] == [1, 0.1, 1]
    assert (root / "choices-clinic" / "choices.md").read_text() == done.stdout
    assert done.stdout.count("\n| ") == 4  # the head and three rows
