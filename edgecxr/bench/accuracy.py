"""How well a model reads a prepared data set: AUROCs with intervals, operating points."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, ModelError
from edgecxr.runtime.backend import Backend
from edgecxr.runtime.preprocess import box_mean
from edgecxr.runtime.types import ABNORMAL, FloatArray, ModelCard

RULES = ("youden", "sensitivity90")


def predict(
    backend: Backend,
    prepared: Prepared,
    rows: np.ndarray,
    size: int,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Run a model over images of a prepared data set.

    Args:
        backend: the model.
        prepared: the data set.
        rows: (N,) indices of the images.
        size: side of the model's input in pixels.
        batch: images per call.
        progress: called with (images done, images in all).

    Returns:
        Logits of the findings (N, L) and of abnormal (N,).

    Raises:
        ModelError: a logit is not a number.
    """
    findings, abnormal = [], []
    for start in range(0, len(rows), batch):
        images = box_mean(prepared.images[rows[start : start + batch]], size)
        outputs = backend.run(images[:, None])
        if outputs.findings.shape[1] != len(prepared.labels):
            raise ModelError(
                f"the model gives {outputs.findings.shape[1]} findings and data set {prepared.name} has "
                f"{len(prepared.labels)}: export or train it again"
            )
        # NaN sorts like any score: without this, a broken model would get an AUROC.
        if not (np.isfinite(outputs.findings).all() and np.isfinite(outputs.abnormal).all()):
            raise ModelError(
                f"the model gives values that are not numbers on data set {prepared.name}: train or export it again"
            )
        findings.append(outputs.findings)
        abnormal.append(outputs.abnormal)
        if progress:
            progress(min(start + batch, len(rows)), len(rows))
    return np.concatenate(findings), np.concatenate(abnormal)


def choose_operating_points(
    prepared: Prepared, rows: np.ndarray, findings: FloatArray, abnormal: FloatArray
) -> dict[str, dict[str, float]]:
    """Choose thresholds on the validation split, for each rule and label.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.
        findings: (N, L) logits.
        abnormal: (N,) logits.

    Returns:
        rule -> {label or "abnormal": probability}; a label with only one class in the split is absent.
    """
    columns = dict(zip(prepared.labels, zip(prepared.targets[rows].T, findings.T, strict=True), strict=True))
    columns[ABNORMAL] = (prepared.abnormal[rows], abnormal)
    points: dict[str, dict[str, float]] = {}
    for rule in RULES:
        chosen = {
            name: metrics.operating_point(targets, metrics.sigmoid(logits), rule)
            for name, (targets, logits) in columns.items()
        }
        # Not rounded: the probabilities of a rare label may differ in the seventh decimal only.
        points[rule] = {name: value for name, value in chosen.items() if not math.isnan(value)}
    return points


def count_cases(prepared: Prepared, rows: np.ndarray) -> dict[str, dict[str, int]]:
    """Count what operating points are chosen on.

    Args:
        prepared: the data set.
        rows: (N,) indices of the validation images.

    Returns:
        label or "abnormal" -> {"positives", "negatives"}, as a card's `operating_counts` take it.
    """
    columns = dict(zip(prepared.labels, prepared.targets[rows].T, strict=True)) | {ABNORMAL: prepared.abnormal[rows]}
    return {
        name: dict(zip(("positives", "negatives"), metrics.counts(targets), strict=True))
        for name, targets in columns.items()
    }


def evaluate(
    card: ModelCard,
    prepared: Prepared,
    split: str,
    findings: FloatArray,
    abnormal: FloatArray,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score logits of one split of a data set.

    Args:
        card: whose operating points are applied.
        prepared: the data set.
        split: its name.
        findings: (N, L) logits of the split's images, in order.
        abnormal: (N,) logits.
        replicates: bootstrap replicates; whole patients are drawn.
        seed: of the bootstrap.

    Returns:
        A JSON-ready record: "findings" with "macro" and "labels", "abnormal", "skipped" (labels with only one class
        and their counts), and how the intervals were made. Sensitivity and specificity are those at the "youden"
        operating point of the card.
    """
    rows = prepared.rows(split)
    targets = np.concatenate([prepared.targets[rows], prepared.abnormal[rows, None]], axis=1)
    logits = np.concatenate([findings, abnormal[:, None]], axis=1)
    scored = metrics.aurocs(targets, logits, metrics.patient_weights(prepared.patients[rows], replicates, seed))
    thresholds = card.operating_points.get("youden", {})
    labels: dict[str, Any] = {}
    skipped: dict[str, Any] = {}
    for column, name in enumerate((*prepared.labels, ABNORMAL)):
        positives, negatives = metrics.counts(targets[:, column])
        if positives == 0 or negatives == 0:
            skipped[name] = {"positives": positives, "negatives": negatives}
            continue
        area = scored.of(column)
        labels[name] = {"auroc": area.value, "low": area.low, "high": area.high}
        labels[name] |= {"positives": positives, "negatives": negatives}
        if name in thresholds:
            pair = metrics.sensitivity_specificity(
                targets[:, column], metrics.sigmoid(logits[:, column]), thresholds[name]
            )
            labels[name] |= {"threshold": thresholds[name], "sensitivity": pair[0], "specificity": pair[1]}
    macro = metrics.Aurocs(scored.labels[:-1], scored.replicates[:, :-1]).macro
    of_abnormal = labels.pop(ABNORMAL, None)
    return {
        "data": prepared.name,
        "data_hash": prepared.hash,
        "phantom": prepared.phantom,
        "split": split,
        "images": len(rows),
        "patients": len(np.unique(prepared.patients[rows])),
        "findings": {
            "macro": None if math.isnan(macro.value) else {"auroc": macro.value, "low": macro.low, "high": macro.high},
            "labels": labels,
        },
        "abnormal": of_abnormal,
        "skipped": skipped,
        "bootstrap": {"replicates": replicates, "seed": seed, "unit": "patient", "level": 0.95},
    }


def check_labels(card: ModelCard, prepared: Prepared, split: str) -> None:
    """Refuse to score a model on a data set that asks other questions.

    Raises:
        InputError: other labels, or no images in the split.
    """
    if card.labels != prepared.labels:
        raise InputError(
            f"{card.name} answers {', '.join(card.labels)}; data set {prepared.name} has {', '.join(prepared.labels)}: "
            "prepare it with --labels in the model's order",
            "dataset",
        )
    if len(prepared.rows(split)) == 0:
        raise InputError(f"data set {prepared.name} has no images in its {split} split", "dataset")
