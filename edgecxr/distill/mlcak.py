"""MLCAK: the mean of the encoder blocks' outputs, and the soft logits of both tasks.

Akhter, Ranjan, Singh, Vatsa: "Low-resolution chest X-ray classification via knowledge distillation and multi-task
learning", Eqs. 1-3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import match_grid, width_map
from edgecxr.models.vit import Trace


class Mlcak(nn.Module):
    """alpha MSE(findings) + beta MSE(abnormal) + gamma MSE(mean over the blocks of H_i).

    Args:
        student_width: the student's D.
        teacher_width: the teacher's D; where they differ, the student's knowledge passes a learnt linear map.
        alpha: weight of the findings' logits.
        beta: weight of the abnormal logit.
        gamma: weight of the knowledge.
    """

    needs_teacher = True

    def __init__(self, student_width: int, teacher_width: int, alpha: float, beta: float, gamma: float) -> None:
        super().__init__()
        self.project = width_map(student_width, teacher_width)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal", "kd_knowledge" and their weighted sum "distillation"."""
        ours = self.project(torch.stack(student.blocks).mean(dim=0))
        theirs = match_grid(torch.stack(teacher.blocks).mean(dim=0), ours.shape[1])
        losses = {
            "kd_findings": F.mse_loss(student.findings, teacher.findings),
            "kd_abnormal": F.mse_loss(student.abnormal, teacher.abnormal),
            "kd_knowledge": F.mse_loss(ours, theirs),
        }
        weighted = (
            self.alpha * losses["kd_findings"] + self.beta * losses["kd_abnormal"] + self.gamma * losses["kd_knowledge"]
        )
        return losses | {"distillation": weighted}
