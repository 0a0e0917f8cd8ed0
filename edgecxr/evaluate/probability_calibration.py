"""Whether a probability of 0.8 means four in five: reliability, expected calibration error, temperature. numpy only.

Targets are binarised at 0.5 and masked where they are NaN, as everywhere in `edgecxr.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecxr.metrics import Array, binarise, counts, sigmoid
from edgecxr.vocabulary import FEW_CASES

BINS = 15
"""Of equal width, as in Guo et al."""

TEMPERATURES = (0.05, 20.0)
"""Between which the best one is looked for; a model that separates the classes perfectly has none."""

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Reliability:
    """Predicted probability and observed rate, bin by bin; empty bins are left out.

    Attributes:
        counts: (B,) number of predictions.
        predicted: (B,) mean probability.
        observed: (B,) share of positives.
    """

    counts: Array
    predicted: Array
    observed: Array

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of both, weighted by count (Guo et al. 2017, Eq. 3).

        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017. NaN without predictions.
        """
        total = self.counts.sum()
        return float((self.counts * np.abs(self.predicted - self.observed)).sum() / total) if total else float("nan")


def reliability(targets: Array, probabilities: Array, bins: int = BINS) -> Reliability:
    """Sort predictions into bins of equal width.

    Args:
        targets: (...) in [0, 1] or NaN.
        probabilities: (...) in [0, 1], of the positive class.
        bins: their number.
    """
    known = ~np.isnan(targets)
    positive, values = binarise(targets[known]), probabilities[known]
    place = np.minimum((values * bins).astype(np.intp), bins - 1)
    counts, predicted, observed = (
        np.bincount(place, weights, minlength=bins) for weights in (np.ones(len(values)), values, positive)
    )
    filled = counts > 0
    return Reliability(counts[filled], predicted[filled] / counts[filled], observed[filled] / counts[filled])


def fit_temperature(targets: Array, logits: Array) -> float:
    """Return the divisor of the logits that makes the targets most likely (temperature scaling; Guo et al. 2017).

    Args:
        targets: (...) in [0, 1] or NaN.
        logits: (...).

    Returns:
        A value within `TEMPERATURES`; 1 where there are fewer than `FEW_CASES` of either class, or the best one lies
        at an end: what little there is to fit on would then saturate the probabilities.
    """
    known = ~np.isnan(targets)
    positive, values = binarise(targets[known]), logits[known].astype(np.float64)
    if min(counts(targets)) < FEW_CASES:
        return 1.0

    def loss(inverse: float) -> float:
        scaled = values * inverse
        return float(np.logaddexp(0, np.where(positive == 1, -scaled, scaled)).mean())

    # The loss is convex in 1/T: golden-section search.
    ends = low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    while high - low > 1e-6 * high:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    best = (low + high) / 2
    return 1.0 if best < 1.01 * ends[0] or best > 0.99 * ends[1] else round(1 / best, 4)


def calibrated(logits: Array, temperature: float | Array) -> Array:
    """Return probabilities (..., L) of logits (..., L) at one temperature, or one for each of the L columns."""
    return sigmoid(np.asarray(logits, np.float64) / temperature)
