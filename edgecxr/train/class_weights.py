"""Weights of positive and negative targets, for `--class-weights balanced`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgecxr.data.prepared import Prepared
from edgecxr.terminal import say
from edgecxr.vocabulary import ABNORMAL, FloatArray

LARGEST_RATIO = 20.0
"""Limit of the weight of a positive film relative to a negative one, and the other way round.

With more, few films of a rare finding would make up most of its gradient.
"""


def balanced(targets: FloatArray) -> FloatArray:
    """Return weights with which positives and negatives of a label count alike.

    The mean weight of the known targets of a label is 1, so that the loss keeps its size beside the distillation
    losses. A label with known targets of one class only has weights of 1.

    Args:
        targets: (N, C) in [0, 1] or NaN, of the training films.

    Returns:
        (2, C) weights of negative and of positive targets; their ratio is at most `LARGEST_RATIO`, either way.
    """
    positives, negatives = np.nansum(targets, axis=0), np.nansum(1 - targets, axis=0)
    both = (positives > 0) & (negatives > 0)
    ratio = np.divide(negatives, positives, out=np.ones_like(positives), where=both)
    ratio = ratio.clip(1 / LARGEST_RATIO, LARGEST_RATIO)
    negative = np.divide(positives + negatives, ratio * positives + negatives, out=np.ones_like(positives), where=both)
    return np.stack([negative, ratio * negative])


def class_weights(prepared: Prepared, kind: str, device: torch.device) -> Tensor | None:
    """Return the weights of a data set's training films, and print them.

    Labels that the training does not use, see `--labelled`, must be NaN in `prepared` already.

    Args:
        prepared: the data set.
        kind: "none" or "balanced".
        device: where the weights are needed.

    Returns:
        (2, L + 1) float32 weights of negative and of positive targets, "abnormal" last; None for "none".
    """
    if kind == "none":
        return None
    rows = prepared.rows("train")
    weights = balanced(np.column_stack([prepared.targets[rows], prepared.abnormal[rows]]).astype(np.float64))
    names = (*prepared.labels, ABNORMAL)
    shown = ", ".join(f"{name} {ratio:.3g}" for name, ratio in zip(names, weights[1] / weights[0], strict=True))
    say(f"class weights: one film with the finding counts as much as so many without it: {shown}")
    return torch.tensor(weights, dtype=torch.float32, device=device)
