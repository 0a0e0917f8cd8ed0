"""Initial weights of a model: timm's ImageNet weights, or another model's."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from edgecxr.errors import ModelError, brief
from edgecxr.models.vit import ARCHS, TwoHeadViT
from edgecxr.storage.json_values import read_json
from edgecxr.storage.reading import BadFile, open_file, size_of

_LONGEST_HEADER = 4 << 20
_BLOCK = re.compile(r"blocks\.([0-9]{1,3})\.")

PRETRAINED_TAG = "augreg_in21k_ft_in1k"

_PATCH_EMBEDDING, _FIRST_CONVOLUTION = "patch_embed.proj.weight", "patch_embed.backbone.0.weight"

_LARGEST_CONFIG = 1 << 20

_PATIENCE = 5.0
"""Seconds for an answer of the model hub."""

NORMALISATION = 0.5
"""Mean and standard deviation that models assume of an image in [0, 1], as timm's augreg weights do."""


def pretrained_state(arch: str, file: Path | None) -> dict[str, Tensor]:
    """Return ImageNet weights, or one's own, with one input channel.

    Args:
        arch: a key of `ARCHS`.
        file: safetensors file with the weights of the timm model, or with those of a run (best.safetensors), whose
            heads are left out, since nothing says of which findings they are; None downloads timm's from its hub.

    Raises:
        ModelError: the hub cannot be reached, or the file is not such a checkpoint.
    """
    name = f"{ARCHS[arch]}.{PRETRAINED_TAG}"
    if file is None:
        cached = huggingface_hub.try_to_load_from_cache(f"timm/{name}", "model.safetensors")
        file = Path(cached) if isinstance(cached, str) else None  # needs no network
    if file is None:
        try:
            _reach_hub()
            return timm.create_model(name, pretrained=True, in_chans=1, num_classes=0).state_dict()
        except Exception as error:  # the hub client, its HTTP library and sockets raise errors of their own
            raise ModelError(
                f"cannot fetch the pretrained weights {name} ({type(error).__name__}): download model.safetensors "
                f"of timm/{name} from the Hugging Face hub on a machine that reaches it and pass --pretrained FILE, or "
                "start with --init random"
            ) from error
    state = read_safetensors(file)
    _check_normalisation(file, name)
    state = {key.removeprefix("vit."): value for key, value in state.items() if "_head." not in key}
    first = next((key for key in (_FIRST_CONVOLUTION, _PATCH_EMBEDDING) if key in state), None)
    if first is None or state[first].ndim != 4:
        raise ModelError(
            f"{file} does not hold the weights of a ViT: --pretrained takes the model.safetensors of timm's {name}, or "
            "the best.safetensors of a run"
        )
    # The sum over the colour channels responds to grey like the kernel to three equal channels.
    state[first] = state[first].sum(dim=1, keepdim=True)
    return state


def _reach_hub() -> None:
    """Ask the model hub for anything, once.

    Its own client asks twelve times, for two minutes, and writes about each of them.

    Raises:
        OSError: it does not answer.
    """
    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    with suppress(urllib.error.HTTPError):  # an answer, too
        urllib.request.urlopen(request, timeout=_PATIENCE).close()


def _check_normalisation(file: Path, name: str) -> None:
    """Refuse weights that expect images of another mean and deviation.

    timm says so in the config.json beside the weights, which do not show it. A file without one is taken for that of
    `name`.

    Raises:
        ModelError: they expect another one, or the config.json cannot be read.
    """
    beside = file.with_name("config.json")
    if not beside.is_file():
        return
    try:
        config = read_json(beside, _LARGEST_CONFIG)
        config = config.get("pretrained_cfg") or config
        normalisation = {key: tuple(config[key]) for key in ("mean", "std") if key in config}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{beside} beside the weights cannot be read ({brief(error)}): remove it or repair it"
        ) from error
    if any(not values or any(value != NORMALISATION for value in values) for values in normalisation.values()):
        raise ModelError(
            f"{file} expects images with mean {normalisation.get('mean')} and standard deviation "
            f"{normalisation.get('std')} (so says {beside.name} beside it), and models of edgecxr have "
            f"{NORMALISATION} for both: take the model.safetensors of timm/{name}"
        )


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file; pickles are never loaded.

    Raises:
        ModelError: the file is missing or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_file(file) as opened:
            # The library refuses wrong offsets, after it has read a header of up to 100 MB.
            if int.from_bytes(opened.read(8), "little") > min(_LONGEST_HEADER, size_of(opened)):
                raise BadFile("its header is too long")
        return load_file(file)
    except FileNotFoundError as error:
        raise ModelError(f"{file} does not exist") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise ModelError(
            f"{file} is not a safetensors file ({brief(error)}): convert the weights to safetensors"
        ) from error


def start_from(model: TwoHeadViT, state: dict[str, Tensor], source: str) -> bool:
    """Copy a ViT's weights into `model`, resampled to its token grid.

    timm's functions resample patch and position embeddings. A model of fewer blocks gets an even selection of them, see
    `thinned`. A convolutional stem is copied from one with the same number of stages. If these numbers differ, or only
    one of the two stems is convolutional, the model keeps its own.

    Args:
        model: receives the weights; its heads keep theirs unless `state` has heads of the same shape.
        state: the weights of a timm ViT or of a `TwoHeadViT`.
        source: origin of the weights, for messages.

    Returns:
        Whether the weights of the stem or patch embedding were copied.

    Raises:
        ModelError: the weights belong to another architecture.
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
    source_stem, own_stem = _stem(body), _stem(expected)
    convolutional = any("backbone" in key for key in (*source_stem, *own_stem))
    copy_stem = not convolutional or _shapes(source_stem) == _shapes(own_stem)
    if convolutional:  # timm can resample patch embeddings only
        body = {key: value for key, value in body.items() if key not in source_stem}
    try:
        fitted = checkpoint_filter_fn(body, model.vit)
    except (RuntimeError, IndexError, ValueError) as error:  # position embeddings that cannot be resampled
        raise ModelError(
            f"the weights of {source} belong to another architecture (their embeddings cannot be resampled): "
            "choose the matching --arch and --depth"
        ) from error
    if convolutional:
        fitted |= source_stem if copy_stem else own_stem
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
    return copy_stem


def _stem(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith("patch_embed.")}


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def thinned(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return a ViT's weights with `depth` evenly spaced blocks, including the last.

    All blocks are kept if there are no more than `depth`. 6 of 12 blocks are the second, fourth ... twelfth: each is
    the last of the group that it replaces, since the next group expects its output. DistilBERT initialises its
    student in the same way (Sanh et al. 2019, section 3).

    Args:
        state: the weights of a timm ViT, blocks named "blocks.I.".
        depth: number of blocks to keep.
    """
    count = 1 + max((int(match[1]) for match in map(_BLOCK.match, state) if match), default=-1)
    if count <= depth:
        return state
    new_numbers = {(i + 1) * count // depth - 1: i for i in range(depth)}
    kept = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head != "blocks":
            kept[key] = value
            continue
        number, _, rest = rest.partition(".")
        if not _BLOCK.match(key):
            kept[key] = value
        elif int(number) in new_numbers:
            kept[f"blocks.{new_numbers[int(number)]}.{rest}"] = value
    return kept
