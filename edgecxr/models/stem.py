"""The convolutional stem that `--stem conv` uses instead of the patch embedding."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, TypeVar

from timm.layers import HybridEmbed
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgecxr.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)

LEARNED = {
    "4,628 children's films at 28 px": (0.887, 0.918),
    "the same at 224 px": (0.889, 0.930),
    "7,195 synthetic films at 28 px": (0.681, 0.751),
}
"""Training films -> test AUROC of findings after `LEARNED_EPOCHS` epochs from random weights, with a patch embedding
and with a convolutional stem: Tiny, 6 blocks, 49 tokens, one seed (benchmarks/results/evidence/stem)."""

LEARNED_EPOCHS = 10


def learned_from_random(films: int) -> str:
    """Return which stem learned faster from random weights, where it was measured.

    Args:
        films: number of training films that are to be learned from.
    """
    measured = "; ".join(f"{name} {patch:.3f} and {conv:.3f}" for name, (patch, conv) in LEARNED.items())
    return (
        f"from random weights, --stem conv learned faster than --stem patch wherever both were measured: findings' "
        f"AUROC after {LEARNED_EPOCHS} epochs, patch and conv: {measured}. Here are {films:,} training films"
    )


def stages_of(patch: int) -> int | None:
    """Return the number of halvings that make tokens of `patch` px.

    None unless `patch` is a power of two, at least 2.
    """
    return patch.bit_length() - 1 if patch > 1 and patch & (patch - 1) == 0 else None


def conv_stem(patch: int, width: int) -> Any:
    """Return the convolutional stem in the form of timm's `embed_layer`.

    It is a row of stride-2 3x3 convolutions, then a 1x1 convolution. Each 3x3 convolution halves the image and is
    followed by batch norm and GELU. The last one has `width` channels, the one before half as many, and so on:
    12-24-48-96-192 for 224 px, 7 x 7 tokens and a width of 192.

    Source: Xiao et al. 2021, "Early convolutions help transformers see better" (arXiv 2106.14881), section 4. The paper
    uses ReLU, and one transformer block less.

    Args:
        patch: side of a token in pixels of the image; a power of two.
        width: embedding dimension D; divisible by 2 ** (stages - 1).

    Raises:
        UsageError: no number of stages makes such tokens.
    """
    stages = stages_of(patch)
    if stages is None or width % (1 << stages - 1):
        raise UsageError(
            f"a convolutional stem cannot make tokens of {patch} px: each of its stages halves the image, and a width "
            f"of {width} can be halved {(width & -width).bit_length() - 1} times"
        )
    layers: list[nn.Module] = []
    channels = 1
    for stage in range(stages):
        next_channels = width >> (stages - 1 - stage)
        layers += [nn.Conv2d(channels, next_channels, 3, 2, 1, bias=False), nn.BatchNorm2d(next_channels), nn.GELU()]
        channels = next_channels
    return partial(HybridEmbed, backbone=nn.Sequential(*layers))


def without_batch_norm(model: Model) -> Model:
    """Copy a model, with its stem's batch norms fused into their convolutions.

    The model must be in eval mode.
    """
    model = copy.deepcopy(model)
    for layers in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for index, (layer, following) in enumerate(zip(list(layers), list(layers)[1:], strict=False)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                layers[index], layers[index + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return model
