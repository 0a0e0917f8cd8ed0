"""Whether an artefact is as good as the checkpoint it was made from: logits for FP32, AUROC drop for less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Backend
from edgecxr.errors import CheckFailed
from edgecxr.evaluate.comparison import aurocs
from edgecxr.evaluate.scores import predict
from edgecxr.metrics import Interval
from edgecxr.vocabulary import FloatArray

PASS, FAIL, UNRESOLVED = "pass", "fail", "unresolved"
TASKS = ("findings", "abnormal")


@dataclass(frozen=True)
class Truth:
    """What verdicts rest on: real images with labels, and what the checkpoint says of them.

    Attributes:
        prepared: the data set.
        split: its split, whole.
        logits: (N, L + 1) of the checkpoint, "abnormal" last.
        weights: (R, N) bootstrap replicates of whole patients.
        aurocs: of the checkpoint, by task.
    """

    prepared: Prepared
    split: str
    logits: FloatArray
    weights: metrics.Array
    aurocs: dict[str, metrics.Aurocs]

    @classmethod
    def of(cls, reference: Backend, prepared: Prepared, split: str, size: int, replicates: int = 1000) -> Truth:
        """Run the checkpoint over a split.

        Args:
            reference: the checkpoint.
            prepared: the data set.
            split: such as "val".
            size: side of the model's input in pixels.
            replicates: of the bootstrap.
        """
        logits = logits_of(reference, prepared, split, size)
        weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates)
        return cls(prepared, split, logits, weights, aurocs(prepared, split, logits, weights))


@dataclass(frozen=True)
class Verdict:
    """What the comparison of one artefact with its checkpoint came to.

    Attributes:
        status: "pass", "fail" or "unresolved".
        max_logit_difference: largest absolute difference of any logit.
        drop: AUROC of the checkpoint minus the artefact's, with its paired 95 % interval, of "findings" (macro) and
            "abnormal"; NaN where no label has both classes.
        tolerance: of the AUROC drop.
        images: number of images compared.
        data: name of the data set.
        split: its split.
    """

    status: str
    max_logit_difference: float
    drop: dict[str, Interval]
    tolerance: float
    images: int
    data: str
    split: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a card; null for a drop that is not known."""
        drop = {
            task: None if math.isnan(i.value) else {"auroc": i.value, "low": i.low, "high": i.high}
            for task, i in self.drop.items()
        }
        return {
            "status": self.status, "max_logit_difference": self.max_logit_difference, "auroc_drop": drop,
            "tolerance": self.tolerance, "images": self.images, "data": self.data, "split": self.split,
        }  # fmt: skip

    def __str__(self) -> str:
        drops = ", ".join(
            f"{task} {i.value:+.4f} ({i.low:+.4f} to {i.high:+.4f})"
            for task, i in self.drop.items()
            if not math.isnan(i.value)
        )
        status = f"{self.status} (too few images to tell)" if self.status == UNRESOLVED else self.status
        return (
            f"{status}, logits within {self.max_logit_difference:.1e} on {self.images} images; AUROC drop "
            f"{drops or 'not known: no label has both classes'}"
        )


def logits_of(backend: Backend, prepared: Prepared, split: str, size: int) -> FloatArray:
    """Return the logits (N, L + 1) of a whole split, "abnormal" last."""
    return predict(backend, prepared, prepared.rows(split), size).logits


def same_auroc(truth: Truth, logits: FloatArray, tolerance: float) -> Verdict:
    """Judge an artefact of lower precision by its AUROC drop and the drop's 95 % interval.

    "pass" if the upper ends of both tasks' intervals are within `tolerance`, "fail" if a lower end is past it, else
    "unresolved": too few images to tell. A bootstrap replicate that lost a class drops that label for both models.
    """
    drops = _drops(truth, logits)
    if any(drop.low > tolerance for drop in drops.values()):
        status = FAIL
    elif any(not drop.high <= tolerance for drop in drops.values()):  # not known is NaN
        status = UNRESOLVED
    else:
        status = PASS
    difference = float(np.abs(logits - truth.logits).max())
    return Verdict(status, difference, drops, tolerance, len(logits), truth.prepared.name, truth.split)


def _drops(truth: Truth, logits: FloatArray) -> dict[str, Interval]:
    ours = aurocs(truth.prepared, truth.split, logits, truth.weights)
    return {task: metrics.macro_difference(truth.aurocs[task], ours[task]) for task in TASKS}


def compare(reference: Backend, candidate: Backend, images: FloatArray) -> dict[str, Any]:
    """Run two backends on the same images.

    Args:
        reference: the checkpoint.
        candidate: the artefact.
        images: (N, 1, S, S) float32 in [0, 1], real ones.

    Returns:
        Largest absolute difference of the logits of both tasks and of the attention, and the number of images.
    """
    ours, theirs = candidate.run(images), reference.run(images)
    return {
        "images": len(images),
        "max_logit_difference": float(np.abs(ours.logits - theirs.logits).max()),
        "max_attention_difference": float(np.abs(ours.attention - theirs.attention).max()),
    }


def check_parity(differences: dict[str, Any], name: str, tolerance: float) -> None:
    """Refuse an artefact that differs from its checkpoint.

    Raises:
        CheckFailed: a difference is above `tolerance` or not a number.
    """
    # numpy's maximum is NaN where either is; Python's depends on their order.
    worst = np.maximum(differences["max_logit_difference"], differences["max_attention_difference"])
    if not worst <= tolerance:
        raise CheckFailed(
            f"the ONNX file of {name} differs from its checkpoint by {worst:.2g} (at most {tolerance:g} allowed) on "
            f"{differences['images']} images; it was not written"
        )
