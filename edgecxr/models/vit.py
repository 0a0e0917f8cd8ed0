"""A timm ViT with two heads: findings (multi-label) and normal/abnormal (one logit)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.errors import UsageError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.models.split_attention import SplitAttention
from edgecxr.models.stem import conv_stem

ARCHS = {"tiny": "vit_tiny_patch16_224", "small": "vit_small_patch16_224", "base": "vit_base_patch16_224"}
WIDTHS = {"tiny": 192, "small": 384, "base": 768}
"""Embedding dimension D of each architecture."""

GRID_OF_TOKENS = {196: 14, 49: 7, 16: 4}
"""Number of patch tokens -> side of the token grid."""


@dataclass
class Trace:
    """Outputs of a forward pass that the losses need.

    Attributes:
        findings: (B, L) logits.
        abnormal: (B,) logits.
        blocks: residual stream after each block, before the final norm; (B, 1 + T, D) each, class token first.
    """

    findings: Tensor
    abnormal: Tensor
    blocks: list[Tensor]


class TwoHeadViT(nn.Module):
    """Vision transformer over one-channel square images in [0, 1].

    Args:
        arch: a key of `ARCHS`.
        size: side of the image in pixels.
        patch: side of a patch, in pixels of the image that the blocks see; divides the side of that image.
        labels: number of findings.
        depth: number of blocks, at least 2 (the attention map reads the input of the last one).
        input: "native" cuts the image into patches as it is; "upsample" enlarges it to 224 px first (bilinear).
        stem: "patch" embeds each patch by one linear map; "conv" makes as many tokens with `edgecxr.models.stem`.

    Attributes:
        grid: side of the square grid of patch tokens.
        width: embedding dimension D.
        depth: number of blocks.
    """

    def __init__(
        self,
        arch: str,
        size: int,
        patch: int,
        labels: int,
        depth: int = 12,
        input: str = "native",
        stem: str = "patch",
    ) -> None:
        super().__init__()
        if arch not in ARCHS:
            raise UsageError(f"unknown architecture {arch!r} (there are: {', '.join(ARCHS)})")
        self.side = input_side(size, input)
        if self.side % patch:
            raise UsageError(f"a {self.side} px image has no whole number of {patch} px patches")
        if depth < 2:
            raise UsageError(f"a depth of {depth} is too small: at least 2 blocks")
        self.grid = self.side // patch
        self.depth = depth
        embedding: dict[str, Any] = {"patch_size": patch}
        if stem == "conv":
            embedding = {"patch_size": 1, "embed_layer": conv_stem(patch, WIDTHS[arch])}
        vit: Any = timm.create_model(
            ARCHS[arch], img_size=self.side, in_chans=1, num_classes=0, depth=depth, weight_init="jax", **embedding
        )
        # With random position embeddings and timm's default (small) linear weights, an untrained ViT learns positions
        # very slowly; these initial values are those of Beyer et al., "Better plain ViT baselines".
        with torch.no_grad():
            vit.pos_embed[:, 0] = 0
            vit.pos_embed[:, 1:] = build_sincos2d_pos_embed([self.grid, self.grid], dim=vit.embed_dim)
        self.vit = vit
        self.width: int = vit.embed_dim
        self.findings_head = nn.Linear(self.width, labels)
        self.abnormal_head = nn.Linear(self.width, 1)

    def trace(self, images: Tensor) -> Trace:
        """Run the model and keep every block's output.

        Args:
            images: (B, 1, S, S) in [0, 1].
        """
        final, blocks = self.vit.forward_intermediates(self._input(images), output_fmt="NLC", return_prefix_tokens=True)
        findings, abnormal = self._heads(final[:, 0])
        return Trace(
            findings=findings,
            abnormal=abnormal,
            blocks=[torch.cat([prefix, patches], dim=1) for patches, prefix in blocks],
        )

    def _input(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.side:
            images = F.interpolate(images, self.side, mode="bilinear", align_corners=False)
        # The normalisation is part of the model, so that no caller can normalise differently.
        return (images - 0.5) / 0.5

    def _heads(self, token: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_autocast_enabled(token.device.type):
            # Distillation compares logits; half precision would round them to a few distinct values.
            with torch.autocast(token.device.type, enabled=False):
                return self._heads(token.float())
        return self.findings_head(token), self.abnormal_head(token).squeeze(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits of both tasks, attention and features.

        Features are the output of the first block, averaged over the patches of each quarter of the image. They still
        tell a chest from other images; later blocks forget what does not matter to the findings.

        Args:
            images: (B, 1, S, S) in [0, 1].

        Returns:
            Findings (B, L) logits, abnormal (B,) logits, attention (B, g, g) and features (B, 4 D), where g is `grid`
            and D is `width`.
        """
        intermediates = self.vit.forward_intermediates(
            self._input(images),
            indices=sorted({0, self.depth - 2}),
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
            stop_early=True,
        )
        features = self._quarters(intermediates[0][0])
        patches, prefix = intermediates[-1]
        token, weights = self._last_block(torch.cat([prefix, patches], dim=1))
        findings, abnormal = self._heads(self.vit.norm(token)[:, 0])
        row = weights[:, :, 0, 1:].sum(dim=1)
        attention = (row / row.sum(dim=1, keepdim=True)).reshape(-1, self.grid, self.grid)
        return findings, abnormal, attention, features

    def _quarters(self, patches: Tensor) -> Tensor:
        """Average patch tokens over the quarters of the image.

        A middle row or column of the grid belongs to both halves.

        Args:
            patches: (B, T, D).

        Returns:
            (B, 4 D).
        """
        grid = patches.transpose(1, 2).reshape(-1, self.width, self.grid, self.grid)
        means = F.avg_pool2d(grid, (self.grid + 1) // 2, max(1, self.grid // 2))
        return means.reshape(-1, self.width * means.shape[2] * means.shape[3])

    def _last_block(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the last block for the class token only.

        Nothing uses its output for the patches, so most of the block is left out: of its 12 D^2 multiplications per
        patch, only the 2 D^2 of keys and values remain.

        Args:
            tokens: (B, 1 + T, D), the block's input.

        Returns:
            The class token (B, 1, D), and its attention to all tokens (B, heads, 1, 1 + T).
        """
        block: Any = self.vit.blocks[-1]
        attn = block.attn
        token = tokens[:, :1]
        # Normalise the class token separately: sliced after the norm, it would be quantised twice in INT8.
        first, all_tokens = block.norm1(token), block.norm1(tokens)
        if isinstance(attn, SplitAttention):
            query, keys, values = attn.heads("q", first), attn.heads("k", all_tokens), attn.heads("v", all_tokens)
        else:
            query, keys, values = self._of_joint_weights(attn, first, all_tokens)
        query, keys = attn.q_norm(query), attn.k_norm(keys)
        weights = ((query * attn.scale) @ keys.transpose(-2, -1)).softmax(dim=-1)
        attended = attn.proj((weights @ values).transpose(1, 2).reshape(tokens.shape[0], 1, self.width))
        token = token + block.ls1(attended)
        return token + block.ls2(block.mlp(block.norm2(token))), weights

    def _of_joint_weights(self, attn: Any, first: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, keys and values of timm's joint product.

        Returns:
            The query (B, heads, 1, D / heads), and keys and values (B, heads, 1 + T, D / heads).
        """
        batch, count, _ = tokens.shape
        width = self.width  # a plain number, so that exporters can slice the weights in advance
        weight, bias = attn.qkv.weight, attn.qkv.bias
        query = F.linear(first, weight[:width], bias[:width]).reshape(batch, 1, attn.num_heads, attn.head_dim)
        stacked = F.linear(tokens, weight[width:], bias[width:])
        keys, values = stacked.reshape(batch, count, 2, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return query.transpose(1, 2), keys, values


def input_side(size: int, input: str) -> int:
    """Return the side in pixels of the image that the blocks see.

    Patches are cut from that image: for input "upsample" it is enlarged to 224 px, otherwise it has `size` px.
    """
    return BASE_SIZE if input == "upsample" else size


class ModelSettings(Protocol):
    """Settings of a model in a card or in a run's configuration.

    They are the arguments of `TwoHeadViT`.
    """

    @property
    def arch(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def patch(self) -> int: ...  # noqa: D102
    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def input(self) -> str: ...  # noqa: D102
    @property
    def stem(self) -> str: ...  # noqa: D102


def build(described: ModelSettings, labels: int) -> TwoHeadViT:
    """Build the untrained model that a card or a configuration describes."""
    return TwoHeadViT(
        described.arch,
        described.size,
        described.patch,
        labels,
        described.depth,
        input=described.input,
        stem=described.stem,
    )
