from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecxr.distill.mlcak import Mlcak
from tests.distill.traces import arrays, by_hand, halved, mse, random_trace, setup


def test_by_hand():
    student, teacher = by_hand()
    losses = Mlcak(setup(student, teacher, alpha=2.0, beta=3.0, gamma=5.0))(student, teacher)
    assert losses["kd_findings"].item() == pytest.approx((1 + 4) / 2)
    assert losses["kd_abnormal"].item() == pytest.approx(4.0)
    # Means over the blocks: student (2, 3), teacher (1, 0).
    assert losses["kd_knowledge"].item() == pytest.approx((1 + 9) / 2)
    assert losses["distillation"].item() == pytest.approx(2 * 2.5 + 3 * 4 + 5 * 5)


def test_equations_1_to_3_with_a_deeper_teacher_of_a_finer_grid():
    student, teacher = random_trace(3, 4, 2, 4, 6, seed=0), random_trace(3, 4, 5, 16, 6, seed=1)
    losses = Mlcak(setup(student, teacher, alpha=0.5, beta=2.0, gamma=3.0))(student, teacher)
    (ours_f, ours_a, ours), (theirs_f, theirs_a, theirs) = arrays(student), arrays(teacher)
    knowledge = mse(np.mean(ours, axis=0), halved(np.mean(theirs, axis=0)))
    expected = [mse(ours_f, theirs_f), mse(ours_a, theirs_a), knowledge]
    values = [losses[name].item() for name in ("kd_findings", "kd_abnormal", "kd_knowledge")]
    assert values == pytest.approx(expected, rel=1e-5)
    assert losses["distillation"].item() == pytest.approx(np.dot(expected, [0.5, 2.0, 3.0]), rel=1e-5)


def test_gamma_alone_moves_the_blocks_and_nothing_else():
    student, teacher = random_trace(2, 3, 3, 4, 5, seed=3), random_trace(2, 3, 3, 4, 5, seed=4)
    Mlcak(setup(student, teacher, alpha=0, beta=0))(student, teacher)["distillation"].backward()
    assert (student.findings.grad == 0).all()
    assert (student.abnormal.grad == 0).all()
    first = student.blocks[0].grad
    assert first.abs().sum() > 0
    # The mean over the blocks hands each the same share.
    assert all(torch.equal(block.grad, first) for block in student.blocks)


def test_a_narrower_student_is_compared_through_its_map():
    student, teacher = random_trace(2, 3, 2, 4, 2, seed=5), random_trace(2, 3, 2, 4, 3, seed=6)
    method = Mlcak(setup(student, teacher))
    weight, bias = (parameter.detach().numpy() for parameter in (method.project.weight, method.project.bias))
    expected = mse(np.mean(arrays(student)[2], axis=0) @ weight.T + bias, np.mean(arrays(teacher)[2], axis=0))
    losses = method(student, teacher)
    assert losses["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)
    losses["distillation"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())
