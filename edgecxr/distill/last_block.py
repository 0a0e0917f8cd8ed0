"""Last-block distillation: output of the last block and both tasks' logits.

Table 2 of the paper compares it with the other methods.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import Setup, distillation, match_grid, width_map
from edgecxr.models.vit import Trace


class LastBlock(nn.Module):
    """Last-block distillation.

    The loss is alpha MSE(findings) + beta MSE(abnormal) + gamma MSE(H_N), H_N being the output of the last block. The
    depths may differ.
    """

    needs_teacher = True
    options = ("alpha", "beta", "gamma")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.project = width_map(setup.student_width, setup.teacher_width)

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal", "kd_knowledge" and their weighted sum "distillation"."""
        ours = self.project(student.blocks[-1])
        theirs = match_grid(teacher.blocks[-1], ours.shape[1])
        return distillation(self.setup, student, teacher, F.mse_loss(ours, theirs))
