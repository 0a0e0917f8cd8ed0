"""AUROC, bootstrap intervals by patient, paired comparison and operating points.

The module needs only numpy. Every function masks NaN targets and accepts soft targets, which it binarises at 0.5. A set
without both classes has no AUROC: the value is NaN, and the caller reports it.
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
        return with_interval(self.value, self.low, self.high)


def with_interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    """Return an estimate and its interval as text.

    Each number is in the format `form`, such as "+.3f".
    """
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def binarise(targets: Array) -> Array:
    """Return `targets` as 0, 1 or NaN.

    Soft targets count as positive from 0.5 on.
    """
    return np.where(np.isnan(targets), np.nan, (targets >= 0.5).astype(np.float64))


def counts(targets: Array) -> tuple[int, int]:
    """Return (positives, negatives) of `targets` (N,), not counting NaN."""
    binary = binarise(targets)
    return int(np.nansum(binary == 1)), int(np.nansum(binary == 0))


def auroc(targets: Array, scores: Array) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Args:
        targets: (N,) in [0, 1] or NaN.
        scores: (N,) any monotone score, such as logits.

    Returns:
        A value in [0, 1], or NaN if only one class is present.
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
    has_label = ~np.isnan(targets)
    order = np.argsort(scores[has_label], kind="stable")
    if len(order) == 0 or len(weights) == 0:
        return np.full(len(weights), np.nan)
    ranked = scores[has_label][order]
    positive = binarise(targets[has_label])[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # one group per distinct score
    images = np.flatnonzero(has_label)[order]
    # Compute in blocks: all replicates at once would need gigabytes for tens of thousands of images.
    blocks = (weights[first : first + _BLOCK, images] for first in range(0, len(weights), _BLOCK))
    return np.concatenate([_grouped_auroc(positive, starts, block) for block in blocks])


def _grouped_auroc(positive: Array, starts: Array, weights: Array) -> Array:
    """AUROC of images that are sorted by score.

    `starts` are the indices at which groups of equal scores begin.
    """
    positives = np.add.reduceat(weights * positive, starts, axis=1)
    negatives = np.add.reduceat(weights * (1 - positive), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return wins / (positives.sum(axis=1) * negatives.sum(axis=1))


def average_precision(targets: Array, scores: Array, weights: Array) -> Array:
    """Area under the precision-recall curve, under several weightings at once.

    It is the mean of the precision over the positives, without interpolation between thresholds (Davis and Goadrich,
    ICML 2006); a model that guesses has the share of positives.

    Args:
        targets: (N,) in [0, 1] or NaN.
        scores: (N,).
        weights: (R, N) how often each image counts, non-negative.

    Returns:
        (R,) values in [0, 1], NaN where a weighting leaves only one class.
    """
    labelled = np.flatnonzero(~np.isnan(targets))
    order = labelled[np.argsort(-scores[labelled], kind="stable")]
    if len(order) == 0 or len(weights) == 0:
        return np.full(len(weights), np.nan)
    positive, ranked = binarise(targets[order]), scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    values = []
    for first in range(0, len(weights), _BLOCK):
        block = weights[first : first + _BLOCK, order].astype(np.float64)
        hits = np.add.reduceat(block * positive, starts, axis=1)
        called = np.cumsum(np.add.reduceat(block, starts, axis=1), axis=1)
        positives, images = hits.sum(axis=1), called[:, -1]
        precision = np.divide(np.cumsum(hits, axis=1), called, out=np.zeros_like(called), where=called > 0)
        both = (positives > 0) & (positives < images)
        total = (hits * precision).sum(axis=1)
        values.append(np.divide(total, positives, out=np.full(len(block), np.nan), where=both))
    return np.concatenate(values)


def curve(targets: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Return the points of the ROC and precision-recall curves.

    There is one for each threshold.

    Args:
        targets: (N,) in [0, 1] or NaN, of both classes.
        scores: (N,).

    Returns:
        False positive rate, sensitivity (recall) and precision, (T,) each, from the highest threshold to the lowest.
    """
    has_label = ~np.isnan(targets)
    order = np.argsort(-scores[has_label], kind="stable")
    positive, ranked = binarise(targets[has_label])[order], scores[has_label][order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    true, called = np.cumsum(positive)[ends], ends + 1
    return (called - true) / (len(positive) - positive.sum()), true / positive.sum(), true / called


def rates(targets: Array, probabilities: Array, threshold: float, weights: Array) -> tuple[Array, Array]:
    """Return sensitivity and specificity under several weightings.

    Args:
        targets: (N,) in [0, 1] or NaN.
        probabilities: (N,).
        threshold: of the decision "probability >= threshold".
        weights: (R, N) from `patient_weights`.

    Returns:
        (R,) each, NaN where a weighting leaves none of the class.
    """
    binary, called = binarise(targets), probabilities >= threshold
    shares = []
    for of_class, right in ((binary == 1, called), (binary == 0, ~called)):
        cases, correct = weights @ of_class.astype(np.float32), weights @ (of_class & right).astype(np.float32)
        shares.append(np.divide(correct, cases, out=np.full(len(weights), np.nan), where=cases > 0))
    return shares[0], shares[1]


def patient_weights(patients: Array, replicates: int = 1000, seed: int = 0) -> Array:
    """Draw bootstrap replicates of whole patients.

    Films of one patient are not independent.

    Args:
        patients: (N,) the patient of each image.
        replicates: the number R of replicates.
        seed: models scored with the same seed are compared on the same replicates.

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
    """Two-sided p-value of a paired difference, from its bootstrap replicates (R,).

    The null hypothesis is "there is no difference". The p-value is twice the smaller share of replicates on either side
    of zero, with the observation itself counted as one more replicate: the level at which the percentile interval would
    just touch zero (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 15). NaN replicates are
    left out; if all are NaN, so is the p-value.
    """
    numbers = samples[~np.isnan(samples)]
    if len(numbers) == 0:
        return float("nan")
    side = min(int((numbers <= 0).sum()), int((numbers >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(numbers) + 1))


@dataclass(frozen=True)
class Aurocs:
    """AUROCs of a set of labels, with their bootstrap replicates.

    Attributes:
        labels: (L,) estimates, NaN where a label has only one class.
        replicates: (R, L) AUROCs on each bootstrap replicate; NaN where a replicate lost a class.
    """

    labels: Array
    replicates: Array

    @property
    def macro(self) -> Interval:
        """Mean over the labels that have an AUROC.

        A replicate that lost a label averages the others.
        """
        scored = ~np.isnan(self.labels)
        if not scored.any():
            return Interval(float("nan"), float("nan"), float("nan"))
        return interval(float(self.labels[scored].mean()), self.macro_replicates)

    @property
    def macro_replicates(self) -> Array:
        """Macro AUROC (R,) of each bootstrap replicate."""
        return mean_of_known(self.replicates[:, ~np.isnan(self.labels)])

    def of(self, label: int) -> Interval:
        """Interval of one label, by its column."""
        return interval(float(self.labels[label]), self.replicates[:, label])


def aurocs(targets: Array, scores: Array, weights: Array) -> Aurocs:
    """AUROC of every label, on the data and on bootstrap replicates.

    Args:
        targets: (N, L) in [0, 1] or NaN.
        scores: (N, L).
        weights: (R, N) from `patient_weights`.
    """
    columns = range(targets.shape[1])
    return Aurocs(
        labels=np.array([auroc(targets[:, c], scores[:, c]) for c in columns]),
        replicates=np.stack([weighted_auroc(targets[:, c], scores[:, c], weights) for c in columns], axis=1),
    )


def macro_difference(ours: Aurocs, theirs: Aurocs) -> Interval:
    """Paired difference of two macro AUROCs (ours - theirs).

    Both must share targets and replicates. A replicate that lost a class of a label drops that label for both models.
    """
    value, samples = macro_differences(ours, theirs)
    return interval(value, samples)


def macro_differences(ours: Aurocs, theirs: Aurocs) -> tuple[float, Array]:
    """Return the difference of two macro AUROCs, and its replicates (R,).

    `macro_difference` computes its interval from them.
    """
    both = ~np.isnan(ours.labels) & ~np.isnan(theirs.labels)
    if not both.any():
        return float("nan"), np.full(len(ours.replicates), np.nan)
    value = float((ours.labels[both] - theirs.labels[both]).mean())
    return value, mean_of_known(ours.replicates[:, both] - theirs.replicates[:, both])


def mean_of_known(replicates: Array) -> Array:
    """Mean over the known labels of each replicate, (R, L) -> (R,).

    NaN where a replicate has no known label.
    """
    is_number = ~np.isnan(replicates)
    total = np.where(is_number, replicates, 0).sum(axis=1)
    number = is_number.sum(axis=1)
    return np.divide(total, number, out=np.full(len(replicates), np.nan), where=number > 0)


def sensitivity_specificity(targets: Array, probabilities: Array, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of the decision "probability >= threshold".

    Each is NaN if its class is missing.
    """
    has_label = ~np.isnan(targets)
    positive = binarise(targets[has_label]) == 1
    called = probabilities[has_label] >= threshold
    sensitivity = called[positive].mean() if positive.any() else float("nan")
    specificity = (~called[~positive]).mean() if (~positive).any() else float("nan")
    return float(sensitivity), float(specificity)


def predictive_value(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Positive predictive value at a prevalence in [0, 1], by Bayes' rule.

    NaN if nothing is called positive.
    """
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return true / (true + false) if true + false > 0 else float("nan")


def proportion(successes: int, cases: int) -> Interval:
    """Return found / cases with its 95 % Wilson score interval.

    Source: Wilson, J. Am. Stat. Assoc. 22, 1927. All values are NaN if there are no cases.
    """
    if not cases:
        return Interval(float("nan"), float("nan"), float("nan"))
    z2 = 1.959964**2
    share = successes / cases
    middle = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = float(np.sqrt(z2 * (share * (1 - share) / cases + z2 / (4 * cases**2)))) / (1 + z2 / cases)
    # Rounding must not put the end of a share of 0 or 1 beyond it.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def sigmoid(logits: Array) -> Array:
    """Logistic function without overflow, in float64."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))
