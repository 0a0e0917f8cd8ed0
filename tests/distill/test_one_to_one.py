from __future__ import annotations

import numpy as np
import pytest

from edgecxr.distill.one_to_one import OneToOne
from edgecxr.errors import UsageError
from tests.distill.traces import arrays, by_hand, halved, mse, random_trace, setup


def test_by_hand():
    student, teacher = by_hand()
    losses = OneToOne(setup(student, teacher, alpha=2.0, beta=3.0, gamma=5.0))(student, teacher)
    # Block 1: (1, 2) and (0, 0); block 2: (3, 4) and (2, 0).
    assert losses["kd_knowledge"].item() == pytest.approx(((1 + 4) / 2 + (1 + 16) / 2) / 2)
    assert losses["distillation"].item() == pytest.approx(2 * 2.5 + 3 * 4 + 5 * 5.5)


def test_a_teacher_of_a_finer_grid():
    student, teacher = random_trace(3, 4, 3, 4, 6, seed=0), random_trace(3, 4, 3, 16, 6, seed=1)
    losses = OneToOne(setup(student, teacher))(student, teacher)
    pairs = zip(arrays(student)[2], arrays(teacher)[2], strict=True)
    expected = np.mean([mse(ours, halved(theirs)) for ours, theirs in pairs])
    assert losses["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)


def test_every_block_of_a_narrower_student_has_its_own_map():
    student, teacher = random_trace(2, 3, 2, 4, 2, seed=5), random_trace(2, 3, 2, 4, 3, seed=6)
    method = OneToOne(setup(student, teacher))
    maps = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in method.project]
    assert not np.array_equal(maps[0][0], maps[1][0])
    triples = zip(maps, arrays(student)[2], arrays(teacher)[2], strict=True)
    expected = np.mean([mse(ours @ weight.T + bias, theirs) for (weight, bias), ours, theirs in triples])
    losses = method(student, teacher)
    assert losses["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)
    losses["distillation"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())


def test_other_depths_have_no_counterparts():
    student, teacher = random_trace(1, 1, 2, 4, 2, seed=0), random_trace(1, 1, 3, 4, 2, seed=1)
    with pytest.raises(UsageError, match=r"student has 2 blocks .*teacher 3; .*mlcak or last-block"):
        OneToOne(setup(student, teacher))
