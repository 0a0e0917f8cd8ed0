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

from edgecxr.bundle.epoch_history import kept_epoch
from edgecxr.errors import CheckFailed, UsageError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, Batches
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs import batch_advice
from edgecxr.train.epochs.epoch_report import TensorBoard, say_epoch, say_stopped, write_history
from edgecxr.train.epochs.stopping import TimeLimit, ended
from edgecxr.train.epochs.validation import val_aurocs, val_logits
from edgecxr.train.epochs.weight_average import WeightAverage

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
    max_hours: float | None = None,
) -> dict[str, Any]:
    """Train until `config.epochs` or out of patience, or resume an interrupted run.

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
        max_hours: limit of the hours that this call trains; None: no limit.

    Returns:
        Why the run is finished, see `ended`.

    Raises:
        CheckFailed: loss or output is no longer finite; the last good epoch is kept.
        TimeIsUp: `max_hours` are over before the run is; the whole epochs are kept.
        UsageError: a batch does not fit into memory.
    """
    fabric = device.fabric
    limit = TimeLimit(max_hours, fabric)
    model = cast("TwoHeadViT", learner.model)
    average = WeightAverage(model, config.ema, device) if config.ema else None
    judged = average.model if average else model
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
    parts: dict[str, Any] = {"learner": learner, "optimizer": optimizer, "scaler": scaler}
    if average:
        parts["average"] = judged
    history = checkpoint.resume(run, device, parts)
    if history and fabric.is_global_zero:
        write_epoch(run, judged, history)  # a kill may have come between last.pt and these files

    board = TensorBoard(run, history) if tensorboard and fabric.is_global_zero else None
    before = len(history)
    epochs = _Epochs(run, config, device, train, model, average, limit, step_of, norms, optimizer, scaler, progress)
    try:
        while (ending := ended(history, config.epochs, config.patience)) is None:
            epoch = len(history)
            limit.begin_epoch(run, epoch)
            means, pace = epochs.train_for(epoch)
            for network in {id(each): each for each in (model, judged)}.values():
                device.average_statistics(network)
            row = means | _validated(run, epoch, judged, val, config, device, len(train)) | pace
            history.append(fabric.broadcast(row))  # all processes decide by the same numbers
            if fabric.is_global_zero:
                # Write last.pt first, since it records which epochs are done: a repeated epoch must not find its own
                # weights in best.safetensors.
                checkpoint.save_last(run, {k: v.state_dict() for k, v in parts.items()} | {"history": history})
                kept = write_epoch(run, judged, history)
                say_epoch(row, config.epochs, kept, first=epoch == before)
                if board:
                    board.add(row)
    except KeyboardInterrupt:
        say_stopped(run, len(history), config.epochs)
        raise
    if fabric.is_global_zero:
        from edgecxr.plots.curves import curves  # here: importing matplotlib takes a second

        curves(history, kept_epoch(history)["epoch"], f"{run.name} on {config.data}", run / "curves.png")
    return ending


@dataclass(frozen=True)
class _Epochs:
    """Everything that the steps of an epoch need."""

    run: Path
    config: TrainConfig
    device: Device
    train: Batches
    model: TwoHeadViT
    average: WeightAverage | None
    limit: TimeLimit
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
                self.limit.check_step(self.run, epoch, index)
                wait_started = time.perf_counter()
                batch = _next(batches, config, device)
                waited += time.perf_counter() - wait_started
                step = epoch * len(train) + index
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, steps)
                for norm in self.norms:  # a short last batch counts less, by its number of images
                    norm.momentum = MOMENTUM * min(1, len(batch.base) * device.fabric.world_size / config.batch)
                losses = _step(self.step_of, batch, self.optimizer, self.scaler, device, config.clip)
                if self.average:
                    self.average.update(self.model, step)
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
