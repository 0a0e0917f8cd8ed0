"""The loops that throughput.py times: `edgecxr distill` itself, and the same training written down plainly."""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import adjust_gamma

from edgecxr.data.prepared import Prepared
from edgecxr.distill.base import Setup, supervised
from edgecxr.distill.mlcak import Mlcak
from edgecxr.films.resize import BASE_SIZE
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train import checkpoint, run_training
from edgecxr.train.batches import CONTRAST, GAMMA, ROTATION_DEGREES, SCALE, SHIFT
from edgecxr.train.config import patch_of
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace


class Loop:
    """The same training, written down plainly: a step from images to new weights.

    Args:
        args: describe the student.
        teacher_run: a finished teacher.
        device: where and in which arithmetic.
    """

    def __init__(self, args: argparse.Namespace, teacher_run: Path, device: Device) -> None:
        self.device = device
        self.teacher, card = checkpoint.load_run(teacher_run)
        self.teacher.requires_grad_(False).to(device.torch)
        self.labels = len(card.labels)
        self.student = TwoHeadViT(args.arch, args.res, patch_of(args.res, args.tokens), self.labels, args.depth)
        widths, depths = (self.student.width, self.teacher.width), (self.student.depth, self.teacher.depth)
        self.method = Mlcak(Setup(*widths, *depths))
        learner = nn.ModuleList([self.student, self.method]).to(device.torch)
        groups = param_groups_weight_decay(learner, 0.01)
        self.optimizer = torch.optim.AdamW(groups, lr=5e-4, fused=device.torch.type == "cuda")
        self.scaler = device.scaler()

    def step(self, small: Tensor, large: Tensor, targets: Tensor, abnormal: Tensor) -> None:
        """Take one step.

        Args:
            small: (B, 1, res, res) in [0, 1], on the device as all of them.
            large: (B, 1, 224, 224) in [0, 1].
            targets: (B, L).
            abnormal: (B,).
        """
        with self.device.autocast():
            trace = self.student.trace(small)
            with torch.no_grad():
                taught = self.teacher.trace(large)
            losses = supervised(trace, targets, abnormal)
            loss = losses["bce_findings"] + losses["bce_abnormal"] + self.method(trace, taught)["distillation"]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Films(Dataset):
    """Prepared training films, each moved and exposed anew by torchvision, over the ranges of `train.batches`."""

    def __init__(self, prepared: Prepared) -> None:
        self.file = prepared.path / "images.npy"
        self.rows = prepared.rows("train")
        self.targets, self.abnormal = prepared.targets, prepared.abnormal
        self.move = v2.RandomAffine(
            ROTATION_DEGREES,
            translate=(SHIFT, SHIFT),
            scale=(1 - SCALE, 1 + SCALE),
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        self.expose = v2.ColorJitter(brightness=CONTRAST)  # a factor on the grey values, as in `augment`

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """(N, 224, 224), mapped by each worker for itself: a map that is sent to it would be copied."""
        return np.load(self.file, mmap_mode="r")

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, NDArray[np.float32], np.float32]:
        """Return an image (1, 224, 224) uint8, its findings (L,) and abnormal."""
        row = self.rows[index]
        moved = self.move(torch.from_numpy(self.images[row].copy()).unsqueeze(0))
        gamma = math.exp(GAMMA * (2 * torch.rand(()).item() - 1))
        return self.expose(adjust_gamma(moved, gamma)), self.targets[row], self.abnormal[row]


def distilled(
    workspace: Workspace,
    prepared: Prepared,
    settings: dict[str, Any],
    device: str,
    shares: list[float],
    compiled: bool = False,
) -> float:
    """Run `edgecxr distill`; return the seconds of its last epoch and append the share of them that waited for data."""
    run = run_training.distill(workspace, prepared, settings, None, device, fresh=True, compiled=compiled)
    with (run / "history.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    shares.append(float(last["data_share"]))
    return float(last["seconds"])


def bare(loop: Loop, args: argparse.Namespace) -> float:
    """Run the bare loop; return the seconds of its second epoch."""
    batch = made_up(loop, args)

    def epoch() -> None:
        for _ in range(args.steps):
            loop.step(*batch)

    return second(epoch, loop.device)


def plain(loop: Loop, loader: DataLoader[Any], args: argparse.Namespace) -> float:
    """Run the loop around a DataLoader; return the seconds of its second epoch."""

    def epoch() -> None:
        for parts in loader:
            images, targets, abnormal = (part.to(loop.device.torch, non_blocking=True) for part in parts)
            large = images.float() / 255
            loop.step(F.avg_pool2d(large, BASE_SIZE // args.res), large, targets, abnormal)

    return second(epoch, loop.device)


def second(epoch: Callable[[], None], device: Device) -> float:
    """Run an epoch twice and return the seconds of the second time."""
    epoch()
    device.synchronize()
    start = time.perf_counter()
    epoch()
    device.synchronize()
    return time.perf_counter() - start


def made_up(loop: Loop, args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `Loop.step` takes, at random, on the device."""
    there = loop.device.torch
    large = torch.rand(args.batch, 1, BASE_SIZE, BASE_SIZE, device=there)
    targets, abnormal = torch.rand(args.batch, loop.labels, device=there), torch.rand(args.batch, device=there)
    return F.avg_pool2d(large, BASE_SIZE // args.res), large, targets, abnormal


def operations(loop: Loop, args: argparse.Namespace) -> int:
    """Return the floating-point operations of a step's products: teacher forward, student forward and backward."""
    # Spelt out, attention is products of matrices; of its fused kernels not all are counted, and some compute twice.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loop.step(*made_up(loop, args))
    return int(counter.get_total_flops())
