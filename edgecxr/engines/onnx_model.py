"""Input checks and settings shared by the engines that read ONNX."""

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
"""An optional output, by which the quality gate recognises chest films; older models do not have it."""


def check_threads(threads: int | None) -> None:
    """Raise UsageError if the number of threads is below one."""
    if threads is not None and threads < 1:
        raise UsageError(f"a model cannot run on {threads} threads: give 1 or more")


def input_shape(path: Path, inputs: Mapping[str, Sequence[object]], outputs: Collection[str]) -> tuple[int, ...]:
    """Return the image shape (1, S, S) that a model accepts.

    Args:
        path: the model's file, for messages.
        inputs: name -> shape, the batch first; a dimension that is not an int is free.
        outputs: names of the outputs.

    Raises:
        ModelError: the names or the shape are not those of a model of edgecxr.
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
    """Return the outputs to request, in the order of `Outputs`.

    Args:
        names: all output names of the model.
    """
    return (*OUTPUTS, FEATURES) if FEATURES in names else OUTPUTS


def check_images(path: Path, images: FloatArray, shape: tuple[int, ...]) -> None:
    """Raise ModelError if a batch does not fit a model.

    Args:
        path: the model's file, for messages.
        images: expected to be (N, 1, S, S) float32 in [0, 1], N at least 1.
        shape: (1, S, S).

    Raises:
        ModelError: the batch has another type or shape, or pixels outside [0, 1].
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
    """Return the number of cores that this process may use.

    Returns:
        The number that taskset or a container leaves; None if all cores are allowed.
    """
    allowed = cores()
    return None if allowed == os.cpu_count() else allowed


def first_line(error: Exception) -> str:
    """Return the first line of an engine's error message, shortened."""
    return brief((str(error).strip() or type(error).__name__).splitlines()[0], 320)
