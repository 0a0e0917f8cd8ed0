"""Exponential moving average of a model's weights, for `--ema`."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.device import Device


class WeightAverage:
    """Model whose weights are the moving average of another's.

    Running statistics of batch norms are averaged, too. In the first steps the average has no memory yet, so that the
    decay rises as (1 + n) / (10 + n) after n steps, until it is the wanted one (as in TensorFlow's
    ExponentialMovingAverage). It depends on the step alone, so that resuming needs no more than the average.

    Args:
        model: its weights are where the average starts.
        decay: share of the average that a step leaves, in (0, 1).
        device: where the average is kept.

    Attributes:
        model: the average, in eval mode; gradients do not reach it.
    """

    def __init__(self, model: TwoHeadViT, decay: float, device: Device) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval().to(device.torch)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: TwoHeadViT, step: int) -> None:
        """Take in the weights after a step.

        Args:
            model: has these weights.
            step: its number in the run, counted from 0.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        averages, values = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in averages.items() if value.is_floating_point()]
        get_ema_multi_avg_fn(decay)([averages[name] for name in floating], [values[name] for name in floating], None)
        for name in averages.keys() - set(floating):  # counters
            averages[name].copy_(values[name])
