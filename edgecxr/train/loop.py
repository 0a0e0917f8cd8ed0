"""Training loop of teachers and students: steps, validation, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from edgecxr import metrics
from edgecxr.errors import CheckFailed, InputError, UsageError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train import batch_advice, checkpoint
from edgecxr.train.batches import Batch, Batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epoch_report import TensorBoard, kept_epoch, say_epoch, say_stopped, write_history
from edgecxr.vocabulary import FloatArray

Progress = Callable[[int, int, str], None]
"""Callback that gets (steps done, total steps, a note)."""

MOMENTUM = 0.1
"""Weight of a full batch in the running statistics of batch norms."""

SHOW_EVERY = 1.0
"""Seconds between two looks at the running loss, for which a GPU waits, too."""

CHECK_EVERY = 100
"""Steps between two checks that the loss is finite; a GPU waits for the CPU at each check."""


def fit(
    run: Path,
    config: TrainConfig,
    device: Device,
    learner: nn.Module,
    train: Batches,
    val: Batches,
    progress: Progress,
    tensorboard: bool = False,
) -> None:
    """Train until `config.epochs`, or resume an interrupted run.

    The interrupted run may have had another number of processes. The first process writes last.pt and history.csv after
    every epoch, best.safetensors at every new best validation AUROC (the mean of both tasks), and curves.png at the
    end.

    Args:
        run: the run's folder.
        config: its settings.
        device: device and precision.
        learner: called with a `Batch`, returns named scalar losses; "loss" is minimised. Its attribute `model` is
            validated and saved; its other parameters are trained too and dropped afterwards.
        train: the training split.
        val: the validation split.
        progress: called after every step.
        tensorboard: also write the history for TensorBoard.

    Raises:
        CheckFailed: loss or output is no longer finite; the last good epoch is kept.
        UsageError: a batch does not fit into memory.
    """
    fabric = device.fabric
    model = cast("TwoHeadViT", learner.model)
    step_of = device.distributed(learner)
    norms = [module for module in learner.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(
            learner, config.weight_decay, no_weight_decay_list=("model.vit.cls_token", "model.vit.pos_embed")
        ),
        lr=config.lr,
        fused=device.torch.type == "cuda",
    )
    scaler = device.scaler()
    history = checkpoint.resume(run, device, learner, optimizer, scaler)
    if history and fabric.is_global_zero:
        write_epoch(run, model, history)  # a kill may have come between last.pt and these files

    board = TensorBoard(run, history) if tensorboard and fabric.is_global_zero else None
    before = len(history)
    epochs = _Epochs(run, config, device, train, model, step_of, norms, optimizer, scaler, progress)
    try:
        for epoch in range(len(history), config.epochs):
            means, pace = epochs.train_for(epoch)
            device.average_statistics(model)
            row = means | _validated(run, epoch, model, val, config, device, len(train)) | pace
            history.append(row)
            if fabric.is_global_zero:
                # Write last.pt first, since it records which epochs are done: a repeated epoch must not find its own
                # weights in best.safetensors.
                state: dict[str, Any] = {"learner": learner, "optimizer": optimizer, "scaler": scaler}
                checkpoint.save_last(run, {k: v.state_dict() for k, v in state.items()} | {"history": history})
                kept = write_epoch(run, model, history)
                say_epoch(row, config.epochs, kept, first=epoch == before)
                if board:
                    board.add(row)
    except KeyboardInterrupt:
        say_stopped(run, len(history), config.epochs)
        raise
    if fabric.is_global_zero:
        from edgecxr.plots.curves import curves  # here: importing matplotlib takes a second

        curves(history, kept_epoch(history)["epoch"], f"{run.name} on {config.data}", run / "curves.png")


@dataclass(frozen=True)
class _Epochs:
    """Everything that the steps of an epoch need."""

    run: Path
    config: TrainConfig
    device: Device
    train: Batches
    model: TwoHeadViT
    step_of: nn.Module
    norms: list[nn.BatchNorm2d | nn.SyncBatchNorm]
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    progress: Progress

    def train_for(self, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Train for one epoch.

        Returns:
            Columns of history.csv: "epoch", "lr" and the mean losses; and those of the pace.
        """
        config, device, train = self.config, self.device, self.train
        steps = config.epochs * len(train)
        self.model.train()
        started = shown = time.perf_counter()
        waited = 0.0
        sums: dict[str, Tensor] = {}
        watch = _FiniteWatch(steps, device)
        note = f"epoch {epoch + 1}/{config.epochs}"
        # Close the generator at once if a step fails, which also ends the reading ahead.
        with closing(train.shuffled(config.seed, epoch, config.augment)) as batches:
            for index in range(len(train)):
                wait_started = time.perf_counter()
                batch = _next(batches, config, device)
                waited += time.perf_counter() - wait_started
                step = epoch * len(train) + index
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, steps)
                for norm in self.norms:  # a short last batch counts less, by its number of images
                    norm.momentum = MOMENTUM * min(1, len(batch.base) * device.fabric.world_size / config.batch)
                losses = _step(self.step_of, batch, self.optimizer, self.scaler, device, config.clip)
                # Keep losses on the device: reading one here would make the GPU wait for the CPU at every step.
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach()
                watch.add(step, losses["loss"])
                if index % CHECK_EVERY == CHECK_EVERY - 1:
                    _refuse_infinite(watch.first(), self.run, epoch, len(train))
                if time.perf_counter() - shown >= SHOW_EVERY or index == len(train) - 1:
                    shown = time.perf_counter()
                    note = f"epoch {epoch + 1}/{config.epochs} loss {float(sums['loss']) / (index + 1):.3f}"
                self.progress(step + 1, steps, note)
        device.synchronize()
        seconds = time.perf_counter() - started
        _refuse_infinite(watch.first(), self.run, epoch, len(train))
        totals = device.all_reduce(torch.stack(list(sums.values())), "mean").tolist()
        means = {name: total / len(train) for name, total in zip(sums, totals, strict=True)}
        pace = {"images_per_s": round(len(train.rows) / seconds, 1), "data_share": round(waited / seconds, 4)}
        rate = learning_rate(config, step, steps)
        return {"epoch": epoch + 1, "lr": rate} | means, {"seconds": round(seconds, 3)} | pace


def _validated(
    run: Path, epoch: int, model: TwoHeadViT, val: Batches, config: TrainConfig, device: Device, steps: int
) -> dict[str, float]:
    """Return the validation's columns of history.csv."""
    logits = val_logits(model, val, config.size, device)
    # No loss of the epoch has seen its last update, which may spoil the weights: check the outputs too.
    if not np.isfinite(logits).all():
        _refuse_infinite((epoch + 1) * steps - 1, run, epoch, steps)
    findings, abnormal = val_aurocs(val, logits)
    defined = [value for value in (findings, abnormal) if not math.isnan(value)]
    score = sum(defined) / len(defined) if defined else math.nan
    return {"val_auroc_findings": findings, "val_auroc_abnormal": abnormal, "score": score}


def _next(batches: Iterator[Batch], config: TrainConfig, device: Device) -> Batch:
    """Return the next batch.

    Raises:
        UsageError: the images alone do not fit into memory.
    """
    try:
        return next(batches)
    except RuntimeError as error:
        if not batch_advice.is_exhausted(error):
            raise
        raise UsageError(
            f"the images of a batch do not fit into the memory of {device.torch}: try --batch {config.batch // 2}"
        ) from error


def _step(
    step_of: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    device: Device,
    clip: float,
) -> dict[str, Tensor]:
    """Run one training step and return its losses.

    Raises:
        UsageError: the batch does not fit into memory; the message names one that does.
    """
    losses: dict[str, Tensor] = {}
    try:
        with device.autocast():
            losses = step_of(batch)
        optimizer.zero_grad(set_to_none=True)
        device.fabric.backward(scaler.scale(losses["loss"]))
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(step_of.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        return losses
    except RuntimeError as error:
        if not batch_advice.is_exhausted(error):
            raise
    # Outside of `except`, and without the losses: both would keep the memory occupied.
    losses = {}
    optimizer.zero_grad(set_to_none=True)
    raise UsageError(batch_advice.advice(step_of, batch, device))


class _FiniteWatch:
    """Tracker of the first step whose loss is not finite.

    The number of that step stays on the device until `first` reads it.
    """

    def __init__(self, steps: int, device: Device) -> None:
        self._none = steps
        self._device = device
        self._first = torch.full((), steps, device=device.torch)

    def add(self, step: int, loss: Tensor) -> None:
        self._first = torch.where(loss.detach().isfinite(), self._first, self._first.clamp(max=step))

    def first(self) -> int | None:
        """Return the number of that step, counted from 0.

        The steps of all processes count. None if all losses were finite.
        """
        step = int(self._device.all_reduce(self._first, "min"))
        return None if step == self._none else step


def _refuse_infinite(step: int | None, run: Path, epoch: int, steps: int) -> None:
    if step is None:
        return
    kept = f"epoch {epoch} is kept in {run}" if epoch else "nothing was kept"
    raise CheckFailed(
        f"loss or output of {run.name} is not finite from step {step + 1} on (epoch {epoch + 1}, its step "
        f"{step - epoch * steps + 1} of {steps}; {kept}): lower --lr, or --precision fp32"
    )


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate: linear warm-up, then a cosine to zero.

    It depends on the step alone, so that resuming needs no state.
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.inference_mode()
def val_logits(model: TwoHeadViT, val: Batches, size: int, device: Device) -> FloatArray:
    """Return the logits (N, L + 1) of the validation split.

    "abnormal" is the last column. Each process computes a part of the logits, and all of them get the whole.
    """
    model.eval()
    outputs = []
    for batch in val.in_order():
        # Not in half precision: it has so few distinct logits that ties would decide the best epoch.
        trace = model.trace(view(batch.base, size))
        outputs.append(torch.cat([trace.findings, trace.abnormal[:, None]], dim=1))
    logits = device.all_gather(torch.cat(outputs)).transpose(0, 1).flatten(0, 1)
    return logits[: len(val.rows)].cpu().numpy()


def val_aurocs(val: Batches, logits: FloatArray) -> tuple[float, float]:
    """Return the validation AUROCs of both tasks.

    Returns:
        The macro AUROC of the findings and the AUROC of normal/abnormal; NaN if no label has both classes.
    """
    targets = val.targets.numpy()
    aurocs = [metrics.auroc(targets[:, c], logits[:, c]) for c in range(targets.shape[1])]
    defined = [value for value in aurocs if not math.isnan(value)]
    return (
        float(np.mean(defined)) if defined else math.nan,
        metrics.auroc(val.abnormal.numpy(), logits[:, -1]),
    )


def write_epoch(run: Path, model: TwoHeadViT, history: list[dict[str, Any]]) -> bool:
    """Write history.csv, and best.safetensors if the last epoch is the best.

    `model` must have the weights of that epoch.

    Returns:
        Whether the last epoch is the best.
    """
    is_best = kept_epoch(history) is history[-1]
    if is_best:
        checkpoint.save_best(run, model)
    write_history(run, history)
    return is_best


def check_splits(train: Batches, val: Batches, name: str) -> None:
    """Refuse a data set that cannot be used for training.

    Raises:
        InputError: a split is empty, or no label has both classes in the training split; reason "dataset".
    """
    for batches, split in ((train, "train"), (val, "val")):
        if len(batches.rows) == 0:
            raise InputError(f"data set {name} has no images in its {split} split: prepare it again", "dataset")
    columns = torch.cat([train.targets, train.abnormal[:, None]], dim=1).numpy()
    if not any(min(metrics.counts(column)) for column in columns.T):
        raise InputError(
            f"every label of data set {name} has only one class in the training split: there is nothing to learn",
            "dataset",
        )
