from __future__ import annotations

import math

import pytest
import torch

from edgecxr.distill.base import Undistilled, masked_bce, match_grid, supervised, width_map
from edgecxr.models.vit import Trace
from edgecxr.registry import METHODS, resolve
from tests.distill.traces import by_hand, random_trace, setup


def test_bce_is_the_mean_over_known_targets():
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    targets = torch.tensor([[1.0, math.nan], [0.0, 0.25]])
    expected = [math.log(2), math.log(1 + math.e), 0.25 * math.log(1 + math.e) + 0.75 * math.log(1 + math.exp(-1))]
    assert masked_bce(logits, targets).item() == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_no_known_target_costs_nothing_and_gives_no_nan_gradient():
    logits = torch.zeros(2, 3, requires_grad=True)
    loss = masked_bce(logits, torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


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
    trace = Trace(torch.tensor([[3.0], [-3.0]]), torch.tensor([0.0, -1.0]), [])
    parts = supervised(trace, torch.tensor([[1.0], [0.0]]), torch.tensor([math.nan, 1.0]))
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
    student, teacher = by_hand()
    method = Undistilled(setup(student, teacher))
    assert not method.needs_teacher
    assert list(method.parameters()) == []
    loss = method(student, teacher)["distillation"]
    assert loss.item() == 0
    assert not loss.requires_grad


@pytest.mark.parametrize("name", [name for name in METHODS if name != "none"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name):
    trace = random_trace(2, 3, 3, 4, 5, seed=2)
    assert resolve(METHODS, name, "method")(setup(trace, trace))(trace, trace)["distillation"].item() == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_method_heeds_the_options_that_it_names_and_no_other(name):
    student, teacher = random_trace(2, 3, 3, 4, 5, seed=0), random_trace(2, 3, 3, 4, 5, seed=1)
    method = resolve(METHODS, name, "method")

    def loss(**options: float) -> float:
        return method(setup(student, teacher, **options))(student, teacher)["distillation"].item()

    heeded = {option for option in ("alpha", "beta", "gamma", "temperature") if loss(**{option: 7.0}) != loss()}
    assert heeded == set(method.options)
