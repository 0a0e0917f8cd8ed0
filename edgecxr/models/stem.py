"""The convolutional stem: what an image passes instead of the patch embedding where `--stem conv` asks for it."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, TypeVar

from timm.layers import HybridEmbed
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgecxr.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)


def stages_of(patch: int) -> int | None:
    """Return how many halvings make one token of `patch` px; None where no number of at least one does."""
    return patch.bit_length() - 1 if patch > 1 and patch & (patch - 1) == 0 else None


def conv_stem(patch: int, width: int) -> Any:
    """Return what timm's ViT takes as `embed_layer`: stride-2 3x3 convolutions, then a 1x1 convolution.

    Each stage halves the image and is followed by batch norm and GELU; the last has `width` channels, the one before
    half as many, and so on: 12-24-48-96-192 for 224 px, 7 x 7 tokens and a width of 192. Source: Xiao et al. 2021,
    "Early convolutions help transformers see better" (arXiv 2106.14881), section 4, which has ReLU and leaves out one
    transformer block.

    Args:
        patch: pixels of the image's side for each token; a power of two.
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
        wider = width >> (stages - 1 - stage)
        layers += [nn.Conv2d(channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.GELU()]
        channels = wider
    return partial(HybridEmbed, backbone=nn.Sequential(*layers))


def without_batch_norm(model: Model) -> Model:
    """Return a copy of a model in eval mode, the batch norms of its stem made part of the convolutions before them."""
    model = copy.deepcopy(model)
    for layers in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, after) in enumerate(zip(list(layers), list(layers)[1:], strict=False)):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(layer, after), nn.Identity()
    return model
