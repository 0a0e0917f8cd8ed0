"""The teacher: 224 or 448 px, both tasks, supervised."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import supervised
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.models.weights import pretrained_state, start_from
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, open_batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.finish import finish
from edgecxr.train.loop import Progress, check_splits, fit
from edgecxr.workspace import Workspace


class Supervised(nn.Module):
    """The teacher's training step: a batch -> named losses, "loss" being the one that is minimised.

    Args:
        model: what learns.
        size: of its images.
    """

    def __init__(self, model: TwoHeadViT, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return "loss", "bce_findings" and "bce_abnormal", scalars."""
        seen = self.model.trace(view(batch.base, self.size))
        parts = supervised(seen, batch.targets, batch.abnormal, batch.known)
        return {"loss": parts["bce_findings"] + parts["bce_abnormal"]} | parts


def train_teacher(
    workspace: Workspace,
    prepared: Prepared,
    config: TrainConfig,
    device: Device,
    progress: Progress,
    fresh: bool = False,
) -> Path:
    """Train a teacher, or go on with an interrupted run of the same settings.

    Args:
        workspace: where the run is kept.
        prepared: the data set.
        config: method "teacher".
        device: where and in which arithmetic.
        progress: called after every step.
        fresh: begin a new run even if an interrupted one could be continued.

    Returns:
        The run's folder, with best.safetensors and card.json.
    """
    train, val = open_batches(prepared, config.batch, device, config.size)
    check_splits(train, val, prepared.name)

    torch.manual_seed(config.seed)
    model = build(config, len(prepared.labels))
    if config.init == "pretrained":
        file = Path(config.pretrained) if config.pretrained else None
        start_from(model, pretrained_state(config.arch, file), str(file or "timm's hub"))

    # The folder is made only now, so that a wrong option or missing weights leave nothing behind.
    with checkpoint.open_run(workspace, f"teacher-{config.arch}-{config.size}", config, fresh, device.fabric) as run:
        fit(run, config, device, Supervised(model, config.size), train, val, progress)
        finish(run, config, prepared, device)
    return run
