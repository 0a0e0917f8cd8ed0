"""Verdicts on artefacts of lower precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgecxr.engines.backend import Outputs
from edgecxr.export.parity import Truth, same_auroc
from tests.conftest import write_prepared

SPLITS = ["val"] * 200


class Says:
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
    images = np.zeros((200, 224, 224), np.uint8)
    prepared = write_prepared(tmp_path / "data", images, targets, abnormal, SPLITS)
    logits = truth.astype(np.float32)
    spoilt = np.where(rng.random((200, 1)) < spoil, rng.normal(0.5, 1, (200, 3)), logits)
    return same_auroc(Truth.of(Says(logits), prepared, "val", 28, replicates=200), spoilt, tolerance)


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
