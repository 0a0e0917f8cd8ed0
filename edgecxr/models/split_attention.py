"""Attention with separate products for query, key and value.

TensorRT multiplies them as one INT8 product only if the file does not slice their joint result: of a joint product it
converts the weights to FP16 at every run.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class SplitAttention(nn.Module):
    """Self-attention of a timm block, whose joint weights are split in three.

    Args:
        attn: a timm `Attention` without normalised queries and keys.
    """

    def __init__(self, attn: Any) -> None:
        super().__init__()
        width = attn.qkv.in_features
        for index, name in enumerate("qkv"):
            part = nn.Linear(width, width)
            part.weight = nn.Parameter(attn.qkv.weight[index * width : (index + 1) * width].detach().clone())
            part.bias = nn.Parameter(attn.qkv.bias[index * width : (index + 1) * width].detach().clone())
            self.add_module(name, part)
        self.proj, self.q_norm, self.k_norm = attn.proj, attn.q_norm, attn.k_norm
        self.num_heads, self.head_dim, self.scale = attn.num_heads, attn.head_dim, attn.scale

    def heads(self, name: str, tokens: Tensor) -> Tensor:
        """Multiply tokens by the weights of "q", "k" or "v".

        Args:
            name: which of them.
            tokens: (B, T, D).

        Returns:
            (B, heads, T, D / heads).
        """
        batch, count, _ = tokens.shape
        product: Tensor = self.get_submodule(name)(tokens)
        return product.reshape(batch, count, self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, tokens: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Attend from all tokens to all tokens.

        Args:
            tokens: (B, T, D).
            attn_mask: None; timm's blocks pass it.
            is_causal: False; timm's blocks pass it.

        Returns:
            (B, T, D).
        """
        query, keys = self.q_norm(self.heads("q", tokens)), self.k_norm(self.heads("k", tokens))
        weights = ((query * self.scale) @ keys.transpose(-2, -1)).softmax(dim=-1)
        attended = (weights @ self.heads("v", tokens)).transpose(1, 2)
        joined: Tensor = self.proj(attended.reshape(tokens.shape[0], tokens.shape[1], self.num_heads * self.head_dim))
        return joined


def with_split_attention(model: Model) -> Model:
    """Copy a model, with a `SplitAttention` in each block."""
    model = copy.deepcopy(model)
    blocks: Any = model.get_submodule("vit.blocks")
    for block in blocks:
        block.attn = SplitAttention(block.attn)
    return model
