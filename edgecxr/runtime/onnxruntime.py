"""ONNX Runtime behind the `Backend` protocol."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecxr.errors import MissingPackage, ModelError, UsageError
from edgecxr.runtime.types import FloatArray, Outputs

if TYPE_CHECKING:
    import onnxruntime

INPUT = "image"
OUTPUTS = ("findings", "abnormal", "attention")


class OnnxRuntimeBackend:
    """Runs an ONNX file on the CPU.

    Args:
        path: a self-contained ONNX file with the input "image" and the outputs "findings", "abnormal" and "attention".
        threads: how many threads compute; None takes the cores that this process may use.
        providers: ONNX Runtime's execution providers, in order of preference.

    Raises:
        UsageError: `threads` is less than 1.
        MissingPackage: onnxruntime is not installed, or its library does not load.
        ModelError: the file is missing, damaged, or not a model of edgecxr.
    """

    def __init__(
        self, path: Path, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"{path} cannot run on {threads} threads: give 1 or more")
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackage("onnxruntime", "", "the onnxruntime backend") from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _default_threads() if threads is None else threads
        # A transformer is a chain: a second pool for parallel branches would idle.
        options.inter_op_num_threads = 1
        # Warnings about the graph mean nothing to who runs it, and would land between the results on a terminal.
        options.log_severity_level = 3
        # The full optimisation costs 10 ms more than none for a Tiny ViT, and fuses its LayerNorm and GELU.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

        self.path = path
        if not path.is_file():
            raise ModelError(f"{path} does not exist: export the model again")
        try:
            self._session: onnxruntime.InferenceSession | None = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers)
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(
                f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__} ({_first_line(error)}): "
                "export the model again, or upgrade onnxruntime"
            ) from error
        self._shape = self._input_shape(self._session)

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or ONNX Runtime failed.
        """
        session = self._session  # another thread may close meanwhile
        if session is None:
            raise ModelError(f"{self.path} has been closed: open it again")
        self._check(images)
        try:
            findings, abnormal, attention = session.run(OUTPUTS, {INPUT: images})
        except Exception as error:
            raise ModelError(
                f"{self.path} failed on {len(images)} images ({_first_line(error)}): "
                "give fewer at a time, or export the model again"
            ) from error
        return Outputs(findings, abnormal, attention)

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _input_shape(self, session: onnxruntime.InferenceSession) -> tuple[int, ...]:
        """Return (1, S, S), after checking that the file has edgecxr's inputs and outputs."""
        inputs = {value.name: value for value in session.get_inputs()}
        outputs = {value.name for value in session.get_outputs()}
        if set(inputs) != {INPUT} or not outputs.issuperset(OUTPUTS):
            raise ModelError(
                f"{self.path} is not a model of edgecxr: it has the inputs {sorted(inputs)} and the outputs "
                f"{sorted(outputs)}; export a checkpoint with edgecxr"
            )
        shape = tuple(inputs[INPUT].shape[1:])
        if len(shape) != 3 or shape[0] != 1 or not all(isinstance(side, int) for side in shape):
            raise ModelError(f"{self.path} takes images of shape {shape}, not (1, S, S): export it with edgecxr")
        return shape

    def _check(self, images: FloatArray) -> None:
        given = images.dtype, images.shape
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            raise ModelError(
                f"{self.path} takes float32 images of shape (N, {', '.join(map(str, self._shape))}), "
                f"not {given[0]} of shape {given[1]}: resize with the size on the model's card"
            )
        # Pixels of 0 to 255 would give confident nonsense; NaN fails both comparisons.
        if not (images.min() >= 0 and images.max() <= 1):
            raise ModelError(f"{self.path} takes pixels in [0, 1], not {images.min():g} to {images.max():g}")


def _default_threads() -> int:
    # ONNX Runtime pins its default pool to all physical cores, even those that taskset or a container withholds.
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return 0 if allowed == os.cpu_count() else allowed


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
