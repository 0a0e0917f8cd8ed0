"""The models of others: made and exported before a run, opened in the worker processes of `edgecxr.benchmark`.

Nothing imports torch before it is needed: a model on ONNX Runtime shall not be charged for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecxr.bundle.bundle import sha256_of
from edgecxr.engines.backend import Outputs
from edgecxr.errors import ModelError, brief
from edgecxr.storage.atomic import atomic_write
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    from torch import Tensor, nn

XRV = "densenet121-xrv"
XRV_WEIGHTS = "densenet121-res224-all"
PEERS = (XRV, "vit_base_patch16_224", "mobilenetv3_large_100", "efficientnet_b0")

SIDE = 224
"""Of every peer's images, in pixels."""

PIXELS = {XRV: (-1024.0, 1024.0)}
"""What black and white are to a model; [0, 1] will do for timm's, whose answers nobody reads."""


@dataclass(frozen=True)
class Peer:
    """What is known of a model of others once it is made.

    Attributes:
        name: `XRV`, or a name of timm.
        shape: (channels, S, S) of an image.
        weights: "trained" or "random".
        source: where the weights came from.
        labels: its findings; none, where it answers other questions.
        sha256: of its weights.
    """

    name: str
    shape: tuple[int, int, int]
    weights: str
    source: str
    labels: tuple[str, ...]
    sha256: str


class Opened:
    """A model of others as `edgecxr.benchmark.model_process` runs it.

    Args:
        compute: images -> outputs; either logits alone, or the three of edgecxr's models.
        pixels: what black and white are to the model.
        columns: of the logits that are wanted, in order; none takes all.
    """

    def __init__(
        self, compute: Callable[[FloatArray], Sequence[Any]], pixels: tuple[float, float], columns: Sequence[int]
    ) -> None:
        self._compute, self._columns = compute, list(columns)
        self._low, self._range = np.float32(pixels[0]), np.float32(pixels[1] - pixels[0])

    def run(self, images: FloatArray) -> Outputs:
        """Run images (N, C, S, S) float32 in [0, 1].

        A model of findings alone calls a film as abnormal as its most likely finding, and has no attention.
        """
        outputs = self._compute(images if self._range == 1 else images * self._range + self._low)
        if len(outputs) > 1:
            return Outputs(*outputs)
        logits = outputs[0][:, self._columns] if self._columns else outputs[0]
        return Outputs(logits, logits.max(axis=1), np.zeros((len(logits), 0, 0), np.float32))

    def close(self) -> None:
        """Nothing to free that the end of the process does not."""


def open_onnx(
    path: Path, threads: int, pixels: tuple[float, float] = (0.0, 1.0), columns: Sequence[int] = ()
) -> Opened:
    """Open an ONNX file in a session of ONNX Runtime with its default settings, but for the number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # what is compared computes with as many
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    return Opened(lambda images: session.run(None, {image: images}), pixels, columns)


def open_torch(
    name: str, path: Path, threads: int, pixels: tuple[float, float] = (0.0, 1.0), columns: Sequence[int] = ()
) -> Opened:
    """Open weights that `make` wrote, in torch."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    model = build(name)
    model.load_state_dict(load_file(path))

    def compute(images: FloatArray) -> list[FloatArray]:
        with torch.inference_mode():
            return [model(torch.from_numpy(images)).numpy()]

    return Opened(compute, pixels, columns)


def refuse(why: str, threads: int) -> Opened:
    """Stand for a model that could not be made: its rows say why.

    Raises:
        ModelError: always.
    """
    raise ModelError(why)


def make(name: str, folder: Path, weights_folder: Path | None, download: bool) -> Peer:
    """Write a model's weights and its ONNX file into a folder, unless they are there and no weights are asked for.

    Args:
        name: `XRV`, or a name of timm.
        folder: receives NAME.safetensors, NAME.onnx and, last, NAME.json.
        weights_folder: a folder with NAME.safetensors or NAME.pt; None, and a folder without them, leaves the weights
            random.
        download: let torchxrayvision and timm fetch the weights that are not in `weights_folder`.

    Raises:
        ModelError: a package is missing, there is no such model, its weights do not fit, or it cannot be exported.
    """
    facts = folder / f"{name}.json"
    if facts.is_file() and not weights_folder and not download:
        return _read(facts)
    model = build(name)
    state, source = _weights(name, weights_folder, download)
    from safetensors.torch import save_file

    if state is not None:
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"{source} does not fit {name}: {brief(error)}") from error
    shape = (1 if name == XRV else 3, SIDE, SIDE)
    weights = folder / f"{name}.safetensors"
    facts.unlink(missing_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    export_plainly(model, shape, folder / f"{name}.onnx")
    labels = tuple(model.targets) if name == XRV else ()  # type: ignore[arg-type]
    peer = Peer(name, shape, "random" if state is None else "trained", source, labels, sha256_of(weights))
    atomic_write(facts, json.dumps(asdict(peer), indent=1), "give another folder")
    return peer


def make_student(run: Path, file: Path) -> None:
    """Write a student of edgecxr as ONNX in the ordinary way.

    Raises:
        ModelError: the run cannot be read, or the exporter failed.
    """
    from edgecxr.train.checkpoint import load_run

    model, card = load_run(run)
    export_plainly(model, (1, card.size, card.size), file)


def export_plainly(model: nn.Module, shape: tuple[int, ...], file: Path) -> None:
    """Export a model as torch does by default, but in one file (its size is measured) and for any batch.

    Raises:
        ModelError: the exporter failed.
    """
    import torch

    try:
        torch.onnx.export(
            model, (torch.rand(2, *shape),), file, dynamic_shapes=({0: "batch"},), external_data=False, verbose=False
        )
    except Exception as error:  # the exporter raises a dozen kinds, none of them its own
        raise ModelError(
            f"torch {torch.__version__} could not export it: {type(error).__name__}: {brief(error)}"
        ) from error


def build(name: str) -> nn.Module:
    """Build a model for images of `SIDE` px with random weights, in eval mode.

    Raises:
        ModelError: there is no such model, or torchxrayvision is missing.
    """
    if name == XRV:
        return _xrv().models.DenseNet().eval()
    return _timm(name).eval()


def _timm(name: str, pretrained: bool = False) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ModelError(f"timm {timm.__version__} has no model {name}: its names are in timm.list_models()")
    create: Any = timm.create_model  # its type takes no options of a model
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    # A model that takes images of any size cannot be told one.
    return create(name, pretrained=pretrained, **({"img_size": SIDE} if fixed else {}))


def _xrv() -> Any:
    try:
        import torchxrayvision
    except ImportError as error:
        raise ModelError(
            f"torchxrayvision cannot be imported ({brief(error)}): install the dependency group peers"
        ) from error
    return torchxrayvision


def _weights(name: str, folder: Path | None, download: bool) -> tuple[dict[str, Tensor] | None, str]:
    """Return the weights of a model and where they came from; None where they stay random."""
    for file in [folder / f"{name}{ending}" for ending in (".safetensors", ".pt")] if folder else []:
        if file.is_file():
            return _state(file), file.name
    if not download:
        return None, "random"
    try:
        if name == XRV:
            # Its files are pickles of whole models, which only torchxrayvision shall load, from its own address.
            state = _xrv().models.DenseNet(weights=XRV_WEIGHTS).state_dict()
            state.pop("op_threshs", None)  # they only rescale the logits
            return state, f"torchxrayvision {XRV_WEIGHTS}"
        return _timm(name, pretrained=True).state_dict(), "timm's default weights"
    except ModelError:
        raise
    except Exception as error:  # those of two libraries, their HTTP clients and sockets
        raise ModelError(
            f"the weights of {name} cannot be downloaded ({type(error).__name__}: {brief(error)}): give a folder with "
            f"{name}.safetensors as --weights, or leave --download out"
        ) from error


def _state(file: Path) -> dict[str, Tensor]:
    """Read weights; a pickle of anything but weights is refused."""
    from edgecxr.models.weights import read_safetensors

    if file.suffix == ".safetensors":
        return read_safetensors(file)
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise whatever they happen to spell
        raise ModelError(
            f"{file} is no file of weights alone ({type(error).__name__}): save model.state_dict() as safetensors"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(f"{file} holds a {type(state).__name__}, not weights: save model.state_dict()")
    return state


def _read(file: Path) -> Peer:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Peer(**(values | {key: tuple(values[key]) for key in ("shape", "labels")}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{file} is damaged ({brief(error)}): delete it, and the model is made again") from error
