"""What the engines that read an ONNX file share: its names and shapes, the images that fit it, the threads it gets."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.machine.cores import cores
from edgecxr.vocabulary import FloatArray

INPUT = "image"
OUTPUTS = ("findings", "abnormal", "attention")
FEATURES = "features"
"""One more output, by which the quality gate tells chest films; models of before do not have it."""


def check_file(path: Path) -> None:
    """Raise ModelError where there is no such file."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist: export the model again")


def check_threads(path: Path, threads: int | None) -> None:
    """Raise UsageError where a model shall compute with less than one thread."""
    if threads is not None and threads < 1:
        raise UsageError(f"{path} cannot run on {threads} threads: give 1 or more")


def input_shape(path: Path, inputs: Mapping[str, Sequence[object]], outputs: Collection[str]) -> tuple[int, ...]:
    """Return the shape (1, S, S) of the images that a model takes.

    Args:
        path: the model's file, for messages.
        inputs: name -> shape, the batch first; what is not an int is a free dimension.
        outputs: their names.

    Raises:
        ModelError: the names or the shape are not those of edgecxr.
    """
    if set(inputs) != {INPUT} or not set(outputs).issuperset(OUTPUTS):
        raise ModelError(
            f"{path} is not a model of edgecxr: it has the inputs {sorted(inputs)} and the outputs {sorted(outputs)}; "
            "export a checkpoint with edgecxr"
        )
    shape = tuple(inputs[INPUT][1:])
    sides = tuple(side for side in shape if isinstance(side, int))
    if len(shape) != 3 or sides != shape or sides[0] != 1:
        raise ModelError(f"{path} takes images of shape {shape}, not (1, S, S): export it with edgecxr")
    return sides


def outputs_of(names: Collection[str]) -> tuple[str, ...]:
    """Return the outputs that are asked for, in the order of `Outputs`, of a model whose outputs are called `names`."""
    return (*OUTPUTS, FEATURES) if FEATURES in names else OUTPUTS


def check_images(path: Path, images: FloatArray, shape: tuple[int, ...]) -> None:
    """Refuse a batch that a model does not take.

    Args:
        path: the model's file, for messages.
        images: what should be (N, 1, S, S) float32 in [0, 1], N at least 1.
        shape: (1, S, S).

    Raises:
        ModelError: it has another type or shape, or pixels outside [0, 1].
    """
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ModelError(
            f"{path} takes float32 images of shape (N, {', '.join(map(str, shape))}), "
            f"not {images.dtype} of shape {images.shape}: resize with the size on the model's card"
        )
    # Pixels of 0 to 255 would give confident nonsense; NaN fails both comparisons.
    if not (images.min() >= 0 and images.max() <= 1):
        raise ModelError(f"{path} takes pixels in [0, 1], not {images.min():g} to {images.max():g}")


def allowed_cores() -> int | None:
    """Return how many cores taskset or a container has left this process; None where it may use all."""
    allowed = cores()
    return None if allowed == os.cpu_count() else allowed


def first_line(error: Exception) -> str:
    """Return the beginning of what an engine said."""
    return brief((str(error).strip() or type(error).__name__).splitlines()[0], 320)
