"""What models would leave for the losses: written by hand, or drawn at random."""

from __future__ import annotations

import numpy as np
import torch

from edgecxr.distill.base import Setup
from edgecxr.models.vit import Trace


def setup(student: Trace, teacher: Trace, **weights: float) -> Setup:
    return Setup(
        student.blocks[0].shape[2], teacher.blocks[0].shape[2], len(student.blocks), len(teacher.blocks), **weights
    )


def trace(findings, abnormal, *blocks) -> Trace:
    return Trace(torch.tensor(findings), torch.tensor(abnormal), [torch.tensor(block) for block in blocks])


def by_hand() -> tuple[Trace, Trace]:
    """One film, two labels, two blocks, a class token and one patch, width 1."""
    student = trace([[1.0, 2.0]], [0.5], [[[1.0], [2.0]]], [[[3.0], [4.0]]])
    teacher = trace([[0.0, 4.0]], [2.5], [[[0.0], [0.0]]], [[[2.0], [0.0]]])
    return student, teacher


def random_trace(batch: int, labels: int, blocks: int, tokens: int, width: int, seed: int) -> Trace:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    return Trace(draw(batch, labels), draw(batch), [draw(batch, 1 + tokens, width) for _ in range(blocks)])


def arrays(trace: Trace) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    blocks = [block.detach().numpy() for block in trace.blocks]
    return trace.findings.detach().numpy(), trace.abnormal.detach().numpy(), blocks


def halved(tokens: np.ndarray) -> np.ndarray:
    """(B, 1 + 16, D) to (B, 1 + 4, D): 4 x 4 patches, row by row, to the means of 2 x 2."""
    batch, _, width = tokens.shape
    patches = tokens[:, 1:].reshape(batch, 2, 2, 2, 2, width).mean(axis=(2, 4)).reshape(batch, 4, width)
    return np.concatenate([tokens[:, :1], patches], axis=1)


def mse(ours: np.ndarray, other: np.ndarray) -> float:
    return float(((ours - other) ** 2).mean())
