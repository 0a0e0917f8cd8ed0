"""The training loop that teacher and students share: steps, validation, checkpoints, resume."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
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
from edgecxr.storage.atomic import atomic_write
from edgecxr.train import batch_advice, checkpoint
from edgecxr.train.batches import Batch, Batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.vocabulary import FloatArray

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, a note)."""

MOMENTUM = 0.1
"""Weight of a whole batch in the running statistics of batch norms."""

CHECK_EVERY = 100
"""Steps between two looks at whether the loss is finite: a GPU waits for the CPU at each."""


def fit(
    run: Path,
    config: TrainConfig,
    device: Device,
    learner: nn.Module,
    train: Batches,
    val: Batches,
    progress: Progress,
) -> None:
    """Train until `config.epochs`, or go on from where an interrupted run stopped, with whatever number of processes.

    The first process writes last.pt and history.csv after every epoch, best.safetensors at every new best validation
    AUROC (the mean of both tasks), and curves.png at the end.

    Args:
        run: the run's folder.
        config: its settings.
        device: where and in which arithmetic.
        learner: called with a `Batch`, returns named scalar losses; "loss" is the one that is minimised. Its attribute
            `model` is what is validated and kept; other parameters of it are trained along and dropped afterwards.
        train: the training split.
        val: the validation split.
        progress: called after every step.

    Raises:
        CheckFailed: loss or output is not finite any more; the last good epoch is kept.
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
        write_epoch(run, model, history)  # a kill may have come between last.pt and these

    steps = config.epochs * len(train)
    note = ""
    for epoch in range(len(history), config.epochs):
        model.train()
        started = time.perf_counter()
        waited = 0.0
        sums: dict[str, Tensor] = {}
        watch = _FiniteWatch(steps, device)
        # Closed at once when a step fails: what reads ahead ends with it.
        with closing(train.shuffled(config.seed, epoch, config.augment)) as batches:
            for index in range(len(train)):
                asked = time.perf_counter()
                batch = _next(batches, config, device)
                waited += time.perf_counter() - asked
                step = epoch * len(train) + index
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step, steps)
                for norm in norms:  # the few films of a short last batch count for no more than they are
                    norm.momentum = MOMENTUM * min(1, len(batch.base) * fabric.world_size / config.batch)
                parts = _step(step_of, batch, optimizer, scaler, device, config.clip)
                # Kept on the device: reading a loss here would make the GPU wait for the CPU at every step.
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0) + value.detach()
                watch.add(step, parts["loss"])
                if index % CHECK_EVERY == CHECK_EVERY - 1:
                    _refuse_infinite(watch.first(), run, epoch, len(train))
                progress(step + 1, steps, f"epoch {epoch + 1}/{config.epochs} {note}")
        device.average_statistics(model)
        device.synchronize()
        seconds = time.perf_counter() - started
        _refuse_infinite(watch.first(), run, epoch, len(train))
        totals = device.all_reduce(torch.stack(list(sums.values())), "mean").tolist()
        means = {name: total / len(train) for name, total in zip(sums, totals, strict=True)}
        logits = val_logits(model, val, config.size, device)
        # The last update of an epoch may spoil weights that no loss of the epoch has seen: validation shows it.
        if not np.isfinite(logits).all():
            _refuse_infinite(step, run, epoch, len(train))
        findings, abnormal = val_aurocs(val, logits)
        known = [value for value in (findings, abnormal) if not math.isnan(value)]
        score = sum(known) / len(known) if known else math.nan
        speed, share = len(train.rows) / seconds, waited / seconds
        history.append(
            {"epoch": epoch + 1, "lr": learning_rate(config, step, steps)}
            | means
            | {"val_auroc_findings": findings, "val_auroc_abnormal": abnormal, "score": score}
            | {"seconds": round(seconds, 3), "images_per_s": round(speed, 1), "data_share": round(share, 4)}
        )
        note = f"loss {means['loss']:.3f}, val AUROC findings {findings:.3f} abnormal {abnormal:.3f}, "
        note += f"{speed:.0f} img/s, {share:.0%} of it waiting for data"
        progress(step + 1, steps, f"epoch {epoch + 1}/{config.epochs} {note}")
        if fabric.is_global_zero:
            # First, since it alone says what is done: an epoch that is repeated must not find its own best.safetensors.
            state: dict[str, Any] = {"learner": learner, "optimizer": optimizer, "scaler": scaler}
            checkpoint.save_last(run, {k: v.state_dict() for k, v in state.items()} | {"history": history})
            write_epoch(run, model, history)
    if fabric.is_global_zero:
        from edgecxr.plots.curves import curves  # here: matplotlib takes a second, and a run that is cut off needs none

        curves(history, f"{run.name} on {config.data}", run / "curves.png")


def _next(batches: Iterator[Batch], config: TrainConfig, device: Device) -> Batch:
    """Return the next batch.

    Raises:
        UsageError: its images alone do not fit into memory.
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
    """Take one step and return its losses.

    Raises:
        UsageError: the batch does not fit into memory; says which one does.
    """
    parts: dict[str, Tensor] = {}
    try:
        with device.autocast():
            parts = step_of(batch)
        optimizer.zero_grad(set_to_none=True)
        device.fabric.backward(scaler.scale(parts["loss"]))
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(step_of.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        return parts
    except RuntimeError as error:
        if not batch_advice.is_exhausted(error):
            raise
    # Outside of `except`: the error holds on to what filled the memory, and so do the losses.
    parts = {}
    optimizer.zero_grad(set_to_none=True)
    raise UsageError(batch_advice.advice(step_of, batch, device))


class _FiniteWatch:
    """The first step whose loss is not finite, kept on the device until it is asked for."""

    def __init__(self, steps: int, device: Device) -> None:
        self._none = steps
        self._device = device
        self._first = torch.full((), steps, device=device.torch)

    def add(self, step: int, loss: Tensor) -> None:
        self._first = torch.where(loss.detach().isfinite(), self._first, self._first.clamp(max=step))

    def first(self) -> int | None:
        """Return the number of that step, of any process, counted from 0."""
        found = int(self._device.all_reduce(self._first, "min"))
        return None if found == self._none else found


def _refuse_infinite(step: int | None, run: Path, epoch: int, steps: int) -> None:
    if step is None:
        return
    kept = f"epoch {epoch} is kept in {run}" if epoch else "nothing was kept"
    raise CheckFailed(
        f"loss or output of {run.name} is not finite from step {step + 1} on (epoch {epoch + 1}, its step "
        f"{step - epoch * steps + 1} of {steps}; {kept}): lower --lr, or --precision fp32"
    )


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero; a function of the step alone, so that resuming needs no state."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.inference_mode()
def val_logits(model: TwoHeadViT, val: Batches, size: int, device: Device) -> FloatArray:
    """Return the logits (N, L + 1) of the validation split, "abnormal" last; each process works on a part of it."""
    model.eval()
    outputs = []
    for batch in val.in_order():
        # Not in half precision: its few distinct logits would decide the best epoch by ties.
        trace = model.trace(view(batch.base, size))
        outputs.append(torch.cat([trace.findings, trace.abnormal[:, None]], dim=1))
    whole = device.all_gather(torch.cat(outputs)).transpose(0, 1).flatten(0, 1)
    return whole[: len(val.rows)].cpu().numpy()


def val_aurocs(val: Batches, logits: FloatArray) -> tuple[float, float]:
    """Return the macro AUROC of the findings and the AUROC of normal/abnormal; NaN where no label has both classes."""
    targets = val.targets.numpy()
    each = [metrics.auroc(targets[:, c], logits[:, c]) for c in range(targets.shape[1])]
    known = [value for value in each if not math.isnan(value)]
    return (
        float(np.mean(known)) if known else math.nan,
        metrics.auroc(val.abnormal.numpy(), logits[:, -1]),
    )


def write_epoch(run: Path, model: TwoHeadViT, history: list[dict[str, Any]]) -> None:
    """Write history.csv, and best.safetensors if the last epoch is the best; `model` is as that epoch left it."""
    *before, last = history
    best = max((row["score"] for row in before if not math.isnan(row["score"])), default=-math.inf)
    if not last["score"] <= best:  # NaN counts as better: without a measure the latest weights are the ones to keep
        checkpoint.save_best(run, model)
    write_history(run, history)


def write_history(run: Path, history: list[dict[str, Any]]) -> None:
    """Write history.csv, one row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic_write(run / "history.csv", text.getvalue())


def check_splits(train: Batches, val: Batches, name: str) -> None:
    """Refuse a data set from which nothing can be learnt or chosen.

    Raises:
        InputError: a split is empty, or no label has both classes in the training split.
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
