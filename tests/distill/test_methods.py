from __future__ import annotations

import math

import pytest
import torch

from edgecxr.distill.base import Undistilled, masked_bce, match_grid, supervised
from edgecxr.distill.mlcak import Mlcak
from edgecxr.models.vit import Trace


def trace(findings, abnormal, *blocks):
    return Trace(torch.tensor(findings), torch.tensor(abnormal), [torch.tensor(b) for b in blocks])


def test_bce_is_the_mean_over_known_targets():
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    targets = torch.tensor([[1.0, math.nan], [0.0, 0.25]])
    by_hand = [math.log(2), math.log(1 + math.e), 0.25 * math.log(1 + math.e) + 0.75 * math.log(1 + math.exp(-1))]
    assert masked_bce(logits, targets).item() == pytest.approx(sum(by_hand) / 3, rel=1e-6)


def test_no_known_target_costs_nothing_and_gives_no_nan_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_mlcak_by_hand():
    # One film, two labels, two blocks, a class token and one patch, width 1.
    student = trace([[1.0, 2.0]], [0.5], [[[1.0], [2.0]]], [[[3.0], [4.0]]])
    teacher = trace([[0.0, 4.0]], [2.5], [[[0.0], [0.0]]], [[[2.0], [0.0]]])
    losses = Mlcak(1, 1, alpha=2.0, beta=3.0, gamma=5.0)(student, teacher)
    assert losses["kd_findings"].item() == pytest.approx((1 + 4) / 2)
    assert losses["kd_abnormal"].item() == pytest.approx(4.0)
    # Means over the blocks: student (2, 3), teacher (1, 0).
    assert losses["kd_knowledge"].item() == pytest.approx((1 + 9) / 2)
    assert losses["distillation"].item() == pytest.approx(2 * 2.5 + 3 * 4 + 5 * 5)


def test_a_finer_teacher_grid_is_averaged_and_the_class_token_kept():
    patches = torch.arange(16.0).reshape(4, 4)
    tokens = torch.cat([torch.tensor([99.0]), patches.flatten()]).reshape(1, 17, 1)
    pooled = match_grid(tokens, 5).flatten()
    assert pooled.tolist() == [99.0, 2.5, 4.5, 10.5, 12.5]
    assert match_grid(tokens, 17) is tokens


def test_different_widths_learn_a_map():
    method = Mlcak(2, 3, 1, 1, 1)
    student = Trace(torch.zeros(1, 1), torch.zeros(1), [torch.ones(1, 5, 2)] * 2)
    teacher = Trace(torch.zeros(1, 1), torch.zeros(1), [torch.ones(1, 5, 3)] * 4)
    method(student, teacher)["distillation"].backward()
    assert [p.grad.abs().sum() > 0 for p in method.parameters()] == [True, True]


def test_undistilled_adds_nothing():
    seen = trace([[1.0]], [0.5], [[[1.0], [2.0]]])
    assert Undistilled(1, 1, 1, 1, 1)(seen, seen)["distillation"].item() == 0
    assert set(supervised(seen, torch.ones(1, 1), torch.ones(1))) == {"bce_findings", "bce_abnormal"}
