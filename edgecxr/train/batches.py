"""Training batches: prepared images, augmented on the device, at 448 px and below.

Everything random comes from (seed, epoch) and is drawn for the whole epoch at once, on the CPU: a resumed run sees what
an uninterrupted one would have seen, any number of processes sees what one would, and no step waits for a transfer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecxr.data.prepared import Prepared
from edgecxr.films.resize import BASE_SIZE
from edgecxr.train.device import Device

# Full strength of each augmentation; films vary in these ways between machines and patients. No flips: the heart is
# on the left.
ROTATION_DEGREES = 10.0
SHIFT = 0.05
SCALE = 0.10
GAMMA = 0.25
CONTRAST = 0.15
DRAWS = 6

READ_AHEAD = 2
"""Batches that are read from the cache while the device is busy, where the images do not fit on it."""


@dataclass
class Batch:
    """Images with their targets, on the device: this process's part of a global batch.

    Attributes:
        base: (B, 1, 224, 224), or 448 where a model sees so much, float32, whole numbers from 0 to 255.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.
        known: (2,) the known targets of the global batch, of findings and of abnormal, each at least 1, over the number
            of processes; None counts those of this batch alone.
        weight: of a mean over this batch, so that the average of all processes is the mean over the global batch.
    """

    base: Tensor
    targets: Tensor
    abnormal: Tensor
    known: Tensor | None = None
    weight: float = 1.0


def view(base: Tensor, size: int) -> Tensor:
    """Box mean of 224 px images, bit-identical with `edgecxr.films.resize.box_mean`.

    Of 448 px images the means of 2 x 2 pixels, rounded half up, stand for the 224 px images: within a grey level of
    those that `to_base` makes of a large film; of a film that had to be enlarged they differ more.

    Args:
        base: (B, 1, S, S) float32, whole numbers from 0 to 255; S is 224 or 448.
        size: 448 where S is, 224, 112, 56 or 28.

    Returns:
        (B, 1, size, size) float32 in [0, 1].
    """
    # Sums of whole numbers below 2^24 and the division by a power of two are exact; only the last division rounds.
    # A GPU multiplies by the reciprocal where the divisor is a Python number, so it is a tensor.
    white = torch.full((), 255.0, device=base.device)
    if size <= BASE_SIZE < base.shape[-1]:
        base = (F.avg_pool2d(base, base.shape[-1] // BASE_SIZE) + 0.5).floor()
    return (F.avg_pool2d(base, base.shape[-1] // size) if size != base.shape[-1] else base) / white


def augment(base: Tensor, draws: Tensor) -> Tensor:
    """Rotate, shift, scale and change the exposure; round to whole grey values again, as the device's images are.

    Args:
        base: (B, 1, S, S) in [0, 255].
        draws: (B, 6) on the same device; in [-1, 1] at full strength.
    """
    angle = draws[:, 0] * (ROTATION_DEGREES * np.pi / 180)
    scale = 1 + draws[:, 1] * SCALE
    cos, sin, right, down = (
        value.view(-1, 1, 1)
        for value in (angle.cos() * scale, angle.sin() * scale, *(draws[:, 2:4] * (2 * SHIFT)).unbind(dim=1))
    )
    gamma = (draws[:, 4] * GAMMA).exp().view(-1, 1, 1, 1)
    contrast = (1 + draws[:, 5] * CONTRAST).view(-1, 1, 1, 1)
    # What F.affine_grid gives, which on a CPU takes as long as all the rest of this.
    side = base.shape[-1]
    centres = (torch.arange(side, device=base.device) * 2 + 1) / side - 1
    x, y = centres.view(1, 1, -1), centres.view(1, -1, 1)
    grid = torch.stack([cos * x - sin * y + right, sin * x + cos * y + down], dim=-1)
    moved = F.grid_sample(base / 255, grid, align_corners=False)
    return ((moved**gamma * contrast).clamp(0, 1) * 255).round()


class Batches:
    """The images of one split, epoch by epoch; of several processes each gets its part of every batch.

    On a GPU the split's uint8 images are kept in its memory when they take at most half of what is free; else they are
    read from the memory-mapped cache ahead of time, through pinned memory.

    Args:
        prepared: the data set.
        split: its name.
        batch: images in a global batch.
        device: of the batches.
        rank: of this process.
        ranks: number of processes.
        size: of the largest images that are wanted of a batch; 448 takes those of the data set.

    Raises:
        InputError: a size of 448, and a data set without such images; reason "dataset".
    """

    def __init__(
        self,
        prepared: Prepared,
        split: str,
        batch: int,
        device: torch.device,
        rank: int = 0,
        ranks: int = 1,
        size: int = BASE_SIZE,
    ) -> None:
        self.rows = prepared.rows(split)
        self.batch = batch
        self.device = device
        self.rank, self.ranks = rank, ranks
        self.images = prepared.images_for(size)
        self.targets = torch.from_numpy(prepared.targets[self.rows])
        self.abnormal = torch.from_numpy(prepared.abnormal[self.rows])
        self._on_device = (self.targets.to(device), self.abnormal.to(device))
        # A CPU has no time left over to read in.
        self.read_ahead = READ_AHEAD if device.type == "cuda" else 0
        self.resident: Tensor | None = None
        count = len(self.rows) * self.images.shape[-1] ** 2
        if device.type == "cuda" and count < torch.cuda.mem_get_info(device)[0] / 2:
            self.resident = torch.from_numpy(np.ascontiguousarray(self.images[self.rows])).to(device)

    def __len__(self) -> int:
        """Return the number of global batches of an epoch."""
        return -(-len(self.rows) // self.batch)

    def shuffled(self, seed: int, epoch: int, strength: float) -> Generator[Batch, None, None]:
        """Yield this process's part of every batch of an epoch, in random order, augmented.

        Args:
            seed: of the run.
            epoch: counts from 0.
            strength: factor on every range of the augmentation; 0 leaves the images as they are.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.rows), generator=generator)
        draws = ((torch.rand(len(order), DRAWS, generator=generator) * 2 - 1) * strength).to(self.device)
        known = self._known(order).to(self.device)
        parts, places, weights = [], [], []
        for place in torch.arange(len(order)).split(self.batch):
            mine = place[self.rank :: self.ranks]
            weights.append(len(mine) * self.ranks / len(place))
            places.append(mine if len(mine) else place[:1])
            parts.append(order[places[-1]])
        moves = draws[torch.cat(places).to(self.device)].split([len(part) for part in parts])
        for batch, count, move, weight in zip(self._batches(parts), known, moves, weights, strict=True):
            batch.known, batch.weight = count, weight
            if strength:
                batch.base = augment(batch.base, move)
            if not weight:
                # A last batch of fewer images than there are processes: all must take part in the step, and the image
                # that this one borrows counts for nothing.
                batch.targets, batch.abnormal = batch.targets * torch.nan, batch.abnormal * torch.nan
            yield batch

    def in_order(self) -> Iterator[Batch]:
        """Yield every `ranks`-th image from the `rank`-th on, as it is; the last again, where it comes out uneven."""
        count = -(-len(self.rows) // self.ranks)
        mine = (torch.arange(count) * self.ranks + self.rank).clamp(max=max(0, len(self.rows) - 1))
        yield from self._batches(list(mine.split(max(1, self.batch // self.ranks))))

    def _known(self, order: Tensor) -> Tensor:
        """Return (steps, 2), `Batch.known` of every batch."""
        known = torch.stack([(~self.targets.isnan()).sum(dim=1), ~self.abnormal.isnan()], dim=1)[order]
        counts = torch.stack([part.sum(dim=0) for part in known.split(self.batch)])
        return counts.clamp(min=1) / self.ranks

    def _batches(self, parts: list[Tensor]) -> Iterator[Batch]:
        """Yield the images of each part, (B,) places in `rows`."""
        targets, abnormal = self._on_device
        chosen = torch.cat(parts).to(self.device).split([len(part) for part in parts])
        for places, images in zip(chosen, self._images(parts, chosen), strict=True):
            yield Batch(images.unsqueeze(1).float(), targets[places], abnormal[places])

    def _images(self, parts: list[Tensor], chosen: tuple[Tensor, ...]) -> Iterator[Tensor]:
        if self.resident is not None:
            yield from (self.resident[places] for places in chosen)
            return
        if not self.read_ahead:
            yield from map(self._read, parts)
            return
        with ThreadPoolExecutor(1, "read-ahead") as reader:
            waiting = deque(reader.submit(self._read, part) for part in parts[: self.read_ahead])
            for index in range(len(parts)):
                images = waiting.popleft().result()
                if index + self.read_ahead < len(parts):
                    waiting.append(reader.submit(self._read, parts[index + self.read_ahead]))
                yield images.to(self.device, non_blocking=True)

    def _read(self, part: Tensor) -> Tensor:
        images = torch.from_numpy(self.images[self.rows[part.numpy()]])
        return images.pin_memory() if self.device.type == "cuda" else images


def open_batches(
    prepared: Prepared, batch: int, device: Device, size: int, teacher_size: int = BASE_SIZE
) -> tuple[Batches, Batches]:
    """Return this process's part of the training and the validation split; a teacher sees the training split only."""
    place = (batch, device.torch, device.fabric.global_rank, device.fabric.world_size)
    return Batches(prepared, "train", *place, max(size, teacher_size)), Batches(prepared, "val", *place, size)
