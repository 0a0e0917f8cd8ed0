"""The student: 112, 56 or 28 px, taught by a frozen teacher that sees the same film at 224 px."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import Setup, supervised
from edgecxr.errors import UsageError
from edgecxr.models.vit import build, pretrained_state, start_from
from edgecxr.registry import METHODS, resolve
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, Batches, view
from edgecxr.train.card import finish
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.loop import Progress, check_splits, fit
from edgecxr.workspace import Workspace


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
        ModelError: the teacher's files are damaged, or it is of another architecture than --init teacher needs.
    """
    train = Batches(prepared, "train", config.batch, device.torch)
    val = Batches(prepared, "val", config.batch, device.torch)
    check_splits(train, val, prepared.name)

    teacher = None
    if teacher_run is not None:
        teacher, teacher_card = checkpoint.load_run(teacher_run)
        if teacher_card.labels != prepared.labels:
            raise UsageError(
                f"teacher {teacher_card.name} was trained for other labels than data set {prepared.name} has: "
                f"edgecxr train --data {prepared.name}"
            )
        teacher.requires_grad_(False).to(device.torch)

    torch.manual_seed(config.seed)
    student = build(config, len(prepared.labels))
    if config.init == "teacher":
        if teacher is None:
            raise UsageError("--init teacher needs a teacher: name it with --teacher, or type --init random")
        start_from(student, teacher.state_dict(), str(teacher_run))
    elif config.init == "pretrained":
        file = Path(config.pretrained) if config.pretrained else None
        start_from(student, pretrained_state(config.arch, file), str(file or "timm's hub"))
    student.to(device.torch)

    make_method = resolve(METHODS, config.method, "method")
    taught = teacher or student
    setup = Setup(
        *(student.width, taught.width, student.depth, taught.depth),
        *(config.alpha, config.beta, config.gamma, config.temperature),
    )
    method = make_method(setup).to(device.torch)

    if method.needs_teacher and teacher is None:
        raise UsageError(f"--method {config.method} needs a teacher: name it with --teacher")

    def losses(batch: Batch) -> dict[str, Tensor]:
        seen = student.trace(view(batch.base, config.size))
        parts = supervised(seen, batch.targets, batch.abnormal)
        loss = parts["bce_findings"] + parts["bce_abnormal"]
        if teacher is not None and method.needs_teacher:
            with torch.no_grad():
                taught = teacher.trace(view(batch.base, teacher_card.size))
            parts |= method(seen, taught)
            loss = loss + parts["distillation"]
        return {"loss": loss} | parts

    # The folder is made only now, so that a wrong option or a damaged teacher leave nothing behind.
    with checkpoint.open_run(workspace, student_name(config), config, fresh) as run:
        fit(run, config, device, student, method, losses, train, val, progress)
        finish(run, config, prepared)
    return run


def student_name(config: TrainConfig) -> str:
    """Return the name of a student's run, such as "student-tiny-28-mlcak"."""
    return f"student-{config.arch}-{config.size}-{config.method}"
