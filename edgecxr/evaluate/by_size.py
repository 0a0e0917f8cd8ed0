"""AUROC and pointing game by size of finding.

They show what low resolution loses, and need data with boxes. A case is a finding of one image that has boxes. Its size
is the square root of the area of its largest box, in pixels of the 224 px image; in the image of a student with an
input of S px, that is size * S / 224 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecxr import NOTICE, metrics
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError
from edgecxr.evaluate.evaluation import ModelOutputs
from edgecxr.films.resize import BASE_SIZE
from edgecxr.metrics import with_interval
from edgecxr.terminal import aligned, joined
from edgecxr.vocabulary import FEW_CASES, FloatArray

TOLERANCE = 15
"""Pixels of the 224 px image by which a point may miss a box. This is our choice, after the 15 px of original images in
Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, section 4.2."""

FEWEST = 5
"""Least number of images of each class that a label needs for an AUROC."""

SIZES = 3
"""Number of size groups, with equal numbers of cases."""


@dataclass(frozen=True)
class Cases:
    """The K cases of one split.

    Attributes:
        image: (K,) index of the image among the split's N.
        label: (K,) column of the finding.
        side: (K,) size in pixels of the 224 px image.
        boxes: K arrays (n, 4) of x_min, y_min, x_max, y_max, widened by the tolerance.
        chance: (K,) share of the image's pixels that are in one of the boxes.
    """

    image: np.ndarray
    label: np.ndarray
    side: FloatArray
    boxes: tuple[FloatArray, ...]
    chance: FloatArray


def cases_of(prepared: Prepared, split: str) -> Cases:
    """Collect the cases of a split.

    Raises:
        InputError: the split has no cases; reason "dataset".
    """
    position = np.full(len(prepared), -1)
    position[prepared.rows(split)] = np.arange(len(prepared.rows(split)))
    boxes: dict[tuple[int, int], list[FloatArray]] = {}
    for row, label, corners in zip(
        prepared.boxes.image.tolist(), prepared.boxes.label.tolist(), prepared.boxes.corners, strict=True
    ):
        if position[row] >= 0 and prepared.targets[row, label] >= 0.5:
            boxes.setdefault((int(position[row]), label), []).append(corners)
    if not boxes:
        raise without_boxes(prepared, split)
    keys = sorted(boxes)
    largest = [max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes[key]) for key in keys]
    wider = tuple(np.stack(boxes[key]) + np.float32(TOLERANCE) * np.array([-1, -1, 1, 1], np.float32) for key in keys)
    return Cases(
        image=np.array([image for image, _ in keys]),
        label=np.array([label for _, label in keys]),
        side=np.sqrt(np.array(largest, np.float32)),
        boxes=wider,
        chance=np.array([_share(each) for each in wider], np.float32),
    )


def without_boxes(prepared: Prepared, split: str) -> InputError:
    """Return the error for a split without boxes; reason "dataset"."""
    return InputError(
        f"data set {prepared.name} has no boxes of findings in its {split} split: sizes need data with boxes, such as "
        "the phantom, VinDr-CXR, or a folder prepared with --boxes FILE",
        "dataset",
    )


def _share(boxes: FloatArray) -> float:
    """Return the share of pixels inside the union of boxes (n, 4)."""
    centres = np.arange(BASE_SIZE) + 0.5
    area = np.zeros((BASE_SIZE, BASE_SIZE), bool)
    for x0, y0, x1, y1 in boxes:
        area |= ((centres >= y0) & (centres <= y1))[:, None] & ((centres >= x0) & (centres <= x1))
    return float(area.mean())


def strongest(attention: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of each image's patch with most attention.

    Args:
        attention: (N, g, g).

    Returns:
        x (N,) and y (N,) in pixels of the 224 px image.
    """
    grid = attention.shape[1]
    patch = attention.reshape(len(attention), -1).argmax(axis=1)
    return (patch % grid + 0.5) * BASE_SIZE / grid, (patch // grid + 0.5) * BASE_SIZE / grid


def hits(cases: Cases, attention: FloatArray) -> np.ndarray:
    """Play the pointing game: is the strongest patch on the finding?

    Args:
        cases: cases of the split.
        attention: (N, g, g) attention of a model for the split's images.

    Returns:
        (K,) bool, whether the centre of the patch with most attention is in a box or within `TOLERANCE` of one.
    """
    x, y = strongest(attention)
    return np.array(
        [
            bool(((x[i] >= box[:, 0]) & (x[i] <= box[:, 2]) & (y[i] >= box[:, 1]) & (y[i] <= box[:, 3])).any())
            for i, box in zip(cases.image.tolist(), cases.boxes, strict=True)
        ]
    )


def hit_rate(hit: np.ndarray, weights: metrics.Array) -> metrics.Interval:
    """Return the share of hits with its interval.

    Args:
        hit: (K,) bool, from `hits`.
        weights: (R, K) number of times each case's image is in each bootstrap replicate.
    """
    with np.errstate(invalid="ignore"):
        samples = weights @ hit.astype(np.float32) / weights.sum(axis=1)
    return metrics.interval(float(hit.mean()), samples)


def by_size(models: Sequence[ModelOutputs], split: str, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Measure models by the size of findings.

    In a size group, a label's positives are the images with a case of that size, its negatives all images without the
    finding; the AUROC is the mean over the labels with at least `FEWEST` images of both classes. In each group, all
    models are scored on the same labels, images and bootstrap replicates.

    Args:
        models: models on the same split of the same data set; the others are compared with the first.
        split: name of the split.
        replicates: number of bootstrap replicates, which draw whole patients.
        seed: random seed of the bootstrap.

    Returns:
        A JSON-ready record: "sizes", from small to large, each with its range, cases, labels and a row for each model.

    Raises:
        InputError: the split has no boxes; reason "dataset".
    """
    prepared = models[0].prepared
    cases = cases_of(prepared, split)
    rows = prepared.rows(split)
    weights = metrics.patient_weights(prepared.patients[rows], replicates, seed)
    return {
        "data": prepared.name,
        "data_hash": prepared.hash,
        "phantom": prepared.phantom,
        "split": split,
        "images": len(rows),
        "models": [{"name": model.card.name, "px": model.card.size, "tokens": model.card.tokens} for model in models],
        "sizes": [_group(name, chosen, cases, models, split, weights) for name, chosen in groups_of(cases).items()],
        "tolerance_px": TOLERANCE,
        "bootstrap": {"replicates": replicates, "seed": seed, "unit": "patient", "level": 0.95},
    }


def groups_of(cases: Cases) -> dict[str, np.ndarray]:
    """Return the cases of each size group, without empty groups.

    Returns:
        "small", "medium", "large" and "all sizes" -> (K,) bool, whether a case is in the group.
    """
    ends = np.quantile(cases.side, np.linspace(0, 1, SIZES + 1))
    group = np.clip(np.searchsorted(ends[1:-1], cases.side, side="left"), 0, SIZES - 1)
    groups = {name: group == i for i, name in enumerate(("small", "medium", "large"))}
    groups["all sizes"] = np.ones(len(group), bool)
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


def targets_of(prepared: Prepared, split: str, cases: Cases, chosen: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the targets of a size group and its scored columns.

    Args:
        prepared: the data set.
        split: name of the split.
        cases: cases of the split.
        chosen: (K,) bool, whether a case is in the group.

    Returns:
        Targets (N, L): 1 with a case of the group, 0 without the finding, NaN with the finding in another size or
        without boxes; and the numbers of the columns with at least `FEWEST` images of both classes.
    """
    rows = prepared.rows(split)
    targets = np.full((len(rows), len(prepared.labels)), np.nan)
    targets[prepared.targets[rows] < 0.5] = 0
    targets[cases.image[chosen], cases.label[chosen]] = 1
    return targets, [column for column in range(targets.shape[1]) if min(metrics.counts(targets[:, column])) >= FEWEST]


def _group(
    name: str, chosen: np.ndarray, cases: Cases, models: Sequence[ModelOutputs], split: str, weights: metrics.Array
) -> dict[str, Any]:
    prepared = models[0].prepared
    targets, scored = targets_of(prepared, split, cases, chosen)
    aurocs = [
        metrics.aurocs(targets[:, scored], model.outputs.findings[:, scored], weights) for model in models if scored
    ]
    chance = float(cases.chance[chosen].mean())
    rows = []
    for number, model in enumerate(models):
        row: dict[str, Any] = {"model": model.card.name, "px": model.card.size, "auroc": None, "against_first": None}
        if aurocs:
            row["auroc"] = _plain(aurocs[number].macro)
            row["against_first"] = _plain(metrics.macro_difference(aurocs[number], aurocs[0])) if number else None
        hit = hits(cases, model.outputs.attention)[chosen]
        row["hit_rate"] = _plain(hit_rate(hit, weights[:, cases.image[chosen]]))
        rows.append(row)
    return {
        "size": name,
        "side_px": [float(cases.side[chosen].min()), float(cases.side[chosen].max())],
        "cases": int(chosen.sum()),
        "labels": [prepared.labels[column] for column in scored],
        "chance_hit_rate": chance,
        "rows": rows,
    }


def _plain(interval: metrics.Interval) -> dict[str, float] | None:
    if math.isnan(interval.value):
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def table(record: dict[str, Any]) -> str:
    """Return a record of `by_size` as a text table."""
    synthetic = " (synthetic phantom films)" if record["phantom"] else ""
    lines = [
        f"By size of finding, on {record['data']}{synthetic} {record['split']}: {record['images']} images; 95 % "
        "intervals (bootstrap by patient)",
        f"A hit: the patch with most attention lies within {record['tolerance_px']} px (of 224) of the finding's box.",
        "Compare models within a size: small and large ones are of different findings.",
    ]
    for group in record["sizes"]:
        low, high = group["side_px"]
        labels = f"AUROC of {', '.join(group['labels'])}" if group["labels"] else f"no AUROC: no finding has {FEWEST}"
        few = f" (! fewer than {FEW_CASES}: hits are counted)" if group["cases"] < FEW_CASES else ""
        lines += [
            "",
            f"{group['size']}: boxes of {low:.0f} to {high:.0f} px side at 224 px, {group['cases']} cases{few}; "
            f"{labels}",
        ]
        rows = [["", "side, px", "AUROC", "against the first", "hit rate"]]
        for row in group["rows"]:
            scale = row["px"] / BASE_SIZE
            rows.append([
                f"{row['model']} {row['px']} px", f"{low * scale:.1f}-{high * scale:.1f}", _text(row["auroc"]),
                _text(row["against_first"], "+.3f"), _hits(row["hit_rate"], group["cases"]),
            ])  # fmt: skip
        lines += aligned([*rows, ["a point anywhere", "", "", "", f"{group['chance_hit_rate']:.3f}"]])
    return joined([*lines, NOTICE])


def _hits(rate: dict[str, float] | None, cases: int) -> str:
    """Return a hit rate with its interval, or counts for few cases.

    An interval from resampling few cases would be too narrow.
    """
    if rate is None or cases >= FEW_CASES:
        return _text(rate)
    return f"{rate['value'] * cases:.0f} of {cases}"


def _text(interval: dict[str, float] | None, form: str = ".3f") -> str:
    return "-" if interval is None else with_interval(interval["value"], interval["low"], interval["high"], form)
