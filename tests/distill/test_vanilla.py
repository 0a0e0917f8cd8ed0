from __future__ import annotations

import math

import pytest
import torch

from edgecxr.distill.vanilla import Hinton, Vanilla, softened
from tests.distill.traces import by_hand, random_trace, setup


def test_the_logits_alone_by_hand():
    student, teacher = by_hand()
    losses = Vanilla(setup(student, teacher, alpha=2.0, beta=3.0, gamma=5.0))(student, teacher)
    assert {name: loss.item() for name, loss in losses.items()} == {
        "kd_findings": pytest.approx(2.5),
        "kd_abnormal": pytest.approx(4.0),
        "distillation": pytest.approx(2 * 2.5 + 3 * 4),
    }


def divergence(ours: float, theirs: float, temperature: float) -> float:
    p, q = (1 / (1 + math.exp(-logit / temperature)) for logit in (theirs, ours))
    return temperature**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def test_the_softened_form_by_hand():
    student, teacher = by_hand()
    losses = Hinton(setup(student, teacher, alpha=2.0, beta=3.0, temperature=2.0))(student, teacher)
    findings = (divergence(1, 0, 2) + divergence(2, 4, 2)) / 2
    abnormal = divergence(0.5, 2.5, 2)
    assert losses["kd_findings"].item() == pytest.approx(findings, rel=1e-5)
    assert losses["kd_abnormal"].item() == pytest.approx(abnormal, rel=1e-5)
    assert losses["distillation"].item() == pytest.approx(2 * findings + 3 * abnormal, rel=1e-5)


def test_a_high_temperature_tends_to_an_eighth_of_the_squared_difference():
    ours, theirs = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])
    assert softened(ours, theirs, 100.0).item() == pytest.approx((4 + 9) / 2 / 8, rel=1e-2)


def test_the_gradient_is_the_difference_of_the_softened_probabilities():
    ours = torch.tensor([1.0], requires_grad=True)
    softened(ours, torch.tensor([3.0]), 2.0).backward()
    sigmoid = torch.tensor([0.5, 1.5]).sigmoid()
    assert ours.grad.item() == pytest.approx(2.0 * (sigmoid[0] - sigmoid[1]).item(), rel=1e-5)


def test_logits_that_no_probability_can_hold_stay_finite():
    ours = torch.tensor([500.0, -500.0], requires_grad=True)
    loss = softened(ours, torch.tensor([-500.0, 500.0]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(500)
    assert ours.grad.isfinite().all()


@pytest.mark.parametrize("method", [Vanilla, Hinton])
def test_width_depth_and_grid_do_not_matter(method):
    student, teacher = random_trace(2, 3, 2, 4, 5, seed=0), random_trace(2, 3, 7, 16, 9, seed=1)
    vanilla = method(setup(student, teacher))
    assert list(vanilla.parameters()) == []
    vanilla(student, teacher)["distillation"].backward()
    assert student.findings.grad.abs().sum() > 0
    assert [block.grad for block in student.blocks] == [None, None]
