"""Advice about a batch that does not fit into memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from edgecxr.train.batches import Batch
from edgecxr.train.device import Device

_WORDS = ("not enough memory", "out of memory", "ALLOC_FAILED")


def is_exhausted(error: BaseException) -> bool:
    """Return whether torch, or a library that it calls, lacked memory.

    Most libraries have no error type for it, so the text of the error decides.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


def advice(step_of: nn.Module, batch: Batch, device: Device) -> str:
    """Return the message about the batch that fits, after trying smaller ones."""
    where = f"memory of {device.torch}"
    if any(isinstance(module, nn.SyncBatchNorm) for module in step_of.modules()):
        # The batch norms of a trial would wait for the other processes, which do not run it.
        half = len(batch.base) * device.fabric.world_size // 2
        return f"a batch does not fit into the {where}: try --batch {half}"
    count = _largest(step_of, batch, device)
    if count is None:
        return f"not even one image fits into the {where} in a training step: take another --device or a smaller --arch"
    ranks = device.fabric.world_size
    per_process = f" ({count} for each of {ranks} processes)" if ranks > 1 else ""
    return f"a batch does not fit into the {where}: --batch {count * ranks}{per_process} does, as tried just now"


def _largest(step_of: nn.Module, batch: Batch, device: Device) -> int | None:
    """Return the largest half, quarter ... of a batch that fits.

    The step and its gradients must fit. None if not even one image does.
    """
    learner = getattr(step_of, "module", step_of)  # without DistributedDataParallel: other processes do not run this
    count = len(batch.base) // 2
    while count:
        part = replace(batch, base=batch.base[:count], targets=batch.targets[:count], abnormal=batch.abnormal[:count])
        if _fits(learner, part, device):
            return count
        count //= 2
    return None


def _fits(learner: nn.Module, batch: Batch, device: Device) -> bool:
    if device.torch.type == "cuda":
        torch.cuda.empty_cache()
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    try:
        # AdamW keeps two more values for each weight from the first step on.
        allocated = [torch.zeros_like(parameter) for parameter in trained for _ in range(2)]
        with device.autocast():
            loss = learner(batch)["loss"]
        # Not backward(): DistributedDataParallel's hooks would wait for the other processes.
        allocated += [
            gradient for gradient in torch.autograd.grad(loss, trained, allow_unused=True) if gradient is not None
        ]
        device.synchronize()
        return True
    except RuntimeError as error:
        if not is_exhausted(error):
            raise
        return False
