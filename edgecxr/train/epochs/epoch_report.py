"""Reports of a training run: lines, history.csv, TensorBoard."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from edgecxr.bundle.epoch_history import HISTORY
from edgecxr.registry import load
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.spreadsheet import csv_text
from edgecxr.terminal import say

TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's files in a run's folder."""

_HEADS = ("epoch", "loss", "findings", "abnormal", "images/s", "waiting")


def say_epoch(row: dict[str, Any], epochs: int, kept: bool, first: bool) -> None:
    """Print the line of an epoch, of at most 60 characters.

    Args:
        row: the epoch's row of history.csv.
        epochs: number of epochs of the run.
        kept: whether its weights were kept as the best so far.
        first: whether it is the first line of this process, which the heads of the columns go before.
    """
    widths = [max(len(_HEADS[0]), 2 * len(str(epochs)) + 1), 6, *map(len, _HEADS[2:])]
    cells = [
        f"{row['epoch']}/{epochs}",
        f"{row['loss']:.3f}",
        _auroc(row["val_auroc_findings"]),
        _auroc(row["val_auroc_abnormal"]),
        f"{row['images_per_s']:.0f}",
        f"{row['data_share']:.0%}",
    ]
    if first:
        say("findings, abnormal: AUROC on validation; *: best so far;")
        say("waiting: share of the time spent waiting for images")
        say(_line(_HEADS, widths))
    say(_line(cells, widths) + (" *" if kept else ""))


def say_stopped(run: Path, done: int, epochs: int) -> None:
    """Say what an interrupted run keeps."""
    say(f"stopped in epoch {done + 1} of {epochs}: {kept_in(run, done)}")


def kept_in(run: Path, done: int) -> str:
    """Return what a run keeps that ends after `done` whole epochs."""
    few = {0: "nothing is kept yet", 1: f"epoch 1 is kept in {run}"}
    return few.get(done, f"epochs 1 to {done} are kept in {run}")


def write_history(run: Path, history: list[dict[str, Any]]) -> None:
    """Write history.csv, one row per epoch."""
    columns = list(history[0])
    atomic_write(run / HISTORY, csv_text(columns, ([row[name] for name in columns] for row in history)))


def _auroc(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _line(cells: tuple[str, ...] | list[str], widths: list[int]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


class TensorBoard:
    """Writer of the history of a run for TensorBoard.

    Args:
        run: the run's folder; what TensorBoard has of it is written anew.
        history: rows of the epochs that are done.

    Raises:
        MissingPackage: tensorboard is not installed.
    """

    def __init__(self, run: Path, history: list[dict[str, Any]]) -> None:
        writer = load_writer()
        shutil.rmtree(run / TENSORBOARD, ignore_errors=True)
        self._writer = writer(str(run / TENSORBOARD))
        for row in history:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of an epoch."""
        for key, value in row.items():
            if key != "epoch":
                self._writer.add_scalar(key, value, row["epoch"])
        self._writer.flush()


def load_writer() -> Any:
    """Return the class of TensorBoard's writer.

    Raises:
        MissingPackage: tensorboard is not installed.
    """
    return load("torch.utils.tensorboard:SummaryWriter", "--tensorboard")
