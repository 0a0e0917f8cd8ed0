"""Validation after each epoch, and its demands on a data set."""

from __future__ import annotations

import math

import numpy as np
import torch

from edgecxr import metrics
from edgecxr.errors import InputError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.batches import Batches, view
from edgecxr.train.device import Device
from edgecxr.vocabulary import FloatArray


@torch.inference_mode()
def val_logits(model: TwoHeadViT, val: Batches, size: int, device: Device) -> FloatArray:
    """Return the logits (N, L + 1) of the validation split.

    "abnormal" is the last column. Each process computes a part of the logits, and all of them get the whole.
    """
    model.eval()
    outputs = []
    for batch in val.in_order():
        # Not in half precision: it has so few distinct logits that ties would decide the best epoch.
        trace = model.trace(view(batch.base, size))
        outputs.append(torch.cat([trace.findings, trace.abnormal[:, None]], dim=1))
    logits = device.all_gather(torch.cat(outputs)).transpose(0, 1).flatten(0, 1)
    return logits[: len(val.rows)].cpu().numpy()


def val_aurocs(val: Batches, logits: FloatArray) -> tuple[float, float]:
    """Return the validation AUROCs of both tasks.

    Returns:
        The macro AUROC of the findings and the AUROC of normal/abnormal; NaN if no label has both classes.
    """
    targets = val.targets.numpy()
    aurocs = [metrics.auroc(targets[:, c], logits[:, c]) for c in range(targets.shape[1])]
    defined = [value for value in aurocs if not math.isnan(value)]
    return (
        float(np.mean(defined)) if defined else math.nan,
        metrics.auroc(val.abnormal.numpy(), logits[:, -1]),
    )


def check_splits(train: Batches, val: Batches, name: str) -> None:
    """Refuse a data set that cannot be used for training.

    Raises:
        InputError: a split is empty, or no label has both classes in the training split; reason "dataset".
    """
    for batches, split in ((train, "train"), (val, "val")):
        if len(batches.rows) == 0:
            raise InputError(f"data set {name} has no images in its {split} split: prepare it again", "dataset")
    columns = torch.cat([train.targets, train.abnormal[:, None]], dim=1).numpy()
    if not any(min(metrics.counts(column)) for column in columns.T):
        raise InputError(
            f"every label of data set {name} has only one class in the training split: there is nothing to learn",
            "dataset",
        )
