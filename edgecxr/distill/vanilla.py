"""Vanilla distillation, from the logits of both tasks alone.

They are compared as they are, or softened by a temperature. Hinton, Vinyals, Dean: "Distilling the knowledge in a
neural network", 2015, section 2, gives the softened form.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.distill.base import Setup, distillation, trust_of
from edgecxr.models.vit import Trace


class Vanilla(nn.Module):
    """Vanilla distillation, by the MSE of both tasks' logits.

    The loss is alpha MSE(findings) + beta MSE(abnormal): Eq. 2 with gamma = 0 (Table 2 of the paper).
    """

    needs_teacher = True
    options = ("alpha", "beta")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal" and their weighted sum "distillation"."""
        return distillation(self.setup, student, teacher)


class Hinton(nn.Module):
    """Distillation by probabilities that a temperature softens.

    The loss is alpha D(findings) + beta D(abnormal), D being the divergence that `softened` returns.
    """

    needs_teacher = True
    options = ("alpha", "beta", "temperature")

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def forward(self, student: Trace, teacher: Trace) -> dict[str, Tensor]:
        """Return "kd_findings", "kd_abnormal" and their weighted sum "distillation"."""
        trusted_findings, trusted_abnormal = trust_of(self.setup)
        findings = softened(student.findings, teacher.findings, self.setup.temperature, trusted_findings)
        abnormal = softened(student.abnormal, teacher.abnormal, self.setup.temperature, trusted_abnormal)
        total = self.setup.alpha * findings + self.setup.beta * abnormal
        return {"kd_findings": findings, "kd_abnormal": abnormal, "distillation": total}


def softened(student: Tensor, teacher: Tensor, temperature: float, trust: Tensor | float = 1.0) -> Tensor:
    """Return the divergence of softened probabilities, averaged over all elements.

    It is T^2 KL(sigmoid(teacher / T) || sigmoid(student / T)). Each logit is a task of two classes here, whereas
    Hinton's softmax is one task of many. The factor T^2 keeps the gradients at the size that they have without
    softening; for large T the loss tends to (student - teacher)^2 / 8.

    Args:
        student: logits of any shape.
        teacher: logits of the same shape.
        temperature: T, above 0.
        trust: factors of the elements.
    """
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    probability = theirs.sigmoid()
    # log sigmoid(-x) is the logarithm of the other class's probability.
    present = probability * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    absent = (1 - probability) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * ((present + absent) * trust).mean()
