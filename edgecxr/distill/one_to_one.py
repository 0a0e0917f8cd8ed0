"""One-to-one distillation: each block with its counterpart, and both tasks' logits.

Table 2 of the paper compares it with the other methods.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import Setup, distillation, match_grid, width_map
from edgecxr.errors import UsageError
from edgecxr.models.vit import Trace


class OneToOne(nn.Module):
    """One-to-one distillation.

    The loss is alpha MSE(findings) + beta MSE(abnormal) + gamma mean over i of MSE(H_i), H_i being the output of block
    i. If the widths differ, each block has its own map: the features of different blocks have no common basis.

    Raises:
        UsageError: the depths differ, so that blocks have no counterpart.
    """

    needs_teacher = True
    options = ("alpha", "beta", "gamma")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        if setup.student_depth != setup.teacher_depth:
            raise UsageError(
                f"--method one-to-one: the student has {setup.student_depth} blocks and the teacher "
                f"{setup.teacher_depth}; choose mlcak or last-block"
            )
        self.setup = setup
        self.project = nn.ModuleList(
            width_map(setup.student_width, setup.teacher_width) for _ in range(setup.student_depth)
        )

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal", "kd_knowledge" and their weighted sum "distillation"."""
        losses = [
            F.mse_loss(project(ours), match_grid(theirs, ours.shape[1]))
            for project, ours, theirs in zip(self.project, student.blocks, teacher.blocks, strict=True)
        ]
        return distillation(self.setup, student, teacher, torch.stack(losses).mean())
