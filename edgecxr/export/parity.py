"""Comparison of artefacts with the checkpoint they were made from.

An FP32 file is judged by its logits, a file of lower precision by its AUROC drop.
"""

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
from edgecxr.metrics import Interval, with_interval
from edgecxr.vocabulary import ABNORMAL, FEW_CASES, FloatArray

PASS, FAIL, UNRESOLVED = "pass", "fail", "unresolved"
TASKS = ("findings", ABNORMAL)

UNSEEN = 1
"""Films of the rarer class that a verdict adds to those it has seen, as if the artefact only guessed at them."""

SURE = 0.98
"""Level of the two-sided interval whose upper end a "pass" rests on."""


@dataclass(frozen=True)
class Truth:
    """Labelled images and a checkpoint's logits, the reference of verdicts.

    Attributes:
        prepared: the data set.
        split: name of the split, all of which is used.
        logits: (N, L + 1) logits of the checkpoint, "abnormal" last.
        weights: (R, N) bootstrap replicates of whole patients.
        aurocs: task -> AUROCs of the checkpoint.
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
            split: name of the split, such as "val".
            size: side of the model's input in pixels.
            replicates: number of bootstrap replicates.
        """
        logits = logits_of(reference, prepared, split, size)
        weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates)
        return cls(prepared, split, logits, weights, aurocs(prepared, split, logits, weights))


@dataclass(frozen=True)
class Verdict:
    """Result of comparing one artefact with its checkpoint.

    Attributes:
        status: "pass", "fail" or "unresolved".
        max_logit_difference: largest absolute difference of any logit.
        drop: AUROC of the checkpoint minus the artefact's, with its paired 95 % interval, for "findings" (macro) and
            "abnormal"; NaN if no label has both classes. The findings are those with enough films, or all if none has.
        bound: task -> upper end of its drop that the verdict rests on, which also allows for films that were not seen;
            only tasks with enough films.
        undecided: labels, and perhaps "abnormal", with too few films to decide anything.
        tolerance: largest AUROC drop allowed.
        images: number of images compared.
        data: name of the data set.
        split: name of the split.
    """

    status: str
    max_logit_difference: float
    drop: dict[str, Interval]
    bound: dict[str, float]
    undecided: tuple[str, ...]
    tolerance: float
    images: int
    data: str
    split: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values for a card.

        An unknown drop is None.
        """
        drop = {
            task: None if math.isnan(i.value) else {"auroc": i.value, "low": i.low, "high": i.high}
            for task, i in self.drop.items()
        }
        return {
            "status": self.status, "max_logit_difference": self.max_logit_difference, "auroc_drop": drop,
            "bound": self.bound, "undecided": list(self.undecided), "tolerance": self.tolerance,
            "images": self.images, "data": self.data, "split": self.split,
        }  # fmt: skip

    def __str__(self) -> str:
        drops = ", ".join(
            f"{task} {with_interval(i.value, i.low, i.high, '+.4f')}"
            for task, i in self.drop.items()
            if not math.isnan(i.value)
        )
        status = f"{self.status} (too few films to tell)" if self.status == UNRESOLVED else self.status
        few = f"; fewer than {FEW_CASES} of a class: {', '.join(self.undecided)}" if self.undecided else ""
        return (
            f"{status}, logits within {self.max_logit_difference:.1e} on {self.images} images; AUROC drop "
            f"{drops or 'not known: no label has both classes'}{few}"
        )


def logits_of(backend: Backend, prepared: Prepared, split: str, size: int) -> FloatArray:
    """Return logits (N, L + 1) of a whole split, "abnormal" last."""
    return predict(backend, prepared, prepared.rows(split), size).logits


def same_auroc(truth: Truth, logits: FloatArray, tolerance: float) -> Verdict:
    """Judge an artefact of lower precision by its AUROC drop.

    A label decides only if at least `FEW_CASES` patients have it and as many have not; a task decides only if one of
    its labels does. The status depends on the drop's 95 % interval: "fail" if its lower end is above `tolerance` for a
    task, "pass" if the upper ends of both tasks are within it, else "unresolved", since there are too few films to
    tell. If a bootstrap replicate lacks one class of a label, that label is left out of it for both models.

    The bootstrap knows only the films that there are: if the artefact fails on one film in fifty, thirty films often
    show nothing of it, and their interval is a point. So a "pass" rests on a higher upper end, that of the `SURE`
    interval with `UNSEEN` more films of the rarer class on which the artefact only guesses (AUROC 0.5); Agresti and
    Coull add films to a proportion for the same reason (Am. Stat. 52, 1998). `benchmarks/verdicts.py` simulates how
    often a "pass" is wrong.

    Logits that are not numbers fail.
    """
    cases = _cases(truth)
    names = (*truth.prepared.labels, ABNORMAL)
    decides = cases >= FEW_CASES
    drops, bound = {}, {}
    ours = aurocs(truth.prepared, truth.split, logits, truth.weights)
    for task, columns in zip(TASKS, (slice(None, -1), slice(-1, None)), strict=True):
        enough = decides[columns]
        chosen = enough if enough.any() else np.ones_like(enough)
        reference = _of(truth.aurocs[task], chosen)
        value, samples = metrics.macro_differences(reference, _of(ours[task], chosen))
        drops[task] = metrics.interval(value, samples)
        if enough.any():
            guessed = np.maximum(reference.labels - 0.5, 0) * UNSEEN / (cases[columns][chosen] + UNSEEN)
            bound[task] = metrics.interval(value, samples, SURE).high + float(guessed.mean())
    if not np.isfinite(logits).all() or any(drops[task].low > tolerance for task in bound):
        status = FAIL
    elif len(bound) == len(TASKS) and all(high <= tolerance for high in bound.values()):
        status = PASS
    else:
        status = UNRESOLVED
    difference = float(np.abs(logits - truth.logits).max())
    few = tuple(name for name, enough in zip(names, decides, strict=True) if not enough)
    return Verdict(status, difference, drops, bound, few, tolerance, len(logits), truth.prepared.name, truth.split)


def _cases(truth: Truth) -> metrics.Array:
    """Return the number of patients (L + 1,) in the rarer class."""
    rows = truth.prepared.rows(truth.split)
    targets = metrics.binarise(np.column_stack([truth.prepared.targets[rows], truth.prepared.abnormal[rows]]))
    patients = truth.prepared.patients[rows]
    return np.array([min(len(np.unique(patients[column == kind])) for kind in (0, 1)) for column in targets.T])


def _of(areas: metrics.Aurocs, chosen: metrics.Array) -> metrics.Aurocs:
    return metrics.Aurocs(areas.labels[chosen], areas.replicates[:, chosen])


def compare(reference: Backend, candidate: Backend, images: FloatArray) -> dict[str, Any]:
    """Run two backends on the same images.

    Args:
        reference: the checkpoint.
        candidate: the artefact.
        images: (N, 1, S, S) float32 in [0, 1]; real images, not noise.

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
    """Check that an artefact agrees with its checkpoint.

    Raises:
        CheckFailed: a difference is above `tolerance` or not a number.
    """
    # NumPy's maximum is NaN if either value is; the result of Python's max depends on their order.
    worst = np.maximum(differences["max_logit_difference"], differences["max_attention_difference"])
    if not worst <= tolerance:
        raise CheckFailed(
            f"the ONNX file of {name} differs from its checkpoint by {worst:.2g} (at most {tolerance:g} allowed) on "
            f"{differences['images']} images; it was not written"
        )
