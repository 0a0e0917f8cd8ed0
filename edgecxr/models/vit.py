"""A timm ViT with two heads: findings (multi-label) and normal/abnormal (one logit)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from edgecxr.errors import ModelError, UsageError
from edgecxr.films.resize import BASE_SIZE
from edgecxr.models.stem import conv_stem

ARCHS = {"tiny": "vit_tiny_patch16_224", "small": "vit_small_patch16_224", "base": "vit_base_patch16_224"}
WIDTHS = {"tiny": 192, "small": 384, "base": 768}
"""Embedding dimension D of each architecture."""

PRETRAINED_TAG = "augreg_in21k_ft_in1k"

GRID_OF_TOKENS = {196: 14, 49: 7, 16: 4}
"""Number of patch tokens -> side of the token grid."""


@dataclass
class Trace:
    """What a forward pass leaves for the losses.

    Attributes:
        findings: (B, L) logits.
        abnormal: (B,) logits.
        blocks: the residual stream after each block, before the final norm, (B, 1 + T, D) each, class token first.
    """

    findings: Tensor
    abnormal: Tensor
    blocks: list[Tensor]


class TwoHeadViT(nn.Module):
    """Vision transformer over one-channel square images in [0, 1].

    Args:
        arch: a key of `ARCHS`.
        size: side of the image in pixels.
        patch: side of a patch in pixels, of what the blocks see; divides its side.
        labels: number of findings.
        depth: number of blocks, at least 2 (the attention map reads the input of the last one).
        input: "native" cuts the image into patches as it is; "upsample" enlarges it to 224 px first (bilinear).
        stem: "patch" embeds each patch by one linear map; "conv" makes as many tokens by `edgecxr.models.stem`.

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
        self.seen = seen_size(size, input)
        if self.seen % patch:
            raise UsageError(f"a {self.seen} px image has no whole number of {patch} px patches")
        if depth < 2:
            raise UsageError(f"a depth of {depth} is too small: at least 2 blocks")
        self.grid = self.seen // patch
        self.depth = depth
        embedding: dict[str, Any] = {"patch_size": patch}
        if stem == "conv":
            embedding = {"patch_size": 1, "embed_layer": conv_stem(patch, WIDTHS[arch])}
        vit: Any = timm.create_model(
            ARCHS[arch], img_size=self.seen, in_chans=1, num_classes=0, depth=depth, weight_init="jax", **embedding
        )
        # A ViT that starts from random weights learns where things lie very slowly from random position embeddings and
        # timm's default (small) linear weights; these starts are those of Beyer et al., "Better plain ViT baselines".
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
        if images.shape[-1] != self.seen:
            images = F.interpolate(images, self.seen, mode="bilinear", align_corners=False)
        # The normalisation is part of the model, so that nobody can feed it differently normalised pixels.
        return (images - 0.5) / 0.5

    def _heads(self, token: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_autocast_enabled(token.device.type):
            # Distillation compares logits, which half precision would round to a few distinct values.
            with torch.autocast(token.device.type, enabled=False):
                return self._heads(token.float())
        return self.findings_head(token), self.abnormal_head(token).squeeze(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return findings (B, L) logits, abnormal (B,) logits, attention (B, g, g) and features (B, 4 D).

        Features are the output of the first block, averaged over the patches of each quarter of the image: there they
        still tell a chest from what else there is; later blocks forget what does not matter to the findings.

        Args:
            images: (B, 1, S, S) in [0, 1].
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
        """Average patch tokens (B, T, D) over the quarters of the image, (B, 4 D); a middle row belongs to both."""
        grid = patches.transpose(1, 2).reshape(-1, self.width, self.grid, self.grid)
        means = F.avg_pool2d(grid, (self.grid + 1) // 2, max(1, self.grid // 2))
        return means.reshape(-1, self.width * means.shape[2] * means.shape[3])

    def _last_block(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the last block for the class token alone, since nobody reads what it makes of the patches.

        That leaves out most of the block: of its 12 D^2 multiplications per patch, two keys' and values' remain.

        Args:
            tokens: (B, 1 + T, D), the block's input.

        Returns:
            The class token (B, 1, D), and its attention to all tokens (B, heads, 1, 1 + T).
        """
        block: Any = self.vit.blocks[-1]
        attn = block.attn
        batch, count, _ = tokens.shape
        width = self.width  # a plain number, so that the exporters can cut the weights beforehand
        token = tokens[:, :1]
        weight, bias = attn.qkv.weight, attn.qkv.bias
        # Normalised once more on its own: cut out behind the norm, it would be quantised twice at INT8.
        query = F.linear(block.norm1(token), weight[:width], bias[:width])
        query = query.reshape(batch, 1, attn.num_heads, attn.head_dim)
        pairs = F.linear(block.norm1(tokens), weight[width:], bias[width:])
        keys, values = pairs.reshape(batch, count, 2, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        query, keys = attn.q_norm(query.transpose(1, 2)), attn.k_norm(keys)
        weights = ((query * attn.scale) @ keys.transpose(-2, -1)).softmax(dim=-1)
        mixed = attn.proj((weights @ values).transpose(1, 2).reshape(batch, 1, width))
        token = token + block.ls1(mixed)
        return token + block.ls2(block.mlp(block.norm2(token))), weights


def seen_size(size: int, input: str) -> int:
    """Return the side in pixels of the image that is cut into patches, for an image of `size` px."""
    return BASE_SIZE if input == "upsample" else size


class Described(Protocol):
    """What a card and the settings of a run say of a model, as `TwoHeadViT` takes it."""

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


def build(described: Described, labels: int) -> TwoHeadViT:
    """Build the (untrained) model that a card or the settings of a run describe."""
    return TwoHeadViT(
        described.arch,
        described.size,
        described.patch,
        labels,
        described.depth,
        input=described.input,
        stem=described.stem,
    )


def pretrained_state(arch: str, file: Path | None) -> dict[str, Tensor]:
    """Return timm's ImageNet weights for `arch`, with one input channel.

    Args:
        arch: a key of `ARCHS`.
        file: a safetensors file with the weights of the timm model; None fetches them from timm's model hub.

    Raises:
        ModelError: the hub cannot be reached, or the file is not such a checkpoint.
    """
    name = f"{ARCHS[arch]}.{PRETRAINED_TAG}"
    if file is None:
        try:
            return timm.create_model(name, pretrained=True, in_chans=1, num_classes=0).state_dict()
        except Exception as error:  # the hub client raises its own, its HTTP library's and the socket's errors
            raise ModelError(
                f"cannot fetch the pretrained weights {name} ({type(error).__name__}): download model.safetensors "
                f"of timm/{name} from the Hugging Face hub on a machine that reaches it and pass --pretrained FILE, or "
                "start with --init random"
            ) from error
    state = read_safetensors(file)
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4:
        raise ModelError(
            f"{file} does not hold the weights of a timm ViT: --pretrained takes the model.safetensors of {name}"
        )
    # Summing the colour channels gives the response to a grey image, which has three equal channels.
    state["patch_embed.proj.weight"] = kernel.sum(dim=1, keepdim=True)
    return state


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file; pickles are never loaded.

    Raises:
        ModelError: missing or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise ModelError(f"{file} does not exist") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is not a safetensors file ({error}): convert the weights to safetensors") from error


def start_from(model: TwoHeadViT, state: dict[str, Tensor], source: str) -> bool:
    """Copy a ViT's weights into `model`, resampling patch and position embeddings to its grid (timm's functions).

    A model of fewer blocks takes every second, third ... of them. A convolutional stem is taken from one of as many
    stages; where there is none, or where only one of the two is convolutional, the model keeps the stem that it has.

    Args:
        model: receives the weights; its heads keep theirs unless `state` has heads of the same shape.
        state: the weights of a timm ViT, or of a `TwoHeadViT`.
        source: where they came from, for messages.

    Returns:
        Whether the weights of the stem, or of the patch embedding, were taken along.

    Raises:
        ModelError: they are weights of another architecture.
    """
    body = {
        key.removeprefix("vit."): value for key, value in state.items() if not key.startswith(("head.", "fc_norm."))
    }
    heads = {key: body.pop(key) for key in list(body) if "_head." in key}
    for key, value in model.state_dict().items():
        if key in heads and heads[key].shape == value.shape:
            value.copy_(heads[key])
    body = thinned(body, model.depth)
    expected = model.vit.state_dict()
    theirs, ours = _stem(body), _stem(expected)
    convolutional = any("backbone" in key for key in (*theirs, *ours))
    taken = not convolutional or _shapes(theirs) == _shapes(ours)
    if convolutional:  # timm resamples patch embeddings, and knows no other
        body = {key: value for key, value in body.items() if key not in theirs}
    try:
        fitted = checkpoint_filter_fn(body, model.vit)
    except (RuntimeError, IndexError, ValueError) as error:  # position embeddings of a kind that cannot be resampled
        raise ModelError(
            f"the weights of {source} belong to another architecture (their embeddings cannot be resampled): "
            "choose the matching --arch and --depth"
        ) from error
    if convolutional:
        fitted |= theirs if taken else ours
    wrong = sorted(
        key for key in expected.keys() | fitted.keys()
        if key not in expected or key not in fitted or expected[key].shape != fitted[key].shape
    )  # fmt: skip
    if wrong:
        raise ModelError(
            f"the weights of {source} belong to another architecture ({len(wrong)} tensors differ, first {wrong[0]}): "
            "choose the matching --arch and --depth"
        )
    model.vit.load_state_dict(fitted)
    return taken


def _stem(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("patch_embed.")}


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def thinned(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return a ViT's weights with `depth` of its blocks, evenly chosen, the last among them; all, where it has fewer.

    Of 12 blocks, 6 are the second, fourth ... twelfth: each stands for a group of blocks and takes the place of its
    last, whose output is what the following group expects (DistilBERT starts its student in the same way; Sanh et al.
    2019, section 3).

    Args:
        state: the weights of a timm ViT, blocks named "blocks.I.".
        depth: number of blocks to keep.
    """
    there = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
    if there <= depth:
        return state
    places = {(i + 1) * there // depth - 1: i for i in range(depth)}
    kept = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head != "blocks":
            kept[key] = value
            continue
        number, _, rest = rest.partition(".")
        if int(number) in places:
            kept[f"blocks.{places[int(number)]}.{rest}"] = value
    return kept
