"""Arithmetic in float32 as it is promised."""

from __future__ import annotations

import torch


def full_float32() -> None:
    """Let products and convolutions keep all bits of float32.

    GPUs would otherwise round their inputs to TF32's 10 bits: by default in convolutions, and in products if some other
    code asked for it. What is wanted in less precision is computed in bf16 or fp16 by `Device.autocast`.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
