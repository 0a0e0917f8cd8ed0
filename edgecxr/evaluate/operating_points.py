"""What a card takes from the validation split: temperatures, and the thresholds of decisions (operating points)."""

from __future__ import annotations

import math

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.evaluate.probability_calibration import calibrated, fit_temperature
from edgecxr.vocabulary import ABNORMAL, FloatArray


def columns_of(prepared: Prepared, rows: np.ndarray, outputs: Outputs) -> dict[str, tuple[metrics.Array, FloatArray]]:
    """Return label or "abnormal" -> targets (N,) and logits (N,) of the rows that the outputs are of."""
    columns = dict(zip(prepared.labels, zip(prepared.targets[rows].T, outputs.findings.T, strict=True), strict=True))
    return columns | {ABNORMAL: (prepared.abnormal[rows], outputs.abnormal)}


def fit_temperatures(prepared: Prepared, rows: np.ndarray, outputs: Outputs) -> dict[str, float]:
    """Fit the temperatures of a card on the validation split: one for all findings together, one for abnormal.

    A rare finding alone has too few films to fit anything on.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.
        outputs: of these.

    Returns:
        label or "abnormal" -> divisor of its logit.
    """
    together = fit_temperature(prepared.targets[rows], outputs.findings)
    return dict.fromkeys(prepared.labels, together) | {
        ABNORMAL: fit_temperature(prepared.abnormal[rows], outputs.abnormal)
    }


def choose_operating_points(
    prepared: Prepared, rows: np.ndarray, outputs: Outputs, temperature: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Choose thresholds on the validation split, for each rule and label.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.
        outputs: of these.
        temperature: label or "abnormal" -> divisor of its logit; absent means 1.

    Returns:
        rule -> {label or "abnormal": probability}; a label with only one class in the split is absent.
    """
    points: dict[str, dict[str, float]] = {}
    for rule in metrics.OPERATING_RULES:
        chosen = {
            name: metrics.operating_point(targets, calibrated(logits, temperature.get(name, 1)), rule)
            for name, (targets, logits) in columns_of(prepared, rows, outputs).items()
        }
        # Not rounded: the probabilities of a rare label may differ in the seventh decimal only.
        points[rule] = {name: value for name, value in chosen.items() if not math.isnan(value)}
    return points


def count_cases(prepared: Prepared, rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Count what operating points are chosen on.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.

    Returns:
        label or "abnormal" -> {"positives", "negatives"}, as a card's `operating_counts` take it.
    """
    columns = dict(zip(prepared.labels, prepared.targets[rows].T, strict=True)) | {ABNORMAL: prepared.abnormal[rows]}
    return {
        name: dict(zip(("positives", "negatives"), metrics.counts(targets), strict=True))
        for name, targets in columns.items()
    }
