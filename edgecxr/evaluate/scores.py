"""Scores of a model on a prepared data set.

They are AUROCs with intervals, results at the operating points, and calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgecxr import metrics
from edgecxr.bundle.card import ModelCard
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Backend, Outputs
from edgecxr.errors import InputError, ModelError
from edgecxr.evaluate.operating_points import columns_of
from edgecxr.evaluate.probability_calibration import calibrated, reliability
from edgecxr.vocabulary import ABNORMAL


def predict(
    backend: Backend,
    prepared: Prepared,
    rows: np.ndarray,
    size: int,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Run a model over images of a prepared data set.

    Args:
        backend: the model.
        prepared: the data set.
        rows: (N,) indices of the images.
        size: side of the model's input in pixels.
        batch: images per call.
        progress: called with (images done, images in all).

    Returns:
        Logits, attention and features of all N images.

    Raises:
        ModelError: a logit is not finite, or the model has another number of findings.
        InputError: the model needs 448 px and the data set has no such images; reason "dataset".
    """
    done = []
    for start in range(0, len(rows), batch):
        outputs = backend.run(prepared.inputs(rows[start : start + batch], size))
        if outputs.findings.shape[1] != len(prepared.labels):
            raise ModelError(
                f"the model gives {outputs.findings.shape[1]} findings and data set {prepared.name} has "
                f"{len(prepared.labels)}: export or train it again"
            )
        # NaN sorts like any score, so that a broken model would get an AUROC.
        if not (np.isfinite(outputs.findings).all() and np.isfinite(outputs.abnormal).all()):
            raise ModelError(
                f"the model gives values that are not numbers on data set {prepared.name}: train or export it again"
            )
        done.append(outputs)
        if progress:
            progress(min(start + batch, len(rows)), len(rows))
    return Outputs(
        np.concatenate([outputs.findings for outputs in done]),
        np.concatenate([outputs.abnormal for outputs in done]),
        np.concatenate([outputs.attention for outputs in done]),
        np.concatenate([outputs.features for outputs in done]) if done[0].features is not None else None,
    )


def evaluate(
    card: ModelCard,
    prepared: Prepared,
    split: str,
    outputs: Outputs,
    replicates: int = 1000,
    seed: int = 0,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Score the outputs for one split of a data set.

    Args:
        card: the model's card, whose temperatures and operating points are applied.
        prepared: the data set.
        split: name of the split.
        outputs: outputs for the split's N images, in order.
        replicates: number of bootstrap replicates; whole patients are drawn.
        seed: random seed of the bootstrap.
        prevalence: prevalence for the positive predictive value; None means that of each label in the split.

    Returns:
        A JSON-ready record: "findings" with "macro" and "labels", "abnormal", "skipped" (counts of labels with only
        one class), "calibration", and how the intervals were made.
    """
    rows = prepared.rows(split)
    columns = columns_of(prepared, rows, outputs)
    targets, logits = (np.stack([pair[i] for pair in columns.values()], axis=1) for i in (0, 1))
    weights = metrics.patient_weights(prepared.patients[rows], replicates, seed)
    scored = metrics.aurocs(targets, logits, weights)
    whole = np.ones((1, len(rows)), np.float32)
    labels: dict[str, Any] = {}
    skipped: dict[str, Any] = {}
    for column, name in enumerate(columns):
        positives, negatives = metrics.counts(targets[:, column])
        if positives == 0 or negatives == 0:
            skipped[name] = {"positives": positives, "negatives": negatives}
            continue
        area = scored.of(column)
        probabilities = calibrated(logits[:, column], card.temperature.get(name, 1))
        precision = metrics.interval(
            float(metrics.average_precision(targets[:, column], logits[:, column], whole)[0]),
            metrics.average_precision(targets[:, column], logits[:, column], weights),
        )
        labels[name] = {
            "auroc": area.value,
            "low": area.low,
            "high": area.high,
            "positives": positives,
            "negatives": negatives,
            "ece": reliability(targets[:, column], probabilities).error,
            "auprc": precision.value,
            "auprc_low": precision.low,
            "auprc_high": precision.high,
            "operating": _at_operating_points(card, name, targets[:, column], probabilities, prevalence, weights),
        }
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
        "prevalence": prevalence,
        "few_validation_cases": card.few_cases,
        "calibration": {
            "findings": _calibration(
                targets[:, :-1], logits[:, :-1], [card.temperature.get(n, 1) for n in card.labels]
            ),
            "abnormal": _calibration(targets[:, -1:], logits[:, -1:], [card.temperature.get(ABNORMAL, 1)]),
        },
        "bootstrap": {"replicates": replicates, "seed": seed, "unit": "patient", "level": 0.95},
    }


def _at_operating_points(
    card: ModelCard,
    name: str,
    targets: metrics.Array,
    probabilities: metrics.Array,
    prevalence: float | None,
    weights: metrics.Array,
) -> dict[str, dict[str, float | None]]:
    """Return rule -> threshold, sensitivity, specificity and PPV.

    Sensitivity and specificity have intervals, "..._low" and "..._high", over the replicates `weights`.
    """
    positives, negatives = metrics.counts(targets)
    points: dict[str, dict[str, float | None]] = {}
    for rule, thresholds in card.operating_points.items():
        if name in thresholds:
            pair = metrics.sensitivity_specificity(targets, probabilities, thresholds[name])
            share = positives / (positives + negatives) if prevalence is None else prevalence
            ppv = metrics.predictive_value(*pair, share)
            points[rule] = {"threshold": thresholds[name], "sensitivity": pair[0], "specificity": pair[1]}
            samples = metrics.rates(targets, probabilities, thresholds[name], weights)
            of_kind = zip(("sensitivity", "specificity"), pair, samples, (positives, negatives), strict=True)
            for kind, value, replicates, cases in of_kind:
                ends = metrics.interval(value, replicates)
                if ends.low == ends.high:  # all right or all wrong, of which a bootstrap knows nothing else
                    ends = metrics.proportion(round(value * cases), cases)
                points[rule] |= {f"{kind}_low": ends.low, f"{kind}_high": ends.high}
            points[rule]["ppv"] = None if math.isnan(ppv) else ppv
    return points


def _calibration(targets: metrics.Array, logits: metrics.Array, temperatures: list[float]) -> dict[str, Any] | None:
    """Return the calibration of one task; None if no target is known.

    The bins of the reliability plot are those after temperature scaling.
    """
    if np.isnan(targets).all():
        return None
    before, after = (reliability(targets, calibrated(logits, t)) for t in (1.0, np.array(temperatures)))
    bins = [
        [int(count), float(predicted), float(observed)]
        for count, predicted, observed in zip(after.counts, after.predicted, after.observed, strict=True)
    ]
    return {
        "temperatures": sorted(set(temperatures)),
        "ece": after.error,
        "ece_uncalibrated": before.error,
        "bins": bins,
    }


def check_labels(card: ModelCard, prepared: Prepared, split: str) -> None:
    """Check that a data set has the model's labels.

    Raises:
        InputError: the data set has other labels, or no images in the split; reason "dataset".
    """
    missing = [label for label in card.labels if label not in prepared.labels]
    if missing:
        raise InputError(
            f"data set {prepared.name} lacks {', '.join(missing)}, which {card.name} answers: prepare one with them",
            "dataset",
        )
    if card.labels != prepared.labels:
        raise InputError(
            f"{card.name} answers {', '.join(card.labels)}; data set {prepared.name} has {', '.join(prepared.labels)}: "
            "prepare it with --labels in the model's order",
            "dataset",
        )
    if len(prepared.rows(split)) == 0:
        raise InputError(f"data set {prepared.name} has no images in its {split} split", "dataset")
