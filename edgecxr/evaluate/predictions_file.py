"""Predictions of an evaluation as a table, one line per film."""

from __future__ import annotations

import math
from pathlib import Path

from edgecxr.evaluate.evaluation import ModelOutputs
from edgecxr.evaluate.operating_points import columns_of
from edgecxr.evaluate.probability_calibration import calibrated
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.storage.spreadsheet import csv_text


def write_predictions(model: ModelOutputs, split: str, path: Path) -> Path:
    """Write the targets and calibrated probabilities of a split's films as CSV.

    The file names patients, so that only its owner may read it.

    Args:
        model: the model with its outputs.
        split: name of the split.
        path: of the file.

    Returns:
        The path. Its columns are "id", "patient", and for each finding and "abnormal" the target (empty if it is not
        known) and the probability.
    """
    prepared = model.prepared
    rows = prepared.rows(split)
    header = ["id", "patient"]
    cells: list[list[object]] = [[str(prepared.ids[row]), str(prepared.patients[row])] for row in rows]
    for name, (targets, logits) in columns_of(prepared, rows, model.outputs).items():
        header += [name, f"{name} probability"]
        probabilities = calibrated(logits, model.card.temperature.get(name, 1))
        for line, target, probability in zip(cells, targets.tolist(), probabilities.tolist(), strict=True):
            line += ["" if math.isnan(target) else f"{target:g}", f"{probability:.6g}"]
    with umask(PRIVATE):
        atomic_write(path, csv_text(header, cells))
    return path
