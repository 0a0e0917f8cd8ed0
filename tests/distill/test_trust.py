"""A teacher is heard as far as validation shows that it knows better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.distill.mlcak import Mlcak
from edgecxr.distill.trust import trust_weights
from edgecxr.distill.vanilla import Hinton, Vanilla
from tests.distill.traces import by_hand, random_trace, setup


@dataclass
class Films:
    """Validation films with one row for each patient."""

    targets: np.ndarray
    abnormal: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        assert split == "val"
        return np.arange(len(self.abnormal))

    @property
    def patients(self) -> np.ndarray:
        return np.arange(len(self.abnormal)).astype(str)


def films(count: int, labels: int, seed: int = 0) -> Films:
    draw = np.random.default_rng(seed)
    return Films(draw.integers(0, 2, (count, labels)).astype(np.float32), draw.integers(0, 2, count).astype(np.float32))


def logits(films: Films, skill: list[float], seed: int) -> np.ndarray:
    """Logits that tell the classes apart by so many standard deviations."""
    truth = np.column_stack([films.targets, films.abnormal])
    return (np.random.default_rng(seed).standard_normal(truth.shape) + truth * skill).astype(np.float32)


def test_a_teacher_counts_where_it_is_better_and_only_there():
    many = films(400, 2)
    weights = trust_weights(many, logits(many, [2.0, 0.5, 1.0], 1), logits(many, [0.5, 2.0, 1.0], 2))
    assert weights[0] == 1 and weights[1] == 0 and 0 <= weights[2] < 1


def test_it_has_nothing_to_say_to_a_student_that_knows_as_much():
    some = films(60, 3)
    same = logits(some, [1.0] * 4, 0)
    assert trust_weights(some, same, same) == (0, 0, 0, 0)


def test_what_validation_cannot_judge_counts_as_without_the_option():
    some = films(60, 2)
    some.targets[:, 0], some.targets[:, 1] = np.nan, 1
    weights = trust_weights(some, logits(some, [0.0] * 3, 0), logits(some, [3.0] * 3, 1))
    assert weights == (1, 1, 0)


@given(count=st.integers(4, 40), labels=st.integers(1, 3), seed=st.integers(0, 99))
def test_weights_are_from_0_to_1_and_only_the_order_of_logits_matters(count, labels, seed):
    some = films(count, labels, seed)
    first, other = (logits(some, [1.0] * (labels + 1), seed + place) for place in (1, 2))
    weights = trust_weights(some, first, other, 50)
    assert len(weights) == labels + 1 and all(0 <= weight <= 1 for weight in weights)
    assert trust_weights(some, first * 2, other * 4, 50) == weights


@pytest.mark.parametrize("method", [Mlcak, Vanilla, Hinton])
def test_a_finding_without_trust_moves_nothing(method):
    student, teacher = random_trace(3, 3, 2, 4, 5, seed=0), random_trace(3, 3, 2, 4, 5, seed=1)
    trusting = replace(setup(student, teacher), trust=torch.tensor([1.0, 0.0, 0.5, 0.0]))
    losses = method(trusting)(student, teacher)
    losses["distillation"].backward()
    moved = student.findings.grad.abs().sum(dim=0)
    assert moved[1] == 0 and moved[0] > 0 and (student.abnormal.grad == 0).all()
    whole = random_trace(3, 3, 2, 4, 5, seed=0)
    method(setup(whole, teacher))(whole, teacher)["distillation"].backward()
    full = whole.findings.grad.abs().sum(dim=0)
    assert moved[0] == pytest.approx(full[0].item()) and moved[2] == pytest.approx(full[2].item() / 2)


def test_the_loss_by_hand():
    student, teacher = by_hand()
    losses = Vanilla(replace(setup(student, teacher), trust=torch.tensor([0.5, 0.25, 0.75])))(student, teacher)
    assert losses["kd_findings"].item() == pytest.approx((0.5 * 1 + 0.25 * 4) / 2)
    assert losses["kd_abnormal"].item() == pytest.approx(0.75 * 4)
