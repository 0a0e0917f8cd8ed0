"""What the distillation methods share: the protocol, Eq. 2, the supervised loss, token grids of different size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.models.vit import Trace


@dataclass(frozen=True)
class Setup:
    """What a method is made for.

    Attributes:
        student_width: the student's D.
        teacher_width: the teacher's D; where they differ, the student's knowledge passes a learnt linear map.
        student_depth: the student's number of blocks.
        teacher_depth: the teacher's.
        alpha: weight of the findings' logits.
        beta: weight of the abnormal logit.
        gamma: weight of the knowledge.
        temperature: that softens the logits, where the method does so.
    """

    student_width: int
    teacher_width: int
    student_depth: int
    teacher_depth: int
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 4.0


class DistillMethod(Protocol):
    """Compares a student with its teacher.

    Attributes:
        needs_teacher: whether it compares at all.
        options: the settings that it heeds, of alpha, beta, gamma and temperature.
    """

    needs_teacher: bool
    options: tuple[str, ...]

    def __call__(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return named scalar losses; "distillation" is their weighted sum, which is added to the supervised loss."""
        ...


class Undistilled(nn.Module):
    """No teacher: the baseline (Table 1 of the paper)."""

    needs_teacher = False
    options = ()

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return a distillation loss of zero."""
        return {"distillation": student.abnormal.new_zeros(())}


def distillation(setup: Setup, student: Trace, teacher: Trace, knowledge: Tensor | None = None) -> dict[str, Tensor]:
    """MSE of both tasks' logits and a method's own knowledge term, with their weighted sum (Eq. 2).

    Args:
        setup: has the weights.
        student: of the model that learns.
        teacher: of the frozen one.
        knowledge: a scalar; None leaves the term out.

    Returns:
        "kd_findings", "kd_abnormal", "kd_knowledge" and "distillation", scalars.
    """
    losses = {
        "kd_findings": F.mse_loss(student.findings, teacher.findings),
        "kd_abnormal": F.mse_loss(student.abnormal, teacher.abnormal),
    }
    total = setup.alpha * losses["kd_findings"] + setup.beta * losses["kd_abnormal"]
    if knowledge is not None:
        losses["kd_knowledge"] = knowledge
        total = total + setup.gamma * knowledge
    return losses | {"distillation": total}


def supervised(trace: Trace, targets: Tensor, abnormal: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
    """BCE of both tasks, the mean over the known targets.

    Args:
        trace: of the model that learns.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.
        known: (2,) what to divide the sums of both tasks by; by default their numbers of known targets, at least 1.

    Returns:
        "bce_findings" and "bce_abnormal", scalars.
    """
    return {
        "bce_findings": masked_bce(trace.findings, targets, None if known is None else known[0]),
        "bce_abnormal": masked_bce(trace.abnormal, abnormal, None if known is None else known[1]),
    }


def masked_bce(logits: Tensor, targets: Tensor, count: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, the sum over the targets that are not NaN, over `count`, by default their number.

    0 where none is known.
    """
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / (known.sum().clamp(min=1) if count is None else count)


def match_grid(tokens: Tensor, count: int) -> Tensor:
    """Average-pool the teacher's patch tokens to the student's grid; the class token stays as it is.

    Args:
        tokens: (B, 1 + T, D), class token first, T a square number.
        count: 1 + the student's number of patch tokens.

    Returns:
        (B, count, D).
    """
    if tokens.shape[1] == count:
        return tokens
    batch, _, width = tokens.shape
    here, there = math.isqrt(tokens.shape[1] - 1), math.isqrt(count - 1)
    grid = tokens[:, 1:].transpose(1, 2).reshape(batch, width, here, here)
    pooled = F.adaptive_avg_pool2d(grid, there).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :1], pooled], dim=1)


def width_map(student: int, teacher: int) -> nn.Module:
    """Map from the student's width to the teacher's: nothing where they agree, else a linear map that is learnt."""
    return nn.Identity() if student == teacher else nn.Linear(student, teacher)
