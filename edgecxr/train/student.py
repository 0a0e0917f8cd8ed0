"""The student: 112, 56 or 28 px, taught by a frozen teacher that sees the same film at 224 or 448 px."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import DistillMethod, Setup, supervised
from edgecxr.errors import UsageError
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.models.weights import pretrained_state, start_from
from edgecxr.registry import METHODS, resolve
from edgecxr.terminal import say
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, open_batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.finish import finish
from edgecxr.train.loop import Progress, check_splits, fit
from edgecxr.workspace import Workspace


class Distilled(nn.Module):
    """The student's training step: a batch -> named losses, "loss" being the one that is minimised.

    Args:
        model: what learns.
        size: of its images.
        method: compares it with the teacher; its own parameters are trained along.
        teacher: frozen, in eval mode; None where nothing is compared.
        teacher_size: of the images that the teacher sees.
    """

    def __init__(
        self, model: TwoHeadViT, size: int, method: DistillMethod, teacher: TwoHeadViT | None, teacher_size: int
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.method = method
        # In a tuple, so that its weights are neither trained nor saved with these.
        self.taught_by = (teacher, teacher_size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return "loss", "bce_findings", "bce_abnormal" and what the method names, scalars."""
        seen = self.model.trace(view(batch.base, self.size))
        parts = supervised(seen, batch.targets, batch.abnormal, batch.known)
        loss = parts["bce_findings"] + parts["bce_abnormal"]
        teacher, teacher_size = self.taught_by
        if teacher is not None:
            # Not inference_mode: its tensors cannot be kept for the backward pass, which needs them in the MSE.
            with torch.no_grad():
                taught = teacher.trace(view(batch.base, teacher_size))
            compared = self.method(seen, taught)
            parts |= {name: value * batch.weight for name, value in compared.items()}
            loss = loss + parts["distillation"]
        return {"loss": loss} | parts


def distil_student(
    workspace: Workspace,
    prepared: Prepared,
    config: TrainConfig,
    teacher_run: Path | None,
    device: Device,
    progress: Progress,
    fresh: bool = False,
) -> Path:
    """Train a student, or go on with an interrupted run of the same settings.

    Args:
        workspace: where the run is kept.
        prepared: the data set; its labels are the teacher's.
        config: with a method of `edgecxr.registry.METHODS`.
        teacher_run: a finished teacher; None where neither the method nor the init needs one.
        device: where and in which arithmetic.
        progress: called after every step.
        fresh: begin a new run even if an interrupted one could be continued.

    Returns:
        The run's folder, with best.safetensors and card.json.

    Raises:
        UsageError: the teacher answers other labels than the data set has.
        InputError: nothing can be learnt from the data set, or the teacher sees 448 px and it has no such images.
        ModelError: the teacher's files are damaged, or it is of another architecture than --init teacher needs.
    """
    teacher = teacher_card = None
    if teacher_run is not None:
        teacher, teacher_card = checkpoint.load_run(teacher_run)
        if teacher_card.labels != prepared.labels:
            raise UsageError(
                f"teacher {teacher_card.name} was trained for other labels than data set {prepared.name} has: "
                f"edgecxr train --data {prepared.name}"
            )
        teacher.requires_grad_(False).to(device.torch)

    make_method = resolve(METHODS, config.method, "method")
    # A teacher that gives no more than its weights sees no films.
    teacher_size = teacher_card.size if teacher_card and make_method.needs_teacher else config.size
    train, val = open_batches(prepared, config.batch, device, config.size, teacher_size)
    check_splits(train, val, prepared.name)

    torch.manual_seed(config.seed)
    student = build(config, len(prepared.labels))
    if config.init == "teacher":
        if teacher is None:
            raise UsageError("--init teacher needs a teacher: name it with --teacher, or type --init random")
        if not start_from(student, teacher.state_dict(), str(teacher_run)):
            say("blocks and heads start from the teacher's, the stem from random weights: the teacher's is another")
    elif config.init == "pretrained":
        file = Path(config.pretrained) if config.pretrained else None
        start_from(student, pretrained_state(config.arch, file), str(file or "timm's hub"))

    taught = teacher or student
    setup = Setup(
        *(student.width, taught.width, student.depth, taught.depth),
        *(config.alpha, config.beta, config.gamma, config.temperature),
    )
    method = make_method(setup)

    if method.needs_teacher and teacher is None:
        raise UsageError(f"--method {config.method} needs a teacher: name it with --teacher")

    compared = teacher if method.needs_teacher else None
    learner = Distilled(student, config.size, method, compared, teacher_size)
    # The folder is made only now, so that a wrong option or a damaged teacher leave nothing behind.
    with checkpoint.open_run(workspace, student_name(config), config, fresh, device.fabric) as run:
        fit(run, config, device, learner, train, val, progress)
        finish(run, config, prepared, device)
    return run


def student_name(config: TrainConfig) -> str:
    """Return the name of a student's run, such as "student-tiny-28-mlcak"."""
    return f"student-{config.arch}-{config.size}-{config.method}"
