"""Training of a student at 112, 56 or 28 px.

A frozen teacher sees the same image at 224 or 448 px.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import DistillMethod, Setup, supervised
from edgecxr.errors import UsageError
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.models.weights import start_from
from edgecxr.registry import METHODS, resolve
from edgecxr.terminal import say
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, open_batches, view, with_labels
from edgecxr.train.class_weights import class_weights
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs.validation import check_splits
from edgecxr.train.finish import finish
from edgecxr.train.loop import Progress, fit
from edgecxr.workspace import Workspace


class Distilled(nn.Module):
    """The student's training step, from a batch to named losses.

    "loss" is the one to minimise.

    Args:
        model: the model to train.
        size: side of its images, in pixels.
        method: compares the model with the teacher; its own parameters are trained too.
        teacher: frozen, in eval mode; None if nothing is compared.
        teacher_size: side of the images that the teacher sees, in pixels.
        weights: of negative and positive targets, see `supervised`; the comparison with the teacher has none.
    """

    def __init__(
        self,
        model: TwoHeadViT,
        size: int,
        method: DistillMethod,
        teacher: TwoHeadViT | None,
        teacher_size: int,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.weights = weights
        self.method = method
        # In a tuple, so that nn.Module neither trains nor saves the teacher's weights.
        self.taught_by = (teacher, teacher_size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return "loss", "bce_findings", "bce_abnormal" and the method's losses, all scalars."""
        trace = self.model.trace(view(batch.base, self.size))
        losses = supervised(trace, batch.targets, batch.abnormal, batch.label_counts, self.weights)
        loss = losses["bce_findings"] + losses["bce_abnormal"]
        teacher, teacher_size = self.taught_by
        if teacher is not None:
            # Not inference_mode: the backward pass of the MSE needs these tensors, and cannot use inference tensors.
            with torch.no_grad():
                teacher_trace = teacher.trace(view(batch.base, teacher_size))
            distillation = self.method(trace, teacher_trace)
            losses |= {name: value * batch.weight for name, value in distillation.items()}
            loss = loss + losses["distillation"]
        return {"loss": loss} | losses


def distil_student(
    workspace: Workspace,
    prepared: Prepared,
    config: TrainConfig,
    teacher_run: Path | None,
    device: Device,
    progress: Progress,
    fresh: bool = False,
    name: str | None = None,
    tensorboard: bool = False,
    max_hours: float | None = None,
) -> Path:
    """Train a student, or resume an interrupted run of the same settings.

    Args:
        workspace: where the run is kept.
        prepared: the data set; its labels are the teacher's.
        config: its method is one of `edgecxr.registry.METHODS`; precision "auto" is stored as the device's.
        teacher_run: a finished teacher; None if neither the method nor the init needs one.
        device: device and precision.
        progress: called after every step.
        fresh: begin a new run even if an interrupted one could be continued.
        name: name of the run; None makes one of the settings.
        tensorboard: also write the history for TensorBoard.
        max_hours: limit of the hours that this call trains; None: no limit.

    Returns:
        The run's folder, with best.safetensors and card.json.

    Raises:
        UsageError: the teacher has other labels than the data set, or a teacher is needed and missing.
        InputError: nothing can be learnt from the data set, or the teacher needs 448 px images and it has none.
        ModelError: the teacher's files are damaged, or --init teacher needs a teacher of another architecture.
    """
    config = replace(config, precision=device.precision)
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
    # A teacher that only provides initial weights sees no images.
    teacher_size = teacher_card.size if teacher_card and make_method.needs_teacher else config.size
    films = with_labels(prepared, config.labelled, taught=make_method.needs_teacher)
    train, val = open_batches(films, config.batch, device, config.size, teacher_size)
    check_splits(train, val, prepared.name)

    torch.manual_seed(config.seed)
    student = build(config, len(prepared.labels))
    if config.init == "teacher":
        if teacher is None:
            raise UsageError("--init teacher needs a teacher: name it with --teacher, or type --init random")
        if not start_from(student, teacher.state_dict(), str(teacher_run)):
            say("blocks and heads start from the teacher's, the stem from random weights: the teacher's is another")
    else:
        checkpoint.start(student, config, prepared.labels)

    reference = teacher or student
    setup = Setup(
        *(student.width, reference.width, student.depth, reference.depth),
        *(config.alpha, config.beta, config.gamma, config.temperature),
        None if config.trust is None else torch.tensor(config.trust, device=device.torch),
    )
    method = make_method(setup)

    if method.needs_teacher and teacher is None:
        raise UsageError(f"--method {config.method} needs a teacher: name it with --teacher")

    seen_teacher = teacher if method.needs_teacher else None
    weights = class_weights(films, config.class_weights, device.torch)
    learner = Distilled(student, config.size, method, seen_teacher, teacher_size, weights)
    # Create the folder only now, so that a wrong option or a damaged teacher leave nothing behind.
    called = name or student_name(config)
    with checkpoint.open_run(workspace, called, config, fresh, device.fabric, numbered=name is None) as run:
        ending = fit(run, config, device, learner, train, val, progress, tensorboard, max_hours)
        finish(run, config, prepared, device, ending)
    return run


def student_name(config: TrainConfig) -> str:
    """Return the name of a student's run, such as "student-tiny-28-mlcak-vindr"."""
    return f"student-{config.arch}-{config.size}-{config.method}-{config.data}"
