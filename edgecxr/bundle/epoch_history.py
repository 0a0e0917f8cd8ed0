"""Epochs of a training run: history.csv, and which epoch is kept."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, TypeVar

from edgecxr.storage.reading import read_text

HISTORY = "history.csv"
"""File in a run's folder with a row for each epoch."""

_LARGEST = 64 << 20

_Row = TypeVar("_Row", bound=dict[str, Any])


def read_history(run: Path) -> list[dict[str, float]]:
    """Return a run's history.csv, one row for each epoch.

    Raises:
        OSError: the file cannot be read.
        BadFile: the file is too large or no plain file.
        ValueError: a cell is not a number.
        TypeError: a row has fewer or more cells than the header.
    """
    rows = csv.DictReader(read_text(run / HISTORY, _LARGEST).splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def kept_epoch(history: list[_Row]) -> _Row:
    """Return the row of the epoch whose weights are kept.

    It is the first of those with the best score, or the latest if none has a score.

    Args:
        history: one row or more, with the key "score".
    """
    scored = [row for row in history if not math.isnan(row["score"])]
    return max(scored, key=lambda row: row["score"]) if scored else history[-1]
