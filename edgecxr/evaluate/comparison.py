"""Comparison of two models on the same images.

It has paired differences of AUROC with intervals and p-values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.vocabulary import FloatArray


def aurocs(prepared: Prepared, split: str, logits: FloatArray, weights: metrics.Array) -> dict[str, metrics.Aurocs]:
    """Return the AUROCs of "findings" and "abnormal" with their bootstrap replicates.

    Args:
        prepared: the data set.
        split: name of the split.
        logits: (N, L + 1) for the split's N images, in order; "abnormal" last.
        weights: (R, N) from `edgecxr.metrics.patient_weights`; paired comparisons need the same for both models.
    """
    rows = prepared.rows(split)
    return {
        "findings": metrics.aurocs(prepared.targets[rows], logits[:, :-1], weights),
        "abnormal": metrics.aurocs(prepared.abnormal[rows, None], logits[:, -1:], weights),
    }


def compare(
    prepared: Prepared, split: str, ours: Outputs, theirs: Outputs, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare two models on a split; differences are ours minus theirs.

    Args:
        prepared: the data set.
        split: name of the split.
        ours: outputs of one model for the split's images, in order.
        theirs: outputs of the other model.
        replicates: number of bootstrap replicates of whole patients, which are the same for both models.
        seed: random seed of the bootstrap.

    Returns:
        A JSON-ready record: "findings" with "macro" and "labels", and "abnormal". Each value is as in `difference`;
        labels without an AUROC are left out.
    """
    weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates, seed)
    mine, other = (aurocs(prepared, split, outputs.logits, weights) for outputs in (ours, theirs))
    labels = {
        label: difference(_label(mine["findings"], column), _label(other["findings"], column))
        for column, label in enumerate(prepared.labels)
    }
    return {
        "findings": {
            "macro": difference(mine["findings"], other["findings"]),
            "labels": {label: row for label, row in labels.items() if row},
        },
        "abnormal": difference(mine["abnormal"], other["abnormal"]),
    }


def _label(scored: metrics.Aurocs, column: int) -> metrics.Aurocs:
    return metrics.Aurocs(scored.labels[[column]], scored.replicates[:, [column]])


def difference(ours: metrics.Aurocs, theirs: metrics.Aurocs) -> dict[str, float] | None:
    """Return the paired difference of two macro AUROCs.

    Returns:
        "difference" with the interval's "low" and "high", and the p-value "p"; None if there is no AUROC.
    """
    value, samples = metrics.macro_differences(ours, theirs)
    if math.isnan(value) or np.isnan(samples).all():
        return None
    interval = metrics.interval(value, samples)
    return {"difference": value, "low": interval.low, "high": interval.high, "p": metrics.p_value(samples)}
