"""Calibration of probabilities: reliability, expected calibration error, temperature.

This module needs only NumPy. Targets are binarised at 0.5 and masked if NaN, as everywhere in `edgecxr.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecxr.metrics import Array, binarise, counts, sigmoid
from edgecxr.vocabulary import FEW_CASES

BINS = 15
"""Number of bins, of equal width, as in Guo et al."""

TEMPERATURES = (0.05, 20.0)
"""Range searched for the best temperature; a model that separates the classes perfectly has no best one."""

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Reliability:
    """Predicted probability and observed rate in each non-empty bin.

    Attributes:
        counts: (B,) numbers of predictions.
        predicted: (B,) mean probabilities.
        observed: (B,) shares of positives.
    """

    counts: Array
    predicted: Array
    observed: Array

    @property
    def error(self) -> float:
        """Expected calibration error (ECE); NaN without predictions.

        The ECE is the mean distance between predicted probability and observed rate, weighted by count: Guo, Pleiss,
        Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, Eq. 3.
        """
        total = self.counts.sum()
        return float((self.counts * np.abs(self.predicted - self.observed)).sum() / total) if total else float("nan")


def reliability(targets: Array, probabilities: Array, bins: int = BINS) -> Reliability:
    """Sort predictions into bins of equal width.

    Args:
        targets: (...) in [0, 1] or NaN.
        probabilities: (...) in [0, 1], of the positive class.
        bins: number of bins.
    """
    has_label = ~np.isnan(targets)
    positive, values = binarise(targets[has_label]), probabilities[has_label]
    place = np.minimum((values * bins).astype(np.intp), bins - 1)
    counts, predicted, observed = (
        np.bincount(place, weights, minlength=bins) for weights in (np.ones(len(values)), values, positive)
    )
    filled = counts > 0
    return Reliability(counts[filled], predicted[filled] / counts[filled], observed[filled] / counts[filled])


def fit_temperature(targets: Array, logits: Array) -> float:
    """Return the temperature that makes the targets most likely.

    Logits are divided by the temperature (temperature scaling; Guo et al. 2017).

    Args:
        targets: (...) in [0, 1] or NaN.
        logits: (...).

    Returns:
        A value within `TEMPERATURES`. It is 1 if either class has fewer than `FEW_CASES` targets, or if the best value
        is at an end of the range: the few targets would then saturate the probabilities.
    """
    has_label = ~np.isnan(targets)
    positive, values = binarise(targets[has_label]), logits[has_label].astype(np.float64)
    if min(counts(targets)) < FEW_CASES:
        return 1.0

    def loss(inverse: float) -> float:
        scaled = values * inverse
        return float(np.logaddexp(0, np.where(positive == 1, -scaled, scaled)).mean())

    # The loss is convex in 1/T, so that golden-section search works.
    ends = low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    while high - low > 1e-6 * high:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    best = (low + high) / 2
    return 1.0 if best < 1.01 * ends[0] or best > 0.99 * ends[1] else round(1 / best, 4)


def calibrated(logits: Array, temperature: float | Array) -> Array:
    """Return probabilities (..., L) of logits (..., L) at a temperature.

    The temperature may be one number, or one for each of the L columns.
    """
    return sigmoid(np.asarray(logits, np.float64) / temperature)
