"""Training batches: prepared images, augmented on the device, at 224 px and below.

Everything random comes from (seed, epoch), so that a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecxr.data.prepared import Prepared
from edgecxr.runtime.preprocess import BASE_SIZE

# Full strength of each augmentation; films vary in these ways between machines and patients. No flips: the heart is
# on the left.
ROTATION_DEGREES = 10.0
SHIFT = 0.05
SCALE = 0.10
GAMMA = 0.25
CONTRAST = 0.15


@dataclass
class Batch:
    """Images with their targets, on the device.

    Attributes:
        base: (B, 1, 224, 224) float32, whole numbers from 0 to 255.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.
    """

    base: Tensor
    targets: Tensor
    abnormal: Tensor


def view(base: Tensor, size: int) -> Tensor:
    """Box mean of 224 px images, bit-identical with `edgecxr.runtime.preprocess.box_mean`.

    Args:
        base: (B, 1, 224, 224) float32, whole numbers from 0 to 255.
        size: 224, 112, 56 or 28.

    Returns:
        (B, 1, size, size) float32 in [0, 1].
    """
    # Sums of whole numbers below 2^24 and the division by a power of two are exact; only the last division rounds.
    # A GPU multiplies by the reciprocal where the divisor is a Python number, so it is a tensor.
    white = torch.full((), 255.0, device=base.device)
    return (F.avg_pool2d(base, BASE_SIZE // size) if size != BASE_SIZE else base) / white


def augment(base: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Rotate, shift, scale and change the exposure; round to whole grey values again, as the device's images are.

    Args:
        base: (B, 1, 224, 224) in [0, 255].
        strength: factor on every range; 0 returns the images as they are.
        generator: a CPU generator.
    """
    if strength == 0:
        return base
    count = len(base)
    draws = (torch.rand(count, 6, generator=generator) * 2 - 1) * strength
    angle = draws[:, 0] * (ROTATION_DEGREES * np.pi / 180)
    scale = 1 + draws[:, 1] * SCALE
    shift = draws[:, 2:4] * (2 * SHIFT)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).reshape(count, 2, 3)
    gamma = (draws[:, 4] * GAMMA).exp()
    contrast = 1 + draws[:, 5] * CONTRAST
    theta, gamma, contrast = (x.to(base.device, non_blocking=True) for x in (theta, gamma, contrast))
    grid = F.affine_grid(theta, list(base.shape), align_corners=False)
    moved = F.grid_sample(base / 255, grid, align_corners=False)
    exposed = moved ** gamma.view(-1, 1, 1, 1)
    return ((exposed * contrast.view(-1, 1, 1, 1)).clamp(0, 1) * 255).round()


class Batches:
    """The images of one split, epoch by epoch.

    On a GPU the split's uint8 images are kept in its memory when they take at most half of what is free, else each
    batch is copied from the memory-mapped cache.
    """

    def __init__(self, prepared: Prepared, split: str, batch: int, device: torch.device) -> None:
        self.rows = prepared.rows(split)
        self.batch = batch
        self.device = device
        self.prepared = prepared
        self.targets = torch.from_numpy(prepared.targets[self.rows]).to(device)
        self.abnormal = torch.from_numpy(prepared.abnormal[self.rows]).to(device)
        self.resident: Tensor | None = None
        if device.type == "cuda" and len(self.rows) * BASE_SIZE**2 < torch.cuda.mem_get_info(device)[0] / 2:
            self.resident = torch.from_numpy(np.ascontiguousarray(prepared.images[self.rows])).to(device)

    def __len__(self) -> int:
        """Return the number of batches of an epoch in order."""
        return -(-len(self.rows) // self.batch)

    def shuffled(self, seed: int, epoch: int, strength: float) -> Iterator[Batch]:
        """Yield the split once in random order, augmented.

        Args:
            seed: of the run.
            epoch: counts from 0.
            strength: of the augmentation.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.rows), generator=generator)
        for chosen in order.split(self.batch):
            batch = self._take(chosen)
            yield Batch(augment(batch.base, strength, generator), batch.targets, batch.abnormal)

    def in_order(self) -> Iterator[Batch]:
        """Yield the split once, in the order of `rows`, as it is."""
        for chosen in torch.arange(len(self.rows)).split(self.batch):
            yield self._take(chosen)

    def _take(self, chosen: Tensor) -> Batch:
        on_device = chosen.to(self.device, non_blocking=True)
        if self.resident is not None:
            images = self.resident[on_device]
        else:
            images = torch.from_numpy(self.prepared.images[self.rows[chosen.numpy()]]).to(self.device)
        return Batch(images.unsqueeze(1).float(), self.targets[on_device], self.abnormal[on_device])
