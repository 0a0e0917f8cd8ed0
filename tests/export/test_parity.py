"""Verdicts on artefacts of lower precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.engines.backend import Outputs
from edgecxr.export.parity import Truth, same_auroc
from tests.conftest import write_prepared


class FixedLogits:
    """A backend that answers with given logits, image after image."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits.astype(np.float32)
        self.done = 0

    def run(self, images: np.ndarray) -> Outputs:
        part = self.logits[self.done : self.done + len(images)]
        self.done += len(images)
        return Outputs(part[:, :-1], part[:, -1], np.ones((len(images), 1, 1), np.float32))

    def close(self) -> None:
        pass


def judged(tmp_path: Path, spoil: float, tolerance: float = 0.01, abnormal: np.ndarray | None = None):
    """The verdict on logits of which the share `spoil` is noise."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (200, 2)).astype(np.float32)
    abnormal = targets.max(axis=1) if abnormal is None else abnormal
    truth = np.column_stack([targets, abnormal]) + rng.normal(0, 0.5, (200, 3))
    logits = truth.astype(np.float32)
    spoilt = np.where(rng.random((200, 1)) < spoil, rng.normal(0.5, 1, (200, 3)), logits)
    return same_auroc(truth_of(tmp_path, logits, targets, abnormal), spoilt, tolerance)


def truth_of(tmp_path: Path, logits: np.ndarray, targets: np.ndarray, abnormal: np.ndarray, **options: Any) -> Truth:
    """The checkpoint's logits for films without content."""
    count = len(logits)
    images = np.zeros((count, 224, 224), np.uint8)
    prepared = write_prepared(tmp_path / "data", images, targets, abnormal, ["val"] * count, **options)
    return Truth.of(FixedLogits(logits), prepared, "val", 28, replicates=200)


def test_the_same_logits_pass_with_no_drop(tmp_path):
    verdict = judged(tmp_path, 0)
    assert verdict.status == "pass"
    assert verdict.max_logit_difference == 0
    assert verdict.images == 200 and verdict.data == "data" and verdict.split == "val"
    for drop in verdict.drop.values():
        assert (drop.value, drop.low, drop.high) == (0, 0, 0)


def test_a_model_that_lost_much_fails(tmp_path):
    verdict = judged(tmp_path, 0.8)
    assert verdict.status == "fail"
    assert verdict.drop["findings"].low > 0.01
    assert "fail" in str(verdict) and "findings +0." in str(verdict)


def test_few_images_leave_a_small_drop_unresolved(tmp_path):
    verdict = judged(tmp_path, 0.03)
    assert verdict.status == "unresolved"
    worst = max(verdict.drop.values(), key=lambda drop: drop.high)
    assert worst.low <= 0.01 < worst.high


def test_the_tolerance_decides(tmp_path):
    assert judged(tmp_path, 0.03, tolerance=0.5).status == "pass"


def test_the_worse_task_decides(tmp_path):
    nobody = np.zeros(200, np.float32)
    verdict = judged(tmp_path, 0, abnormal=nobody)
    assert math.isnan(verdict.drop["abnormal"].value)
    assert verdict.status == "unresolved"
    assert verdict.to_dict()["auroc_drop"]["abnormal"] is None


@pytest.mark.parametrize("spoil", [0.0, 0.8])
def test_a_verdict_is_plain_values(tmp_path, spoil):
    import json

    verdict = judged(tmp_path, spoil)
    assert json.loads(json.dumps(verdict.to_dict()))["status"] == verdict.status


def perfect(tmp_path: Path, positives: tuple[int, int, int], count: int = 300, **options: Any):
    """A checkpoint that separates both classes; of two labels and "abnormal", so many films are positive."""
    columns = np.stack([np.arange(count) < number for number in positives], axis=1).astype(np.float32)
    return truth_of(tmp_path, columns, columns[:, :2], columns[:, 2], **options), columns


@pytest.mark.parametrize(
    ("positives", "few"),
    [
        ((150, 150, 19), ["abnormal"]),
        ((150, 150, 281), ["abnormal"]),
        ((19, 2, 150), ["Cardiomegaly", "Nodule/Mass"]),
        ((1, 1, 1), ["Cardiomegaly", "Nodule/Mass", "abnormal"]),
        ((0, 0, 150), ["Cardiomegaly", "Nodule/Mass"]),
    ],
)
@pytest.mark.parametrize("wrong", [False, True])
def test_a_task_with_few_films_of_a_class_decides_nothing(tmp_path, positives, few, wrong):
    truth, logits = perfect(tmp_path, positives)
    lost = logits.copy()
    for column, name in enumerate((*truth.prepared.labels, "abnormal")):
        if wrong and name in few:
            lost[:, column] *= -1  # an AUROC of 0 instead of 1
    verdict = same_auroc(truth, lost, 0.9 if not wrong else 0.01)
    assert verdict.status == "unresolved" and list(verdict.undecided) == few == verdict.to_dict()["undecided"]
    assert all(name in str(verdict) for name in few)


def test_a_label_with_few_films_leaves_the_others_to_decide(tmp_path):
    truth, logits = perfect(tmp_path, (150, 3, 150))
    assert same_auroc(truth, logits, 0.01).status == "pass"
    assert same_auroc(truth, logits * [1, -1, 1], 0.01).status == "pass"  # of that label nothing is said
    assert same_auroc(truth, logits * [1, -1, 1], 0.01).undecided == ("Nodule/Mass",)
    assert same_auroc(truth, logits * [-1, 1, 1], 0.01).status == "fail"


def test_films_of_few_patients_are_few(tmp_path):
    patients = [f"p{film % 15}" for film in range(300)]
    truth, logits = perfect(tmp_path, (150, 150, 150), patients=patients)
    assert same_auroc(truth, logits, 0.5).status == "unresolved"


@pytest.mark.parametrize(("count", "status"), [(150, "pass"), (40, "unresolved")])
def test_what_was_not_seen_may_be_lost(tmp_path, count, status):
    truth, logits = perfect(tmp_path, (count, count, count))
    verdict = same_auroc(truth, logits, 0.01)
    assert verdict.status == status
    assert verdict.bound["abnormal"] == pytest.approx(0.5 / (count + 1))


def test_logits_that_are_no_numbers_fail(tmp_path):
    truth, logits = perfect(tmp_path, (3, 3, 3), count=10)
    logits[4, 1] = np.nan
    assert same_auroc(truth, logits, 1.0).status == "fail"
