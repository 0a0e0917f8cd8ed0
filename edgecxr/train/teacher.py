"""Supervised training of the teacher, both tasks, 224 or 448 px."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import supervised
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, open_batches, view, with_labels
from edgecxr.train.class_weights import class_weights
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs.validation import check_splits
from edgecxr.train.finish import finish
from edgecxr.train.loop import Progress, fit
from edgecxr.workspace import Workspace


class Supervised(nn.Module):
    """The teacher's training step, from a batch to named losses.

    "loss" is the one to minimise.

    Args:
        model: the model to train.
        size: side of its images, in pixels.
        weights: of negative and positive targets, see `supervised`.
    """

    def __init__(self, model: TwoHeadViT, size: int, weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.weights = weights

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return "loss", "bce_findings" and "bce_abnormal", scalars."""
        trace = self.model.trace(view(batch.base, self.size))
        losses = supervised(trace, batch.targets, batch.abnormal, batch.label_counts, self.weights)
        return {"loss": losses["bce_findings"] + losses["bce_abnormal"]} | losses


def train_teacher(
    workspace: Workspace,
    prepared: Prepared,
    config: TrainConfig,
    device: Device,
    progress: Progress,
    fresh: bool = False,
    name: str | None = None,
    tensorboard: bool = False,
    max_hours: float | None = None,
) -> Path:
    """Train a teacher, or resume an interrupted run of the same settings.

    Args:
        workspace: where the run is kept.
        prepared: the data set.
        config: its method is "teacher"; precision "auto" is stored as the device's.
        device: device and precision.
        progress: called after every step.
        fresh: begin a new run even if an interrupted one could be continued.
        name: name of the run; None makes one of the settings.
        tensorboard: also write the history for TensorBoard.
        max_hours: limit of the hours that this call trains; None: no limit.

    Returns:
        The run's folder, with best.safetensors and card.json.
    """
    config = replace(config, precision=device.precision)
    films = with_labels(prepared, config.labelled, taught=False)
    train, val = open_batches(films, config.batch, device, config.size)
    check_splits(train, val, prepared.name)

    torch.manual_seed(config.seed)
    model = build(config, len(prepared.labels))
    checkpoint.start(model, config, prepared.labels)

    # Create the folder only now, so that a wrong option or missing weights leave nothing behind.
    called = name or teacher_name(config)
    weights = class_weights(films, config.class_weights, device.torch)
    with checkpoint.open_run(workspace, called, config, fresh, device.fabric, numbered=name is None) as run:
        learner = Supervised(model, config.size, weights)
        ending = fit(run, config, device, learner, train, val, progress, tensorboard, max_hours)
        finish(run, config, prepared, device, ending)
    return run


def teacher_name(config: TrainConfig) -> str:
    """Return the name of a teacher's run, such as "teacher-tiny-224-vindr"."""
    return f"teacher-{config.arch}-{config.size}-{config.data}"
