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

DRAWS = 100
"""Draws of t for each replicate of the films: with one the ends of an interval would depend on the draw."""


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

    Returns:
        With R replicates for one seed, else `DRAWS` times as many.
    """
    values = np.array([sample.value for sample in samples])
    replicates = np.mean([sample.replicates for sample in samples], axis=0)
    if len(samples) > 1:
        replicates = np.tile(replicates, DRAWS)
        replicates += _errors(values[:, None], len(replicates), seed)[:, 0]
    return Sample(float(values.mean()), replicates)


def _errors(values: Array, count: int, seed: int) -> Array:
    """Draw the errors of means over seeds by the multivariate t distribution.

    Args:
        values: (S, K), S at least 2: K quantities of each seed, which may go together.
        count: number of draws.
        seed: of the draws.

    Returns:
        (count, K).
    """
    seeds, kinds = values.shape
    covariance = np.cov(values, rowvar=False, ddof=1).reshape(kinds, kinds) / seeds
    scales, axes = np.linalg.eigh(covariance)
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((count, kinds)) @ (axes * np.sqrt(scales.clip(min=0))).T
    return normal / np.sqrt(rng.chisquare(seeds - 1, (count, 1)) / (seeds - 1))


def paired(ours: dict[int, Sample], theirs: dict[int, Sample], unlike: bool = False) -> list[Sample]:
    """Return the differences of the seeds that both have.

    Two students of one seed share initial weights, order and augmentation.

    Args:
        ours: seed -> score.
        theirs: seed -> score.
        unlike: one side is a teacher, a single one, and the other is not: it is compared with all of them.

    Raises:
        ValueError: `unlike`, and both sides have several seeds: their pairs would not be independent.
    """
    if unlike and min(len(ours), len(theirs)) > 1:
        raise ValueError("several teachers against several students: name one teacher")
    pairs = [(a, b) for a in ours for b in theirs] if unlike else [(s, s) for s in ours if s in theirs]
    return [Sample(ours[a].value - theirs[b].value, ours[a].replicates - theirs[b].replicates) for a, b in pairs]


def gap(teacher: Sample, plain: dict[int, Sample], seed: int) -> Interval:
    """Return the teacher's AUROC minus that of the undistilled students, paired by film, with its interval.

    Args:
        teacher: the one teacher.
        plain: seed -> undistilled student, at least one.
        seed: of the draws of t.
    """
    return over_seeds(paired({0: teacher}, plain, unlike=True), seed).interval


def share(teacher: Sample, plain: dict[int, Sample], taught: dict[int, Sample], seed: int) -> Interval | None:
    """Return the share of the gap that a method closes, with its interval; 1 is all of it, below 0 it widens.

    The undistilled students are the same in the gap and in what is closed of it, and the errors of both means are drawn
    together: by the multivariate t distribution, with their covariance over the seeds.

    Args:
        teacher: the one teacher.
        plain: seed -> undistilled student.
        taught: seed -> student of the method.
        seed: of the draws.

    Returns:
        None without a seed in common, or where the gap is not resolved: its interval does not lie above 0, and a
        quotient would mean nothing.
    """
    seeds = [number for number in plain if number in taught]
    if not seeds or not gap(teacher, {number: plain[number] for number in seeds}, seed).low > 0:
        return None
    students = [[side[number] for side in (plain, taught)] for number in seeds]
    values = np.array([[student.value for student in both] for both in students])
    films = np.mean([[student.replicates for student in both] for both in students], axis=0)
    whole = teacher.replicates
    if len(seeds) > 1:
        films, whole = np.tile(films, DRAWS), np.tile(whole, DRAWS)
        films = films + _errors(values, len(whole), seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = (films[1] - films[0]) / (whole - films[0])
    replicates[~np.isfinite(replicates)] = np.nan
    without, with_ = values.mean(axis=0)
    return interval(float((with_ - without) / (teacher.value - without)), replicates)
