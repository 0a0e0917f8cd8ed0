"""The training loop that teacher and students share: steps, validation, checkpoints, resume."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from edgecxr import metrics
from edgecxr.errors import CheckFailed, InputError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.runtime.types import FloatArray
from edgecxr.train import checkpoint
from edgecxr.train.batches import Batch, Batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.workspace import atomic_write

Losses = Callable[[Batch], dict[str, Tensor]]
"""A batch -> named scalar losses on the device; "loss" is the one that is minimised."""

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, a note)."""


def fit(
    run: Path,
    config: TrainConfig,
    device: Device,
    model: TwoHeadViT,
    helpers: nn.Module,
    losses: Losses,
    train: Batches,
    val: Batches,
    progress: Progress,
) -> None:
    """Train until `config.epochs`, or go on from where an interrupted run stopped.

    Writes last.pt and history.csv after every epoch, best.safetensors at every new best validation AUROC (the mean of
    both tasks), and curves.png at the end.

    Args:
        run: the run's folder.
        config: its settings.
        device: where and in which arithmetic.
        model: what is trained and validated, on the device.
        helpers: a method's own learnt parameters, trained along and dropped afterwards.
        losses: computes the losses of a batch.
        train: the training split.
        val: the validation split.
        progress: called after every step.

    Raises:
        CheckFailed: loss or output is not finite any more; the last good epoch is kept.
    """
    optimizer = torch.optim.AdamW(
        [
            *param_groups_weight_decay(
                model, config.weight_decay, no_weight_decay_list=("vit.cls_token", "vit.pos_embed")
            ),
            *param_groups_weight_decay(helpers, config.weight_decay),
        ],
        lr=config.lr,
        fused=device.torch.type == "cuda",
    )
    scaler = device.scaler()
    learner = nn.ModuleDict({"model": model, "helpers": helpers})
    history: list[dict[str, Any]] = []
    if (run / checkpoint.LAST).exists():
        history = checkpoint.resume(run, device.torch, learner, optimizer, scaler)
        write_epoch(run, model, history)  # a kill may have come between last.pt and these

    steps = config.epochs * len(train)
    note = ""
    for epoch in range(len(history), config.epochs):
        model.train()
        started = time.perf_counter()
        sums: dict[str, Tensor] = {}
        for index, batch in enumerate(train.shuffled(config.seed, epoch, config.augment)):
            step = epoch * len(train) + index
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step, steps)
            with device.autocast():
                parts = losses(batch)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(parts["loss"]).backward()
            scaler.step(optimizer)
            scaler.update()
            # Kept on the device: reading a loss here would make the GPU wait for the CPU at every step.
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach()
            progress(step + 1, steps, f"epoch {epoch + 1}/{config.epochs} {note}")
        device.synchronize()
        seconds = time.perf_counter() - started
        means = {name: float(total) / len(train) for name, total in sums.items()}
        logits = val_logits(model, val, config.size)
        # The last update of an epoch may spoil weights that no loss of the epoch has seen: validation shows it.
        if not (math.isfinite(means["loss"]) and np.isfinite(logits).all()):
            kept = f"epoch {epoch} is kept in {run}" if epoch else "nothing was kept"
            raise CheckFailed(
                f"loss or output of {run.name} is not finite in epoch {epoch + 1} ({kept}): "
                "lower --lr, or --precision fp32"
            )
        findings, abnormal = val_aurocs(val, logits)
        known = [value for value in (findings, abnormal) if not math.isnan(value)]
        score = sum(known) / len(known) if known else math.nan
        history.append(
            {"epoch": epoch + 1, "lr": learning_rate(config, step, steps)}
            | means
            | {"val_auroc_findings": findings, "val_auroc_abnormal": abnormal, "score": score}
            | {"seconds": round(seconds, 3), "images_per_s": round(len(train.rows) / seconds, 1)}
        )
        note = f"loss {means['loss']:.3f}, val AUROC findings {findings:.3f} abnormal {abnormal:.3f}, "
        note += f"{len(train.rows) / seconds:.0f} img/s"
        progress(step + 1, steps, f"epoch {epoch + 1}/{config.epochs} {note}")
        # First, since it alone says what is done: an epoch that is repeated must not find its own best.safetensors.
        checkpoint.save_last(
            run,
            {
                "learner": learner.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "history": history,
            },
        )
        write_epoch(run, model, history)
    draw_curves(run, history, f"{run.name} on {config.data}")


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero; a function of the step alone, so that resuming needs no state."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.inference_mode()
def val_logits(model: TwoHeadViT, val: Batches, size: int) -> FloatArray:
    """Return the logits (N, L + 1) of the validation split, "abnormal" last."""
    model.eval()
    outputs = []
    for batch in val.in_order():
        # Not in half precision: its few distinct logits would decide the best epoch by ties.
        trace = model.trace(view(batch.base, size))
        outputs.append(torch.cat([trace.findings, trace.abnormal[:, None]], dim=1))
    return torch.cat(outputs).cpu().numpy()


def val_aurocs(val: Batches, logits: FloatArray) -> tuple[float, float]:
    """Return the macro AUROC of the findings and the AUROC of normal/abnormal; NaN where no label has both classes."""
    targets = val.targets.cpu().numpy()
    each = [metrics.auroc(targets[:, c], logits[:, c]) for c in range(targets.shape[1])]
    known = [value for value in each if not math.isnan(value)]
    return (
        float(np.mean(known)) if known else math.nan,
        metrics.auroc(val.abnormal.cpu().numpy(), logits[:, -1]),
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


def draw_curves(run: Path, history: list[dict[str, Any]], title: str) -> None:
    """Draw curves.png: the losses and the validation AUROCs by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    parts = [key for key in history[0] if key == "loss" or key.startswith(("bce_", "kd_"))]
    for key in parts:
        left.plot(
            epochs, [row[key] for row in history], label=key.replace("_", " "), marker="." if len(epochs) < 30 else ""
        )
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title=title)
    for key, label in (("val_auroc_findings", "findings (macro)"), ("val_auroc_abnormal", "normal/abnormal")):
        right.plot(epochs, [row[key] for row in history], label=label, marker="." if len(epochs) < 30 else "")
    right.set(xlabel="epoch", ylabel="validation AUROC", ylim=(0.4, 1))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    atomic_write(run / "curves.png", picture.getvalue())


def check_splits(train: Batches, val: Batches, name: str) -> None:
    """Refuse a data set from which nothing can be learnt or chosen.

    Raises:
        InputError: a split is empty, or no label has both classes in the training split.
    """
    for batches, split in ((train, "train"), (val, "val")):
        if len(batches.rows) == 0:
            raise InputError(f"data set {name} has no images in its {split} split: prepare it again", "dataset")
    columns = torch.cat([train.targets, train.abnormal[:, None]], dim=1).cpu().numpy()
    if not any(min(metrics.counts(column)) for column in columns.T):
        raise InputError(
            f"every label of data set {name} has only one class in the training split: there is nothing to learn",
            "dataset",
        )
