"""Choice of temperatures and operating points on the validation split.

Operating points are the thresholds of decisions; both are stored in a card.
"""

from __future__ import annotations

import math

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.evaluate.probability_calibration import calibrated, fit_temperature
from edgecxr.vocabulary import ABNORMAL, FloatArray


def columns_of(prepared: Prepared, rows: np.ndarray, outputs: Outputs) -> dict[str, tuple[metrics.Array, FloatArray]]:
    """Return the targets and logits of each output.

    Args:
        prepared: the data set.
        rows: (N,) indices of the images.
        outputs: outputs for these images.

    Returns:
        label or "abnormal" -> targets (N,) and logits (N,).
    """
    columns = dict(zip(prepared.labels, zip(prepared.targets[rows].T, outputs.findings.T, strict=True), strict=True))
    return columns | {ABNORMAL: (prepared.abnormal[rows], outputs.abnormal)}


def fit_temperatures(prepared: Prepared, rows: np.ndarray, outputs: Outputs) -> dict[str, float]:
    """Fit the temperatures of a card on the validation split.

    One is for all findings together, since a rare finding alone has too few films; one is for "abnormal".

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.
        outputs: outputs for these images.

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
        outputs: outputs for these images.
        temperature: label or "abnormal" -> divisor of its logit; absent means 1.

    Returns:
        rule -> {label or "abnormal": threshold of the probability}; a label with only one class in the split is absent.
    """
    points: dict[str, dict[str, float]] = {}
    for rule in metrics.OPERATING_RULES:
        chosen = {
            name: operating_point(targets, calibrated(logits, temperature.get(name, 1)), rule)
            for name, (targets, logits) in columns_of(prepared, rows, outputs).items()
        }
        # Thresholds are not rounded: a rare label's probabilities may differ only in the seventh decimal.
        points[rule] = {name: value for name, value in chosen.items() if not math.isnan(value)}
    return points


def operating_point(targets: metrics.Array, probabilities: metrics.Array, rule: str) -> float:
    """Choose the threshold t of the decision "probability >= t".

    Args:
        targets: (N,) in [0, 1] or NaN.
        probabilities: (N,) in [0, 1].
        rule: "youden" maximises sensitivity + specificity - 1, and chooses the most sensitive of equal thresholds;
            "sensitivity90" and "sensitivity95" choose the highest specificity at which the sensitivity is at least
            0.90 or 0.95.

    Returns:
        A threshold midway between two neighbouring probabilities, so that rounding in a lower precision seldom flips
        the decision; NaN if only one class is present.
    """
    if rule not in metrics.OPERATING_RULES:
        raise ValueError(f"unknown operating rule {rule!r}")
    positives, negatives = metrics.counts(targets)
    if positives == 0 or negatives == 0:
        return float("nan")
    has_label = ~np.isnan(targets)
    positive = metrics.binarise(targets[has_label]) == 1
    values = np.unique(probabilities[has_label])
    thresholds = np.r_[values[0], (values[1:] + values[:-1]) / 2]
    ranked_positive = np.sort(probabilities[has_label][positive])
    ranked_negative = np.sort(probabilities[has_label][~positive])
    true_positives: metrics.Array = np.subtract(positives, np.searchsorted(ranked_positive, thresholds))
    true_negatives: metrics.Array = np.asarray(np.searchsorted(ranked_negative, thresholds))
    if rule == "youden":
        # Integers, so that ties compare equal.
        return float(thresholds[np.argmax(true_positives * negatives + true_negatives * positives)])
    enough = np.flatnonzero(true_positives * 100 >= positives * int(rule.removeprefix("sensitivity")))
    return float(thresholds[enough[np.argmax(true_negatives[enough])]])


def count_cases(prepared: Prepared, rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Count the positives and negatives that operating points rest on.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.

    Returns:
        label or "abnormal" -> {"positives", "negatives"}, as in a card's `operating_counts`.
    """
    columns = dict(zip(prepared.labels, prepared.targets[rows].T, strict=True)) | {ABNORMAL: prepared.abnormal[rows]}
    return {
        name: dict(zip(("positives", "negatives"), metrics.counts(targets), strict=True))
        for name, targets in columns.items()
    }
