"""What the distillation methods share: the protocol, the supervised loss, token grids of different size."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.models.vit import Trace


class DistillMethod(Protocol):
    """Compares a student with its teacher."""

    needs_teacher: bool

    def __call__(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return named scalar losses; "distillation" is their weighted sum, which is added to the supervised loss."""
        ...


class Undistilled(nn.Module):
    """No teacher: the baseline (Table 1 of the paper)."""

    needs_teacher = False

    def __init__(self, student_width: int, teacher_width: int, alpha: float, beta: float, gamma: float) -> None:
        super().__init__()

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return a distillation loss of zero."""
        return {"distillation": student.abnormal.new_zeros(())}


def supervised(trace: Trace, targets: Tensor, abnormal: Tensor) -> dict[str, Tensor]:
    """BCE of both tasks, the mean over the known targets.

    Args:
        trace: of the model that learns.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.

    Returns:
        "bce_findings" and "bce_abnormal", scalars.
    """
    return {
        "bce_findings": masked_bce(trace.findings, targets),
        "bce_abnormal": masked_bce(trace.abnormal, abnormal),
    }


def masked_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the targets that are not NaN; 0 where none is known."""
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


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
