"""Vanilla distillation: the logits of both tasks alone, compared as they are or softened by a temperature.

Hinton, Vinyals, Dean: "Distilling the knowledge in a neural network", 2015, section 2, gives the softened form.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import Setup, distillation
from edgecxr.models.vit import Trace


class Vanilla(nn.Module):
    """alpha MSE(findings) + beta MSE(abnormal): Eq. 2 with gamma = 0 (Table 2 of the paper)."""

    needs_teacher = True
    options = ("alpha", "beta")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal" and their weighted sum "distillation"."""
        return distillation(self.setup, student, teacher)


class Hinton(nn.Module):
    """alpha D(findings) + beta D(abnormal), D the divergence of the probabilities softened by a temperature."""

    needs_teacher = True
    options = ("alpha", "beta", "temperature")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal" and their weighted sum "distillation"."""
        findings = softened(student.findings, teacher.findings, self.setup.temperature)
        abnormal = softened(student.abnormal, teacher.abnormal, self.setup.temperature)
        total = self.setup.alpha * findings + self.setup.beta * abnormal
        return {"kd_findings": findings, "kd_abnormal": abnormal, "distillation": total}


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(sigmoid(teacher / T) || sigmoid(student / T)), the mean over all elements.

    Every logit is a task of two classes here, where Hinton's softmax has one task of many. The factor T^2 keeps the
    gradients at the size that they have without softening; for large T the loss tends to (student - teacher)^2 / 8.

    Args:
        student: logits of any shape.
        teacher: logits of the same shape.
        temperature: T, above 0.
    """
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    share = theirs.sigmoid()
    # log sigmoid(-x) is the logarithm of the other class's probability.
    present = share * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    absent = (1 - share) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * (present + absent).mean()
