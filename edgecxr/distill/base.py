"""Protocol and losses that the distillation methods share."""

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
    """Sizes of student and teacher, and the weights of the losses.

    Attributes:
        student_width: the student's D.
        teacher_width: the teacher's D; if the two differ, the student's knowledge passes a learnt linear map.
        student_depth: the student's number of blocks.
        teacher_depth: the teacher's number of blocks.
        alpha: weight of the findings' logits.
        beta: weight of the abnormal logit.
        gamma: weight of the knowledge.
        temperature: softens the logits, in methods that do so.
        trust: (L + 1,) factors of the logits' terms, on the models' device; "abnormal" last. None: 1 for all.
    """

    student_width: int
    teacher_width: int
    student_depth: int
    teacher_depth: int
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 4.0
    trust: Tensor | None = None


class DistillMethod(Protocol):
    """Comparison of a student with its teacher.

    Attributes:
        needs_teacher: whether it compares at all.
        options: the settings that it uses, of alpha, beta, gamma and temperature.
    """

    needs_teacher: bool
    options: tuple[str, ...]

    def __call__(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return named scalar losses.

        "distillation" is their weighted sum, which is added to the supervised loss.
        """
        ...


class Undistilled(nn.Module):
    """Baseline without a teacher (Table 1 of the paper)."""

    needs_teacher = False
    options = ()

    def __init__(self, setup: Setup) -> None:
        super().__init__()

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return a distillation loss of zero."""
        return {"distillation": student.abnormal.new_zeros(())}


def distillation(setup: Setup, student: Trace, teacher: Trace, knowledge: Tensor | None = None) -> dict[str, Tensor]:
    """Return the distillation losses and their weighted sum (Eq. 2).

    The losses are the MSE of both tasks' logits, and the method's own knowledge term.

    Args:
        setup: has the weights.
        student: trace of the model that learns.
        teacher: trace of the frozen model.
        knowledge: a scalar; None leaves the term out.

    Returns:
        "kd_findings", "kd_abnormal", "kd_knowledge" and "distillation", scalars.
    """
    trusted_findings, trusted_abnormal = trust_of(setup)
    losses = {
        "kd_findings": ((student.findings.float() - teacher.findings.float()) ** 2 * trusted_findings).mean(),
        "kd_abnormal": ((student.abnormal.float() - teacher.abnormal.float()) ** 2 * trusted_abnormal).mean(),
    }
    total = setup.alpha * losses["kd_findings"] + setup.beta * losses["kd_abnormal"]
    if knowledge is not None:
        losses["kd_knowledge"] = knowledge
        total = total + setup.gamma * knowledge
    return losses | {"distillation": total}


def trust_of(setup: Setup) -> tuple[Tensor | float, Tensor | float]:
    """Return the factors of both tasks' logit terms, (L,) and ()."""
    return (1.0, 1.0) if setup.trust is None else (setup.trust[:-1], setup.trust[-1])


def supervised(
    trace: Trace, targets: Tensor, abnormal: Tensor, label_counts: Tensor | None = None, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the BCE of both tasks, averaged over the known targets.

    Args:
        trace: of the model that learns.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.
        label_counts: (2,) divisors of both tasks' sums; by default their numbers of known targets, at least 1.
        weights: (2, L + 1) weights of negative and of positive targets, on the models' device; "abnormal" last. None:
            1 for all.

    Returns:
        "bce_findings" and "bce_abnormal", scalars.
    """
    counts = (None, None) if label_counts is None else (label_counts[0], label_counts[1])
    of_findings, of_abnormal = (None, None) if weights is None else (weights[:, :-1], weights[:, -1])
    return {
        "bce_findings": masked_bce(trace.findings, targets, counts[0], of_findings),
        "bce_abnormal": masked_bce(trace.abnormal, abnormal, counts[1], of_abnormal),
    }


def masked_bce(logits: Tensor, targets: Tensor, count: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy over the targets that are not NaN.

    It is their sum divided by `count`, by default the number of such targets; 0 if there are none. A positive target
    counts `weights[1]` times and a negative one `weights[0]` times, if there are weights; targets between 0 and 1 count
    as shares of both.
    """
    has_label = ~targets.isnan()
    negative, ratio = (None, None) if weights is None else (weights[0], weights[1] / weights[0])
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), targets.nan_to_num(), weight=negative, pos_weight=ratio, reduction="none"
    )
    return (losses * has_label).sum() / (has_label.sum().clamp(min=1) if count is None else count)


def match_grid(tokens: Tensor, count: int) -> Tensor:
    """Average-pool the teacher's patch tokens to the student's grid.

    The class token is unchanged.

    Args:
        tokens: (B, 1 + T, D), class token first, T a square number.
        count: 1 + the student's number of patch tokens.

    Returns:
        (B, count, D).
    """
    if tokens.shape[1] == count:
        return tokens
    batch, _, width = tokens.shape
    side, new_side = math.isqrt(tokens.shape[1] - 1), math.isqrt(count - 1)
    grid = tokens[:, 1:].transpose(1, 2).reshape(batch, width, side, side)
    pooled = F.adaptive_avg_pool2d(grid, new_side).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :1], pooled], dim=1)


def width_map(student: int, teacher: int) -> nn.Module:
    """Return a module that maps the student's width to the teacher's.

    It is the identity if they are equal, otherwise a learnt linear map.
    """
    return nn.Identity() if student == teacher else nn.Linear(student, teacher)
