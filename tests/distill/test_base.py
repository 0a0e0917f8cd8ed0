from __future__ import annotations

import math

import pytest
import torch

from edgecxr.distill.base import Undistilled, masked_bce, match_grid, supervised, width_map
from edgecxr.models.vit import Trace


def test_the_gradient_of_bce_by_hand():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
    masked_bce(logits, torch.tensor([[1.0, math.nan], [math.nan, 0.25]])).backward()
    # (sigmoid - target) / known targets
    assert logits.grad.tolist() == [[pytest.approx(-0.25), 0.0], [0.0, pytest.approx(0.125)]]


def test_bce_of_half_precision_logits_is_taken_in_float32():
    loss = masked_bce(torch.full((1, 1), 20.0, dtype=torch.bfloat16), torch.ones(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-3)


def test_both_tasks_are_supervised_each_by_its_own_targets():
    seen = Trace(torch.tensor([[3.0], [-3.0]]), torch.tensor([0.0, -1.0]), [])
    parts = supervised(seen, torch.tensor([[1.0], [0.0]]), torch.tensor([math.nan, 1.0]))
    assert parts["bce_findings"].item() == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)
    assert parts["bce_abnormal"].item() == pytest.approx(math.log1p(math.e), rel=1e-5)


@pytest.mark.parametrize(("teacher", "student"), [(14, 7), (14, 4), (7, 4), (7, 14)])
def test_every_patch_is_the_mean_of_the_teacher_s_patches_that_it_touches(teacher, student):
    tokens = torch.randn(2, 1 + teacher**2, 3)
    pooled = match_grid(tokens, 1 + student**2)
    assert pooled.shape == (2, 1 + student**2, 3)
    assert torch.equal(pooled[:, 0], tokens[:, 0])
    grid = tokens[:, 1:].reshape(2, teacher, teacher, 3)
    for row in range(student):
        for column in range(student):
            spans = [slice(i * teacher // student, -(-(i + 1) * teacher // student)) for i in (row, column)]
            expected = grid[:, spans[0], spans[1]].mean(dim=(1, 2))
            assert torch.allclose(pooled[:, 1 + row * student + column], expected, atol=1e-6)


def test_equal_widths_learn_no_map():
    assert list(width_map(192, 192).parameters()) == []
    tokens = torch.randn(1, 5, 2)
    assert torch.equal(width_map(2, 2)(tokens), tokens)
    assert width_map(2, 3)(tokens).shape == (1, 5, 3)


def test_undistilled_needs_no_teacher_and_passes_no_gradient():
    seen = Trace(torch.zeros(2, 1), torch.zeros(2, requires_grad=True), [])
    method = Undistilled(1, 1, 1, 1, 1)
    assert not method.needs_teacher
    assert list(method.parameters()) == []
    assert not method(seen, seen)["distillation"].requires_grad
