"""AUROC, bootstrap intervals by patient, paired comparison, operating points. numpy only.

Every function masks NaN targets and takes soft targets, which it binarises at 0.5. A set without both classes has no
AUROC: the value is NaN and the caller says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

OPERATING_RULES = ("youden", "sensitivity90", "sensitivity95")

_BLOCK = 64


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def binarise(targets: Array) -> Array:
    """Return `targets` as 0, 1 or NaN; soft ones count as positive from 0.5 on."""
    return np.where(np.isnan(targets), np.nan, (targets >= 0.5).astype(np.float64))


def counts(targets: Array) -> tuple[int, int]:
    """Return (positives, negatives) of `targets` (N,), NaN not counted."""
    binary = binarise(targets)
    return int(np.nansum(binary == 1)), int(np.nansum(binary == 0))


def auroc(targets: Array, scores: Array) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Args:
        targets: (N,) in [0, 1] or NaN.
        scores: (N,) any monotone score, logits included.

    Returns:
        A value in [0, 1], or NaN where only one class is present.
    """
    return float(weighted_auroc(targets, scores, np.ones((1, len(targets))))[0])


def weighted_auroc(targets: Array, scores: Array, weights: Array) -> Array:
    """AUROC under several weightings of the same images at once.

    Args:
        targets: (N,) in [0, 1] or NaN.
        scores: (N,).
        weights: (R, N) how often each image counts, non-negative.

    Returns:
        (R,) AUROCs, NaN where a weighting leaves only one class.
    """
    known = ~np.isnan(targets)
    order = np.argsort(scores[known], kind="stable")
    if len(order) == 0:
        return np.full(len(weights), np.nan)
    ranked = scores[known][order]
    positive = binarise(targets[known])[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # one group per distinct score
    images = np.flatnonzero(known)[order]
    # Replicates by the block: all at once would take gigabytes for tens of thousands of images.
    blocks = (weights[first : first + _BLOCK, images] for first in range(0, len(weights), _BLOCK))
    return np.concatenate([_grouped_auroc(positive, starts, block) for block in blocks])


def _grouped_auroc(positive: Array, starts: Array, weights: Array) -> Array:
    """AUROC of images in the order of their scores; `starts` are where groups of one score begin."""
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * (1 - positive), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return wins / (positives.sum(axis=1) * negatives.sum(axis=1))


def patient_weights(patients: Array, replicates: int = 1000, seed: int = 0) -> Array:
    """Draw bootstrap replicates of whole patients, since films of one patient are not independent.

    Args:
        patients: (N,) the patient of each image.
        replicates: R.
        seed: two models scored with the same seed are compared on the same replicates.

    Returns:
        (R, N) float32, how often each image counts in each replicate.
    """
    names, member = np.unique(patients, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    return draws[:, member].astype(np.float32)


def interval(value: float, samples: Array, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap `samples` (R,); NaN replicates are left out."""
    samples = samples[~np.isnan(samples)]
    if len(samples) == 0:
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(samples, tail), np.quantile(samples, 1 - tail)
    return Interval(value, float(low), float(high))


def p_value(samples: Array) -> float:
    """Two-sided p-value of "there is no difference" from bootstrap replicates (R,) of a paired difference.

    Twice the smaller share of replicates on either side of zero, the observation itself counted as one more of them:
    the level at which the percentile interval would just touch zero (Efron and Tibshirani, "An introduction to the
    bootstrap", 1993, chapter 15). NaN replicates are left out; without any other it is NaN.
    """
    known = samples[~np.isnan(samples)]
    if len(known) == 0:
        return float("nan")
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))


@dataclass(frozen=True)
class Aurocs:
    """AUROCs of a set of labels, with the replicates they were bootstrapped from.

    Attributes:
        labels: (L,) estimates, NaN where a label has only one class.
        replicates: (R, L) the same on each bootstrap replicate; NaN where a replicate lost a class.
    """

    labels: Array
    replicates: Array

    @property
    def macro(self) -> Interval:
        """Mean over the labels that have an AUROC; a replicate that lost a label averages the others."""
        scored = ~np.isnan(self.labels)
        if not scored.any():
            return Interval(float("nan"), float("nan"), float("nan"))
        return interval(float(self.labels[scored].mean()), self.macro_replicates)

    @property
    def macro_replicates(self) -> Array:
        """(R,) that mean on each bootstrap replicate."""
        return mean_of_known(self.replicates[:, ~np.isnan(self.labels)])

    def of(self, label: int) -> Interval:
        """Interval of one label, by its column."""
        return interval(float(self.labels[label]), self.replicates[:, label])


def aurocs(targets: Array, scores: Array, weights: Array) -> Aurocs:
    """AUROC of every label, on the data and on bootstrap replicates.

    Args:
        targets: (N, L) in [0, 1] or NaN.
        scores: (N, L).
        weights: (R, N) of `patient_weights`.
    """
    columns = range(targets.shape[1])
    return Aurocs(
        labels=np.array([auroc(targets[:, c], scores[:, c]) for c in columns]),
        replicates=np.stack([weighted_auroc(targets[:, c], scores[:, c], weights) for c in columns], axis=1),
    )


def macro_difference(ours: Aurocs, theirs: Aurocs) -> Interval:
    """Paired difference of two macro AUROCs that share targets and replicates (ours - theirs).

    A replicate that lost a class of a label drops that label for both models.
    """
    value, samples = macro_differences(ours, theirs)
    return interval(value, samples)


def macro_differences(ours: Aurocs, theirs: Aurocs) -> tuple[float, Array]:
    """Return what `macro_difference` is made from: the difference, and (R,) that of each replicate."""
    both = ~np.isnan(ours.labels) & ~np.isnan(theirs.labels)
    if not both.any():
        return float("nan"), np.full(len(ours.replicates), np.nan)
    value = float((ours.labels[both] - theirs.labels[both]).mean())
    return value, mean_of_known(ours.replicates[:, both] - theirs.replicates[:, both])


def mean_of_known(replicates: Array) -> Array:
    """Mean over the known labels of each replicate (R, L) -> (R,); NaN where a replicate has none."""
    known = ~np.isnan(replicates)
    total = np.where(known, replicates, 0).sum(axis=1)
    number = known.sum(axis=1)
    return np.divide(total, number, out=np.full(len(replicates), np.nan), where=number > 0)


def operating_point(targets: Array, probabilities: Array, rule: str) -> float:
    """Choose the threshold t of the decision "probability >= t".

    Args:
        targets: (N,) in [0, 1] or NaN.
        probabilities: (N,) in [0, 1].
        rule: "youden" maximises sensitivity + specificity - 1, the most sensitive of equals; "sensitivity90" and
            "sensitivity95" take the highest specificity at which the sensitivity is at least 0.90 or 0.95.

    Returns:
        A threshold midway between two neighbouring probabilities, so that rounding in a lower precision seldom flips
        the decision; NaN where only one class is present.
    """
    if rule not in OPERATING_RULES:
        raise ValueError(f"unknown operating rule {rule!r}")
    positives, negatives = counts(targets)
    if positives == 0 or negatives == 0:
        return float("nan")
    known = ~np.isnan(targets)
    positive = binarise(targets[known]) == 1
    values = np.unique(probabilities[known])
    thresholds = np.r_[values[0], (values[1:] + values[:-1]) / 2]
    ranked_positive = np.sort(probabilities[known][positive])
    ranked_negative = np.sort(probabilities[known][~positive])
    found: Array = np.subtract(positives, np.searchsorted(ranked_positive, thresholds))
    cleared: Array = np.asarray(np.searchsorted(ranked_negative, thresholds))
    if rule == "youden":
        # In whole numbers, so that equals are equal.
        return float(thresholds[np.argmax(found * negatives + cleared * positives)])
    enough = np.flatnonzero(found * 100 >= positives * int(rule.removeprefix("sensitivity")))
    return float(thresholds[enough[np.argmax(cleared[enough])]])


def sensitivity_specificity(targets: Array, probabilities: Array, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of "probability >= threshold"; NaN where a class is missing."""
    known = ~np.isnan(targets)
    positive = binarise(targets[known]) == 1
    called = probabilities[known] >= threshold
    sensitivity = called[positive].mean() if positive.any() else float("nan")
    specificity = (~called[~positive]).mean() if (~positive).any() else float("nan")
    return float(sensitivity), float(specificity)


def predictive_value(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Positive predictive value at a prevalence in [0, 1], by Bayes' rule; NaN where nothing is called positive."""
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return true / (true + false) if true + false > 0 else float("nan")


def proportion(found: int, cases: int) -> Interval:
    """Return found / cases with its 95 % interval by Wilson's score (J. Am. Stat. Assoc. 22, 1927); NaN of no cases."""
    if not cases:
        return Interval(float("nan"), float("nan"), float("nan"))
    z2 = 1.959964**2
    share = found / cases
    middle = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = float(np.sqrt(z2 * (share * (1 - share) / cases + z2 / (4 * cases**2)))) / (1 + z2 / cases)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def sigmoid(logits: Array) -> Array:
    """Logistic function without overflow, float64."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))
