"""Attention with separate products gives what the joint one gives."""

from __future__ import annotations

import pytest
import torch

from edgecxr.models.split_attention import SplitAttention, with_split_attention
from edgecxr.models.vit import TwoHeadViT


@pytest.mark.parametrize("arch", ["tiny", "small"])
def test_a_model_with_split_attention_answers_as_before(arch: str) -> None:
    torch.manual_seed(0)
    model = TwoHeadViT(arch, 28, 4, labels=3, depth=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    split = with_split_attention(model)
    assert not any(isinstance(module, SplitAttention) for module in model.modules())
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        for output, expected in zip(split(images), model(images), strict=True):
            assert torch.allclose(output, expected, atol=1e-5)
    assert sum(parameter.numel() for parameter in split.parameters()) == sum(
        parameter.numel() for parameter in model.parameters()
    )
