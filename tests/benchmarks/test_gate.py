"""benchmarks/gate.py as a person runs it, on a small bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gate.py"


def test_rates_are_counted_of_the_split_of_other_data_and_of_other_things(complete, clinic, films, tmp_path):
    for prepared in (clinic, films):
        shutil.copytree(prepared.path, tmp_path / "runs" / "data" / prepared.path.name)
    others = tmp_path / "others"
    others.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8))
    for name in ("noise.png", "copy.bmp"):
        noise.save(others / name)
    Image.new("L", (90, 90)).save(others / "blank.png")
    noise.resize((20, 20)).save(others / "tiny.png")
    command = [sys.executable, str(SCRIPT), str(complete.path), "--data", "films", "clinic", "--others", str(others)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "record.json")],
        env=os.environ | {"EDGECXR_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 6), done.stderr
    (result,) = json.loads((tmp_path / "record.json").read_text())["results"]
    own, (check,) = result["rates"]["films"], result["checks"]
    assert check["pass"] is (own["low"] <= 0.02) and check["ratio"] == own["low"]
    # What the bundle learnt from is "clinic"; the films of the other set are another's.
    assert list(result["other_data"]) == ["films"]
    assert result["other_data"]["films"]["images"] == len(films.rows("test"))
    of_others = result["others"]
    assert (of_others["images"], of_others["unreadable"]) == (2, 1), "a copy counts once"
    assert of_others["reasons"]["tiny"] == 1 and of_others["refused"] + len(of_others["taken"]) == 2
    assert result["others_by_pixels"]["images"] == 1
