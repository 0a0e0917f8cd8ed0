"""The share of the gap between a teacher and its undistilled student that a distillation method closes. numpy only.

Replicates are those of a bootstrap of whole patients that all models share. Students of several seeds count as one by
their mean; the chance of the training enters each replicate as the error of that mean by Student's t, so that intervals
are honest, and wide, for two or three seeds. With one seed an interval holds the patients' chance alone. The teacher is
one model, and counts as fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecxr.metrics import Interval, interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """An AUROC with its bootstrap replicates.

    Attributes:
        value: on the data.
        replicates: (R,).
    """

    value: float
    replicates: Array

    @property
    def interval(self) -> Interval:
        """With its 95 % interval."""
        return interval(self.value, self.replicates)


def over_seeds(samples: list[Sample], seed: int) -> Sample:
    """Return the mean of students that differ by their seed.

    Resampling two or three seeds would give intervals that are too narrow: at 95 % for seeds alone they cover 50 % and
    75 %. The mean of S values misses by t (S - 1 degrees of freedom) times their standard deviation over sqrt(S).

    Args:
        samples: one for each seed.
        seed: of the draws of t; two kinds of students, which are trained apart, get different ones.
    """
    values = np.array([sample.value for sample in samples])
    replicates = np.mean([sample.replicates for sample in samples], axis=0)
    if len(samples) > 1:
        error = values.std(ddof=1) / np.sqrt(len(samples))
        replicates = replicates + error * np.random.default_rng(seed).standard_t(len(samples) - 1, len(replicates))
    return Sample(float(values.mean()), replicates)


def paired(ours: dict[int, Sample], theirs: dict[int, Sample], unlike: bool = False) -> list[Sample]:
    """Return the differences of the seeds that both have.

    Two students of one seed share initial weights, order and augmentation, so that their difference varies less from
    seed to seed than they do.

    Args:
        ours: seed -> score.
        theirs: seed -> score.
        unlike: one side is a teacher and the other is not: with nothing in common, all are compared with all.
    """
    pairs = [(a, b) for a in ours for b in theirs] if unlike else [(s, s) for s in ours if s in theirs]
    return [Sample(ours[a].value - theirs[b].value, ours[a].replicates - theirs[b].replicates) for a, b in pairs]


def gap(teacher: Sample, plain: Sample) -> Interval:
    """Return the teacher's AUROC minus the undistilled student's, paired, with its interval."""
    return interval(teacher.value - plain.value, teacher.replicates - plain.replicates)


def share(teacher: Sample, plain: Sample, taught: Sample) -> Interval | None:
    """Return the share of the gap that a method closes, with its interval; 1 is all of it, below 0 it widens.

    Returns:
        None where the gap is not resolved: its interval does not lie above 0, and a quotient would mean nothing.
    """
    if not gap(teacher, plain).low > 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = (taught.replicates - plain.replicates) / (teacher.replicates - plain.replicates)
    replicates[~np.isfinite(replicates)] = np.nan
    return interval((taught.value - plain.value) / (teacher.value - plain.value), replicates)
