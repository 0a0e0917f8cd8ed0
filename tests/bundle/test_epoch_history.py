"""Which epoch of a run is kept, and history.csv read back."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.bundle.epoch_history import HISTORY, kept_epoch, read_history
from edgecxr.storage.reading import BadFile
from edgecxr.storage.spreadsheet import csv_text

SCORES = st.lists(st.sampled_from([0.25, 0.5, 0.75, math.nan]), min_size=1, max_size=8)


@given(scores=SCORES)
def test_the_first_of_the_best_epochs_is_kept_or_the_latest_where_none_was_measured(scores: list[float]) -> None:
    kept = kept_epoch([{"epoch": place, "score": score} for place, score in enumerate(scores)])["epoch"]
    measured = [score for score in scores if not math.isnan(score)]
    assert kept == (scores.index(max(measured)) if measured else len(scores) - 1)


@given(scores=SCORES)
def test_what_a_run_wrote_is_read_back(scores: list[float]) -> None:
    with tempfile.TemporaryDirectory() as run:
        rows = [[number, score] for number, score in enumerate(scores, start=1)]
        (Path(run) / HISTORY).write_text(csv_text(["epoch", "score"], rows))
        history = read_history(Path(run))
    assert [row["epoch"] for row in history] == list(range(1, len(scores) + 1))
    assert str([row["score"] for row in history]) == str(scores)


def test_what_is_no_history_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_history(tmp_path)
    for content, error in (("epoch\nx\n", ValueError), ("epoch\n1,2\n", TypeError)):
        (tmp_path / HISTORY).write_text(content)
        with pytest.raises(error):
            read_history(tmp_path)
    (tmp_path / HISTORY).write_bytes(b"\xff")
    with pytest.raises(BadFile):
        read_history(tmp_path)
