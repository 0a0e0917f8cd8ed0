"""The share of the gap between a teacher and its undistilled student that a distillation method closes. numpy only.

Replicates are those of a bootstrap of whole patients that all models share. Students of several seeds count as one by
their mean; in every replicate their seeds are drawn anew too, so that an interval holds the chance of the training as
well. With one seed it holds that of the patients alone.
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

    Args:
        samples: one for each seed.
        seed: of the draws of seeds; models that do not depend on each other get different ones.
    """
    each = np.stack([sample.replicates for sample in samples])  # (S, R)
    drawn = np.random.default_rng(seed).integers(0, len(samples), each.shape)
    return Sample(
        float(np.mean([sample.value for sample in samples])), np.take_along_axis(each, drawn, axis=0).mean(axis=0)
    )


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
