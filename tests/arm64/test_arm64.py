"""The base install on aarch64 predicts what this machine predicts; the comparison that says so sees a difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from tests.arm64.compare import LIMIT, Result, compare

SCRIPT = Path(__file__).with_name("infer_arm64.sh")


@pytest.mark.arm64
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("EDGECXR_ARM64") != "1", reason="EDGECXR_ARM64=1 is not set: minutes of emulation")
def test_emulated_aarch64_predicts_what_this_machine_predicts(tmp_path: Path) -> None:
    out = tmp_path / "infer.json"
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(["bash", str(SCRIPT), "--out", str(out)], env=environment, stdout=subprocess.DEVNULL)
    assert done.returncode in (0, 6), "infer_arm64.sh failed before it compared: see standard error"
    record = json.loads(out.read_text())
    assert record["status"] == "pass", record["processors"]
    assert record["architecture"] == "aarch64" and record["largest_difference"] <= LIMIT
    assert record["predicted"] >= 30 and set(record["rejected"]) >= {"malformed", "undecodable", "not-an-image"}


def results() -> list[Result]:
    predicted = {
        "source": "films/a.dcm",
        "status": "ok",
        "abnormal": {"probability": 0.5},
        "findings": {"Nodule/Mass": {"probability": 0.25}},
    }
    return [predicted, {"source": "films/b.dcm", "status": "rejected", "reason": "malformed"}]


def test_equal_results_and_small_differences_are_no_problem() -> None:
    there = results()
    assert compare(results(), there) == (0, [])
    there[0]["abnormal"]["probability"] += LIMIT / 2
    largest, problems = compare(results(), there)
    assert largest == pytest.approx(LIMIT / 2) and not problems


@pytest.mark.parametrize(
    ("number", "changes", "problem"),
    [
        (0, {"abnormal": {"probability": 0.502}}, "a.dcm: probabilities differ by 0.002"),
        (0, {"findings": {"Nodule/Mass": {"probability": float("nan")}}}, "a.dcm: probabilities differ by nan"),
        (0, {"status": "rejected", "reason": "undecodable"}, "a.dcm: ok here, rejected undecodable there"),
        (1, {"reason": "undecodable"}, "b.dcm: rejected malformed here, rejected undecodable there"),
        (1, {"source": "films/c.dcm"}, "b.dcm: rejected malformed here, no result there"),
    ],
)
def test_a_difference_is_named_with_its_file(number: int, changes: Result, problem: str) -> None:
    there = deepcopy(results())
    there[number] |= changes
    assert compare(results(), there)[1] == [problem]
