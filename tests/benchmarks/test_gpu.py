"""benchmarks/gpu.py as a person runs it, on a data set small enough for a CPU."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.benchmark.record import read

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"

# A lent machine may hold torch and no pydicom.
WITHOUT_PYDICOM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pydicom":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def make_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "split", "Effusion", "abnormal"])
        for i in range(48):
            sick = i % 2
            pixels = rng.integers(0, 120, (64, 64), dtype=np.uint8) + np.uint8(100 * sick)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", i // 2, ("train", "val", "test")[i // 16], sick, sick])


def run(tmp_path: Path, *more: str) -> str:
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(WITHOUT_PYDICOM)
    command = [sys.executable, str(SCRIPT), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    command += ["--work", str(tmp_path / "work"), "--names", "films", "--epochs", "1", "--seeds", "1", "--patch", "56"]
    command += ["--device", "cpu", "--rounds", "1", "--methods", "none", "mlcak", "--res", "28", *more]
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}  # else busy cores wait for each other
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_every_step_leaves_a_record_and_is_not_done_twice(tmp_path):
    make_data(tmp_path / "data" / "films")
    first = run(tmp_path)
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    expected = {"probe", "smoke", "throughput", "films-teacher", "films-28-none-seed0", "films-28-mlcak-seed0"}
    expected |= {
        "films-teacher-engines",
        "films-28-mlcak-seed0-engines",
        "films-looks",
        "films-choices",
        "films-benchmark",
    }
    assert set(records) == expected, first
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(expected, "ok")
    student = records["films-28-mlcak-seed0"]["result"]
    assert 0 <= student["test"]["abnormal"]["auroc"] <= 1
    assert student["test"]["images"] == 16
    gain = student["test"]["against"]["findings"]["macro"]
    assert gain["low"] <= gain["difference"] <= gain["high"]
    ratios = {result["name"]: result["ratio"]["median"] for result in records["throughput"]["result"]["results"]}
    assert len(ratios) == 3 and min(ratios.values()) > 0
    engines = records["films-28-mlcak-seed0-engines"]["result"]
    assert [facts["precision"] for facts in engines["export"].values()] == ["fp32", "fp16", "int8"]
    # There is no GPU: what does not run says why.
    assert all("error" in engine or "record" in engine for engine in engines["engines"].values())
    measured = read(tmp_path / "out" / "benchmark-films" / "record.json")
    assert {row["backend"] for row in measured["rows"] if row["status"] == "ok"} == {"torch", "onnxruntime"}
    assert {row["precision"] for row in measured["rows"]} == {"fp32", "fp16", "int8"} and measured["film"] is None
    assert records["probe"]["result"]["packages"]["pydicom"] is not None  # installed, though it cannot be imported
    assert list(records["films-choices"]["result"]["rows"]) == ["default", "depth 4"]
    assert (tmp_path / "out" / "explain-films.png").exists()
    tables = (tmp_path / "out" / "tables-films" / "tables.md").read_text()
    assert "| mlcak |" in tables and "seeds: 1" in tables
    second = run(tmp_path)
    assert second.count("done before") == len(expected)


@pytest.mark.long
def test_a_failing_step_is_recorded_and_the_rest_goes_on(tmp_path):
    (tmp_path / "data").mkdir()
    out = run(tmp_path, "--minutes", "8")
    assert "probe: ok" in out
    record = json.loads((tmp_path / "out" / "films-teacher.json").read_text())
    assert record["status"].startswith("failed")
    assert any("films" in line for line in record["log"])
