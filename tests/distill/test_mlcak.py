from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecxr.distill.mlcak import Mlcak
from edgecxr.models.vit import Trace


def random_trace(batch: int, labels: int, blocks: int, tokens: int, width: int, seed: int) -> Trace:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return Trace(draw(batch, labels), draw(batch), [draw(batch, 1 + tokens, width) for _ in range(blocks)])


def arrays(trace: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        trace.findings.detach().numpy(),
        trace.abnormal.detach().numpy(),
        np.mean([block.detach().numpy() for block in trace.blocks], axis=0),  # Eq. 1
    )


def test_equations_1_to_3_with_a_deeper_teacher_of_a_finer_grid():
    student, teacher = random_trace(3, 4, 2, 4, 6, seed=0), random_trace(3, 4, 5, 16, 6, seed=1)
    losses = Mlcak(6, 6, alpha=0.5, beta=2.0, gamma=3.0)(student, teacher)
    (ours_f, ours_a, ours_k), (theirs_f, theirs_a, theirs_k) = arrays(student), arrays(teacher)
    # 4 x 4 patches, row by row, to the means of 2 x 2.
    patches = theirs_k[:, 1:].reshape(3, 2, 2, 2, 2, 6).mean(axis=(2, 4)).reshape(3, 4, 6)
    theirs_k = np.concatenate([theirs_k[:, :1], patches], axis=1)
    expected = [((a - b) ** 2).mean() for a, b in ((ours_f, theirs_f), (ours_a, theirs_a), (ours_k, theirs_k))]
    got = [losses[name].item() for name in ("kd_findings", "kd_abnormal", "kd_knowledge")]
    assert got == pytest.approx(expected, rel=1e-5)
    assert losses["distillation"].item() == pytest.approx(np.dot(expected, [0.5, 2.0, 3.0]), rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    trace = random_trace(2, 3, 3, 4, 5, seed=2)
    assert Mlcak(5, 5, 1, 1, 1)(trace, trace)["distillation"].item() == 0


def test_gamma_alone_moves_the_blocks_and_nothing_else():
    student, teacher = random_trace(2, 3, 3, 4, 5, seed=3), random_trace(2, 3, 3, 4, 5, seed=4)
    Mlcak(5, 5, alpha=0, beta=0, gamma=1)(student, teacher)["distillation"].backward()
    assert (student.findings.grad == 0).all()
    assert (student.abnormal.grad == 0).all()
    first = student.blocks[0].grad
    assert first.abs().sum() > 0
    # The mean over the blocks hands each the same share.
    assert all(torch.equal(block.grad, first) for block in student.blocks)


def test_a_narrower_student_is_compared_through_its_map():
    method = Mlcak(2, 3, 1, 1, 1)
    student, teacher = random_trace(2, 3, 2, 4, 2, seed=5), random_trace(2, 3, 2, 4, 3, seed=6)
    mapped = arrays(student)[2] @ method.project.weight.detach().numpy().T + method.project.bias.detach().numpy()
    expected = ((mapped - arrays(teacher)[2]) ** 2).mean()
    assert method(student, teacher)["kd_knowledge"].item() == pytest.approx(expected, rel=1e-5)
