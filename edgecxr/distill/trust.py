"""How far a teacher is trusted with each finding.

This is `edgecxr distill --trust val`. No torch.

A teacher hands on its weaknesses as well as its strengths. This is beyond the paper, which trusts a teacher with all
findings alike.
"""

from __future__ import annotations

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.evaluate.comparison import aurocs
from edgecxr.vocabulary import FloatArray

SPLIT = "val"


def trust_weights(
    prepared: Prepared, teacher: FloatArray, undistilled: FloatArray, replicates: int = 1000
) -> tuple[float, ...]:
    """Return the weight of each output in the distillation of logits.

    P is the share of bootstrap replicates of whole validation patients in which the teacher's AUROC is above that of a
    student without a teacher; ties count half. The weight is 2 P - 1, at least 0: nothing where the teacher is no
    better, 1 where it is always better. Outputs that validation cannot judge have weight 1, as without this.

    Args:
        prepared: the data set.
        teacher: (N, L + 1) logits of the validation split's N images, in order; "abnormal" last.
        undistilled: (N, L + 1) logits of the student.
        replicates: of the bootstrap.

    Returns:
        L + 1 weights from 0 to 1; "abnormal" last.
    """
    counted = metrics.patient_weights(prepared.patients[prepared.rows(SPLIT)], replicates)
    ours, theirs = (aurocs(prepared, SPLIT, logits, counted) for logits in (teacher, undistilled))
    differences = np.hstack([ours[task].replicates - theirs[task].replicates for task in ("findings", "abnormal")])
    judged = np.isfinite(differences)
    better = ((differences > 0) + 0.5 * (differences == 0)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        weights = np.maximum(0, 2 * better / judged.sum(axis=0) - 1)
    return tuple(round(float(weight), 3) for weight in np.where(judged.any(axis=0), weights, 1.0))
