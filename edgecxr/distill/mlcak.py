"""MLCAK: mean output of the encoder blocks and both tasks' logits.

Akhter, Ranjan, Singh, Vatsa: "Low-resolution chest X-ray classification via knowledge distillation and multi-task
learning", Eqs. 1-3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import Setup, distillation, match_grid, width_map
from edgecxr.models.vit import Trace


class Mlcak(nn.Module):
    """MLCAK distillation.

    The loss is alpha MSE(findings) + beta MSE(abnormal) + gamma MSE(mean over the blocks of H_i), H_i being the output
    of block i. The depths may differ.
    """

    needs_teacher = True
    options = ("alpha", "beta", "gamma")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.project = width_map(setup.student_width, setup.teacher_width)

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal", "kd_knowledge" and their weighted sum "distillation"."""
        ours = self.project(torch.stack(student.blocks).mean(dim=0))
        theirs = match_grid(torch.stack(teacher.blocks).mean(dim=0), ours.shape[1])
        return distillation(self.setup, student, teacher, F.mse_loss(ours, theirs))
