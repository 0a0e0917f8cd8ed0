from __future__ import annotations

import pytest

from edgecxr.distill.last_block import LastBlock
from tests.distill.traces import arrays, by_hand, halved, mse, random_trace, setup


def test_by_hand():
    student, teacher = by_hand()
    losses = LastBlock(setup(student, teacher, alpha=2.0, beta=3.0, gamma=5.0))(student, teacher)
    # Last blocks: student (3, 4), teacher (2, 0).
    assert losses["kd_knowledge"].item() == pytest.approx((1 + 16) / 2)
    assert losses["distillation"].item() == pytest.approx(2 * 2.5 + 3 * 4 + 5 * 8.5)


def test_a_deeper_teacher_of_a_finer_grid():
    student, teacher = random_trace(3, 4, 2, 4, 6, seed=0), random_trace(3, 4, 5, 16, 6, seed=1)
    losses = LastBlock(setup(student, teacher))(student, teacher)
    expected = mse(arrays(student)[2][-1], halved(arrays(teacher)[2][-1]))
    assert losses["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)


def test_the_knowledge_moves_the_last_block_only():
    student, teacher = random_trace(2, 3, 3, 4, 5, seed=3), random_trace(2, 3, 3, 4, 5, seed=4)
    LastBlock(setup(student, teacher))(student, teacher)["distillation"].backward()
    assert [block.grad is not None for block in student.blocks] == [False, False, True]


def test_a_narrower_student_is_compared_through_its_map():
    student, teacher = random_trace(2, 3, 2, 4, 2, seed=5), random_trace(2, 3, 2, 4, 3, seed=6)
    method = LastBlock(setup(student, teacher))
    weight, bias = (parameter.detach().numpy() for parameter in (method.project.weight, method.project.bias))
    expected = mse(arrays(student)[2][-1] @ weight.T + bias, arrays(teacher)[2][-1])
    assert method(student, teacher)["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)
