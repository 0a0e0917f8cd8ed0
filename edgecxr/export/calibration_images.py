"""Choice of the training images that calibrate INT8."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError

SPLIT = "train"
FEWEST = 16


@dataclass(frozen=True, eq=False)
class Calibration:
    """A choice of images, which stay on the workstation.

    Attributes:
        rows: (N,) indices into the data set, in order.
        seed: random seed of the choice.
        sha256: hash of the images' pixels at 224 px, in order.
        data: name of the data set.
    """

    rows: np.ndarray
    seed: int
    sha256: str
    data: str

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON-ready values for a card."""
        return {"data": self.data, "split": SPLIT, "images": len(self.rows), "seed": self.seed, "sha256": self.sha256}


def choose(prepared: Prepared, count: int, seed: int) -> Calibration:
    """Choose training images at random, stratified by abnormality.

    Abnormal and normal images are in the proportion of the split.

    Args:
        prepared: the data set.
        count: number of images; a split that has fewer is used whole.
        seed: random seed of the choice.

    Raises:
        InputError: the training split has fewer than 16 images, or only normal or only abnormal ones; reason "dataset".
    """
    rows = prepared.rows(SPLIT)
    remedy = "prepare more data, or export without INT8 (--fp16)"
    if len(rows) < FEWEST:
        raise InputError(
            f"data set {prepared.name} has {len(rows)} training images, too few to calibrate INT8 on (at least "
            f"{FEWEST}): {remedy}",
            "dataset",
        )
    if not min(metrics.counts(prepared.abnormal[rows])):
        raise InputError(
            f"the training images of data set {prepared.name} are all normal or all abnormal, and INT8 would be "
            f"calibrated on one kind only: {remedy}",
            "dataset",
        )
    order = np.random.default_rng(seed).permutation(rows)
    # Unknown images count as normal, since it only matters that neither kind is missing.
    abnormal = metrics.binarise(prepared.abnormal[order]) == 1
    share = min(1.0, count / len(rows))
    strata = [kind[: max(1, round(len(kind) * share))] for kind in (order[abnormal], order[~abnormal])]
    chosen = np.sort(np.concatenate(strata))
    digest = hashlib.sha256()
    for row in chosen:
        digest.update(prepared.images[row].tobytes())
    return Calibration(chosen, seed, digest.hexdigest(), prepared.name)
