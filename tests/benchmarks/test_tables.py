"""benchmarks/tables.py as a person runs it, on a data set small enough for a CPU."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tables.py"
SMALL = [
    "--res",
    "28",
    "--methods",
    "none",
    "mlcak",
    "--depth",
    "2",
    "--patch",
    "56",
    "--batch",
    "12",
    "--device",
    "cpu",
]
SMALL += ["--epochs", "1", "--teacher-epochs", "1", "--init", "teacher", "--teacher-init", "random"]


def tables(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--data", "clinic", "--replicates", "100", *SMALL, *more]
    environment = os.environ | {"EDGECXR_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
@pytest.mark.long
def test_the_grid_is_trained_once_and_stands_beside_the_paper(clinic, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(clinic.path, root / "data" / "clinic")
    nothing = tables(root, "--report")
    assert (nothing.returncode, nothing.stderr.count("\n")) == (1, 1)
    assert "no student to report yet" in nothing.stderr
    done = tables(root, "--seeds", "2")
    assert done.returncode == 0, done.stderr
    out = root / "tables-clinic"
    assert (out / "tables.md").read_text() == done.stdout
    assert (out / "tables.png").read_bytes().startswith(b"\x89PNG")
    lines = done.stdout.splitlines()
    assert "12 films of 6 patients" in lines[0] and "seeds: 2" in lines[0]
    assert [line for line in lines if line.startswith("###")] == [
        "### Table 1: without distillation",
        "### Table 2: distilled",
        "### Method minus none, paired by seed (same initial weights, order and augmentation)",
        "### Share of the gap between teacher and undistilled student that is closed",
    ]
    plain = next(line for line in lines if line.startswith("| tiny | findings (macro) |"))
    assert "[0.834]" in plain and "[0.798]" in plain
    assert any("| mlcak |" in line and "[0.820]" in line for line in lines)
    assert any("| mlcak |" in line and ("[61%]" in line) for line in lines)
    assert "not for diagnosis" in lines[-1]
    with (out / "tables.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["px"], row["method"], row["seeds"]) for row in rows] == [
        ("224", "teacher", "1"), ("28", "none", "2"), ("28", "mlcak", "2")
    ] * 2  # fmt: skip
    record = json.loads((out / "tables.json").read_text())
    assert record["data"]["hash"] == clinic.hash
    assert record["settings"]["tokens"] == 49
    for row in record["rows"]:
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        if row["method"] == "mlcak":
            assert (row["share"] is not None) == (row["gap_low"] > 0)
            assert row["pairs"] == 2 and row["minus_none_low"] <= row["minus_none"] <= row["minus_none_high"]
            plain = next(r for r in record["rows"] if (r["task"], r["method"]) == (row["task"], "none"))
            assert row["minus_none"] == pytest.approx(row["auroc"] - plain["auroc"])
    runs = {folder.name for folder in root.glob("student*")}
    assert len(runs) == 4
    again = tables(root, "--seeds", "2")
    assert again.stdout == done.stdout
    assert again.stderr.count(" is done") == 5
    assert {folder.name for folder in root.glob("student*")} == runs
    # An undistilled student that starts at random is another one, which has no teacher.
    other = tables(root, "--methods", "none", "--init", "random")
    assert other.returncode == 0, other.stderr
    (new,) = {folder.name for folder in root.glob("student*")} - runs
    assert json.loads((root / new / "card.json").read_text())["teacher"] is None
