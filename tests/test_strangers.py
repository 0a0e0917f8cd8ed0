"""What comes from strangers is refused with a reason or used rightly, whatever was changed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.strangers import USES, originals, trial
from tests.test_made_before import MADE

ROOT = Path(__file__).parents[1]
USUAL, MANY, PARTS = 80, 2000, 4


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, Path]:
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return originals(tmp_path, tmp_path / "before")


def test_what_nobody_has_changed_is_used(kinds: dict[str, Path]) -> None:
    for kind, folder in kinds.items():
        USES[kind](folder)


def test_some_changes_end_with_a_reason_or_do_no_harm(kinds: dict[str, Path], tmp_path: Path) -> None:
    refused = sum(trial(kinds, tmp_path, seed) for seed in range(USUAL))
    assert USUAL // 3 < refused < USUAL


@pytest.mark.long
def test_2000_changes_end_with_a_reason_within_5_seconds_and_a_gigabyte_and_a_half(
    kinds: dict[str, Path], tmp_path: Path
) -> None:
    step = MANY // PARTS
    for first in range(1000, 1000 + MANY, step):
        command = [sys.executable, "-m", "tests.strangers", str(first), str(first + step), str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["problems"] == []
        assert report["refused"] > step // 3
