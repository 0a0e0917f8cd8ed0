"""Training batches of prepared images, augmented on the device.

The images have 448 px or less. All random numbers depend on (seed, epoch) and are drawn on the CPU for a whole epoch at
once. So a resumed run sees the same images as an uninterrupted one, several processes see the same as a single one, and
no step waits for a transfer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgecxr.data.prepared import Prepared
from edgecxr.errors import UsageError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.train.device import Device

# Full strength of each augmentation; radiographs vary like this between machines and patients. No flips, since the
# heart is on the left.
ROTATION_DEGREES = 10.0
SHIFT = 0.05
SCALE = 0.10
GAMMA = 0.25
CONTRAST = 0.15
DRAWS = 6

COPY = 512
"""Images that are copied to a GPU at a time, to be kept there."""

READ_AHEAD = 2
"""Batches to read from the cache while the device is busy, if the images do not fit on it."""


@dataclass
class Batch:
    """Images with their targets on the device.

    They are this process's part of a global batch.

    Attributes:
        base: (B, 1, 224, 224), or 448 if a model sees 448 px images, float32, whole numbers from 0 to 255.
        targets: (B, L) in [0, 1] or NaN.
        abnormal: (B,) in [0, 1] or NaN.
        label_counts: (2,) numbers of known targets of the global batch, of findings and of abnormal, each at least 1,
            divided by the number of processes; None counts those of this batch alone.
        weight: factor for a mean over this batch, so that the average of all processes is the mean over the global
            batch.
    """

    base: Tensor
    targets: Tensor
    abnormal: Tensor
    label_counts: Tensor | None = None
    weight: float = 1.0


def view(base: Tensor, size: int) -> Tensor:
    """Shrink images by box means, and scale them to [0, 1].

    From 224 px images the result is bit-identical with `edgecxr.films.resize.box_mean`. 448 px images are first shrunk
    to 224 px by means of 2 x 2 pixels, rounded half up, unless 448 px are wanted. These are within one grey level of
    the 224 px images that `to_base` makes of a large radiograph. They differ more if the radiograph had to be enlarged.

    Args:
        base: (B, 1, S, S) float32, whole numbers from 0 to 255; S is 224 or 448.
        size: 448 (only if S is 448), 224, 112, 56 or 28.

    Returns:
        (B, 1, size, size) float32 in [0, 1].
    """
    # Sums of whole numbers below 2^24 and division by a power of two are exact; only the last division rounds.
    # The divisor is a tensor, since a GPU would multiply by the reciprocal of a Python number.
    white = torch.full((), 255.0, device=base.device)
    if size <= BASE_SIZE < base.shape[-1]:
        base = (F.avg_pool2d(base, base.shape[-1] // BASE_SIZE) + 0.5).floor()
    return (F.avg_pool2d(base, base.shape[-1] // size) if size != base.shape[-1] else base) / white


def augment(base: Tensor, draws: Tensor) -> Tensor:
    """Rotate, shift and scale images, and change their exposure.

    The result is rounded to whole grey values again, like the images on the device.

    Args:
        base: (B, 1, S, S) in [0, 255].
        draws: (B, 6) on the same device; in [-1, 1] at full strength.
    """
    angle = draws[:, 0] * (ROTATION_DEGREES * np.pi / 180)
    scale = 1 + draws[:, 1] * SCALE
    cos, sin, shift_x, shift_y = (
        value.view(-1, 1, 1)
        for value in (angle.cos() * scale, angle.sin() * scale, *(draws[:, 2:4] * (2 * SHIFT)).unbind(dim=1))
    )
    gamma = (draws[:, 4] * GAMMA).exp().view(-1, 1, 1, 1)
    contrast = (1 + draws[:, 5] * CONTRAST).view(-1, 1, 1, 1)
    # Same as F.affine_grid, which takes as long on a CPU as the rest of this function.
    side = base.shape[-1]
    centres = (torch.arange(side, device=base.device) * 2 + 1) / side - 1
    x, y = centres.view(1, 1, -1), centres.view(1, -1, 1)
    grid = torch.stack([cos * x - sin * y + shift_x, sin * x + cos * y + shift_y], dim=-1)
    moved = F.grid_sample(base / 255, grid, align_corners=False)
    return ((moved**gamma * contrast).clamp(0, 1) * 255).round()


class Batches:
    """Images of one split, epoch by epoch.

    If there are several processes, each gets its part of every batch. On a GPU the split's uint8 images are kept in its
    memory if they need at most half of what is free. Otherwise they are read ahead of time from the memory-mapped
    cache, through pinned memory.

    Args:
        prepared: the data set.
        split: name of the split.
        batch: number of images in a global batch.
        device: device of the batches.
        rank: number of this process.
        ranks: number of processes.
        size: side of the largest images that are needed, in pixels; 448 uses the 448 px images of the data set.

    Raises:
        InputError: the size is 448 and the data set has no such images; reason "dataset".
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
        # A busy CPU has no time for reading ahead.
        self.read_ahead = READ_AHEAD if device.type == "cuda" else 0
        self.resident: Tensor | None = None
        count = len(self.rows) * self.images.shape[-1] ** 2
        if device.type == "cuda" and count < torch.cuda.mem_get_info(device)[0] / 2:
            self.resident = resident_images(self.images, self.rows, device)

    def __len__(self) -> int:
        """Return the number of global batches of an epoch."""
        return -(-len(self.rows) // self.batch)

    def shuffled(self, seed: int, epoch: int, strength: float) -> Generator[Batch, None, None]:
        """Yield this process's part of every batch of an epoch.

        The images are in random order and augmented.

        Args:
            seed: seed of the run.
            epoch: counts from 0.
            strength: factor on every range of the augmentation; 0 leaves the images as they are.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.rows), generator=generator)
        draws = ((torch.rand(len(order), DRAWS, generator=generator) * 2 - 1) * strength).to(self.device)
        label_counts = self._label_counts(order).to(self.device)
        batch_indices, batch_positions, weights = [], [], []
        for positions in torch.arange(len(order)).split(self.batch):
            own = positions[self.rank :: self.ranks]
            weights.append(len(own) * self.ranks / len(positions))
            batch_positions.append(own if len(own) else positions[:1])
            batch_indices.append(order[batch_positions[-1]])
        batch_draws = draws[torch.cat(batch_positions).to(self.device)].split(
            [len(indices) for indices in batch_indices]
        )
        for batch, count, image_draws, weight in zip(
            self._batches(batch_indices), label_counts, batch_draws, weights, strict=True
        ):
            batch.label_counts, batch.weight = count, weight
            if strength:
                batch.base = augment(batch.base, image_draws)
            if not weight:
                # The last batch has fewer images than there are processes. All must join the step, so this process
                # borrows an image that does not count.
                batch.targets, batch.abnormal = batch.targets * torch.nan, batch.abnormal * torch.nan
            yield batch

    def in_order(self) -> Iterator[Batch]:
        """Yield this process's images, in order and not augmented.

        They are every `ranks`-th image from the `rank`-th on. If they do not come out even, the last one is
        repeated.
        """
        count = -(-len(self.rows) // self.ranks)
        own = (torch.arange(count) * self.ranks + self.rank).clamp(max=max(0, len(self.rows) - 1))
        yield from self._batches(list(own.split(max(1, self.batch // self.ranks))))

    def _label_counts(self, order: Tensor) -> Tensor:
        """Return `Batch.known` of every batch, as (steps, 2)."""
        has_label = torch.stack([(~self.targets.isnan()).sum(dim=1), ~self.abnormal.isnan()], dim=1)[order]
        counts = torch.stack([part.sum(dim=0) for part in has_label.split(self.batch)])
        return counts.clamp(min=1) / self.ranks

    def _batches(self, batch_indices: list[Tensor]) -> Iterator[Batch]:
        """Yield one batch for each tensor of indices.

        The tensors have shape (B,) and index `rows`.
        """
        targets, abnormal = self._on_device
        on_device = torch.cat(batch_indices).to(self.device).split([len(indices) for indices in batch_indices])
        for places, images in zip(on_device, self._images(batch_indices, on_device), strict=True):
            yield Batch(images.unsqueeze(1).float(), targets[places], abnormal[places])

    def _images(self, batch_indices: list[Tensor], on_device: tuple[Tensor, ...]) -> Iterator[Tensor]:
        if self.resident is not None:
            yield from (self.resident[places] for places in on_device)
            return
        if not self.read_ahead:
            yield from map(self._read, batch_indices)
            return
        with ThreadPoolExecutor(1, "read-ahead") as reader:
            waiting = deque(reader.submit(self._read, indices) for indices in batch_indices[: self.read_ahead])
            for step in range(len(batch_indices)):
                images = waiting.popleft().result()
                if step + self.read_ahead < len(batch_indices):
                    waiting.append(reader.submit(self._read, batch_indices[step + self.read_ahead]))
                yield images.to(self.device, non_blocking=True)

    def _read(self, indices: Tensor) -> Tensor:
        images = torch.from_numpy(self.images[self.rows[indices.numpy()]])
        return images.pin_memory() if self.device.type == "cuda" else images


def resident_images(images: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> Tensor:
    """Return chosen images in a device's memory.

    They are copied part by part, so that several processes do not each hold all of them in the machine's memory.

    Args:
        images: (N, S, S), mapped from the disk.
        rows: (n,) indices of the images.
        device: where they go.
    """
    copied = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), COPY):
        part = rows[start : start + COPY]
        copied[start : start + len(part)].copy_(torch.from_numpy(images[part]))
    return copied


def open_batches(
    prepared: Prepared, batch: int, device: Device, size: int, teacher_size: int = BASE_SIZE
) -> tuple[Batches, Batches]:
    """Return this process's part of the training and validation splits.

    The teacher sees the training split only, so `teacher_size` does not change the validation images.
    """
    common = (batch, device.torch, device.fabric.global_rank, device.fabric.world_size)
    return Batches(prepared, "train", *common, max(size, teacher_size)), Batches(prepared, "val", *common, size)


def with_labels(prepared: Prepared, count: int | None, taught: bool) -> Prepared:
    """Return the data set with labels of some training films only.

    Patients are taken in an order that no seed changes, so that fewer labelled films are always among more. The films
    of the last patient may make it a few more than `count`.

    Args:
        prepared: the data set.
        count: number of training films that keep their labels; None: all.
        taught: whether a teacher has something to say of films without labels; otherwise these are left out.

    Raises:
        UsageError: fewer training films have labels.
    """
    if count is None:
        return prepared
    rows = prepared.rows("train")
    has_label = ~np.isnan(np.column_stack([prepared.targets[rows], prepared.abnormal[rows]])).all(axis=1)
    if count > has_label.sum():
        raise UsageError(
            f"--labelled {count}: data set {prepared.name} has {has_label.sum()} training films with labels"
        )
    patients, place = np.unique(prepared.patients[rows], return_inverse=True)
    turn = np.random.default_rng(0).permutation(len(patients))[place]
    films = np.bincount(turn, has_label).cumsum()
    hidden = rows[turn > np.searchsorted(films, count)]
    if not taught:
        splits = prepared.splits.astype(object)
        splits[hidden] = "unlabelled"
        return replace(prepared, splits=splits.astype(np.str_))
    targets, abnormal = prepared.targets.copy(), prepared.abnormal.copy()
    targets[hidden], abnormal[hidden] = np.nan, np.nan
    return replace(prepared, targets=targets, abnormal=abnormal)
