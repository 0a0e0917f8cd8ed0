"""--class-weights balanced: which weights, and what they are applied to."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgecxr.distill.base import masked_bce, supervised
from edgecxr.models.vit import Trace
from edgecxr.train.class_weights import LARGEST_RATIO, balanced, class_weights
from edgecxr.train.run_training import distill
from edgecxr.workspace import Workspace


def column(positives: int, negatives: int, unknown: int = 0) -> list[float]:
    return [1.0] * positives + [0.0] * negatives + [math.nan] * unknown


@pytest.mark.parametrize(
    ("positives", "negatives", "ratio"),
    [(25, 75, 3), (75, 25, 1 / 3), (1, 99, LARGEST_RATIO), (99, 1, 1 / LARGEST_RATIO), (0, 100, 1), (100, 0, 1)],
)
def test_positives_and_negatives_count_alike_within_limits_and_the_mean_weight_is_one(positives, negatives, ratio):
    targets = np.array([column(positives, negatives), column(50, 30, 20)]).T
    (negative, _), (positive, _) = balanced(targets)
    assert positive / negative == pytest.approx(ratio)
    assert (positives * positive + negatives * negative) / 100 == pytest.approx(1)
    if 1 / LARGEST_RATIO < ratio < LARGEST_RATIO and ratio != 1:
        assert positives * positive == pytest.approx(negatives * negative)
    assert balanced(targets)[1, 1] / balanced(targets)[0, 1] == pytest.approx(30 / 50)  # unknown ones do not count


def test_a_target_between_counts_as_shares_of_both():
    (negative,), (positive,) = balanced(np.array([[1, 0.5, 0, 0]]).T)
    assert positive / negative == pytest.approx(2.5 / 1.5)
    logit, weights = torch.tensor([0.7]), torch.tensor([[0.4], [3.0]])
    loss = masked_bce(logit, torch.tensor([0.25]), weights=weights)
    by_hand = -(0.25 * 3.0 * F.logsigmoid(logit) + 0.75 * 0.4 * F.logsigmoid(-logit))
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_each_task_has_its_own_weights_and_unknown_targets_none():
    torch.manual_seed(0)
    nan = math.nan
    targets, abnormal = torch.tensor([[1, 0], [nan, 1], [0, 0]]), torch.tensor([1.0, nan, 0.0])
    findings, logit = torch.randn(3, 2), torch.randn(3)
    weights = torch.tensor([[0.5, 2.0, 0.25], [4.0, 3.0, 8.0]])
    trace = Trace(findings, logit, [])
    losses = supervised(trace, targets, abnormal, torch.tensor([5.0, 2.0]), weights)
    by_hand = sum(
        weights[int(targets[i, c]), c] * F.binary_cross_entropy_with_logits(findings[i, c], targets[i, c])
        for i, c in ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1))
    )
    assert losses["bce_findings"].item() == pytest.approx(by_hand.item() / 5, rel=1e-5)
    by_hand = 8 * F.softplus(-logit[0]) + 0.25 * F.softplus(logit[2])
    assert losses["bce_abnormal"].item() == pytest.approx(by_hand.item() / 2, rel=1e-5)
    ones = supervised(trace, targets, abnormal, weights=torch.ones(2, 3))
    assert all(torch.allclose(ones[name], loss) for name, loss in supervised(trace, targets, abnormal).items())


def test_only_training_films_are_counted_and_the_weights_are_said(clinic, capsys):
    weights = class_weights(clinic, "balanced", torch.device("cpu"))
    rows = clinic.rows("train")
    targets = clinic.targets[rows, 0]
    ratio = (weights[1] / weights[0])[0].item()
    assert ratio == pytest.approx(np.nansum(1 - targets) / np.nansum(targets), rel=1e-5)
    assert weights.shape == (2, len(clinic.labels) + 1)
    assert f"{clinic.labels[0]} {ratio:.3g}" in capsys.readouterr().err
    assert class_weights(clinic, "none", torch.device("cpu")) is None


def test_a_student_s_own_loss_is_weighted_and_its_distillation_is_not(tmp_path, finished):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / finished.teacher.name).symlink_to(finished.teacher)
    workspace = Workspace(tmp_path / "runs")
    typed = {"epochs": 1, "batch": 48, "augment": 0.0, "res": 28, "warmup": 0.0}
    rows = []
    for kind in ("none", "balanced"):  # one step: both begin with the same weights
        run = distill(workspace, finished.prepared, typed | {"class_weights": kind}, device="cpu")
        with (run / "history.csv").open() as file:
            rows.append({name: float(value) for name, value in next(csv.DictReader(file)).items()})
    plain, weighted = rows
    assert weighted["distillation"] == pytest.approx(plain["distillation"], rel=1e-5)
    assert weighted["bce_findings"] != pytest.approx(plain["bce_findings"], rel=1e-3)
    assert weighted["loss"] == pytest.approx(
        weighted["bce_findings"] + weighted["bce_abnormal"] + weighted["distillation"], rel=1e-5
    )
