"""Where a model's weights come from: timm's ImageNet weights, or those of another model."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from edgecxr.errors import ModelError
from edgecxr.models.vit import ARCHS, TwoHeadViT

PRETRAINED_TAG = "augreg_in21k_ft_in1k"


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
