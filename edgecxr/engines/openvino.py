"""OpenVINO behind the `Backend` protocol, on the CPU."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines import watchdog
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnx_model import (
    INPUT,
    allowed_cores,
    check_images,
    check_threads,
    input_shape,
    outputs_of,
)
from edgecxr.errors import MissingPackage, ModelError, brief
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    import openvino


class OpenVinoBackend:
    """A thread-safe OpenVINO backend for FP32 and Q/DQ ONNX files.

    Args:
        path: an ONNX file of edgecxr, read or to be read, with the input "image" and the outputs "findings",
            "abnormal" and "attention"; "features" is optional.
        threads: number of threads; None uses the cores that this process may use.

    Raises:
        UsageError: `threads` is less than 1.
        MissingPackage: openvino is not installed, or its library does not load.
        ModelError: the file is missing, damaged, or not a model of edgecxr.
    """

    def __init__(self, path: Path | ModelFile, threads: int | None = None) -> None:
        check_threads(threads)
        model = ModelFile.of(path)
        path = model.path
        try:
            import openvino
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise MissingPackage("openvino", "openvino", "the openvino backend") from error
        # By default, OpenVINO computes in bfloat16 if the CPU can, which is less precise than FP32.
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        threads = allowed_cores() if threads is None else threads
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self.path = path
        try:
            # Given only a path, OpenVINO would try to read a damaged file as every other kind of model too.
            reader = FrontEndManager().load_by_framework("onnx")
            with watchdog.watched(path, watchdog.LOADING):
                graph = reader.convert(reader.load(io.BytesIO(model.content)))
                self._compiled: openvino.CompiledModel | None = openvino.Core().compile_model(graph, "CPU", config)
        except Exception as error:  # OpenVINO raises RuntimeError and its subclasses, of several modules
            raise ModelError(
                f"{path} cannot be loaded by OpenVINO {openvino.__version__} ({_reason(error)}): "
                "export the model again, or upgrade openvino"
            ) from error
        self._shape = _shape(path, self._compiled)
        self._outputs = outputs_of({name for port in self._compiled.outputs for name in port.names})
        # Each request holds the memory of one run; the list grows to the number of concurrent runs.
        self._free: list[openvino.InferRequest] = []
        self._largest = 0  # batch that has come back

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or OpenVINO failed.
        """
        compiled = self._compiled  # another thread may call close() meanwhile
        if compiled is None:
            raise ModelError(f"{self.path} has been closed: open it again")
        check_images(self.path, images, self._shape)
        try:
            try:
                request = self._free.pop()
            except IndexError:
                request = compiled.create_infer_request()
            with watchdog.watched_run(self.path, len(images), self._largest):
                results = request.infer({INPUT: images})
            outputs = Outputs(*(results[name] for name in self._outputs))
        except Exception as error:
            raise ModelError(
                f"{self.path} failed on {len(images)} images ({_reason(error)}): "
                "give fewer at a time, or export the model again"
            ) from error
        self._largest = max(self._largest, len(images))
        if self._compiled is not None:
            self._free.append(request)
        return outputs

    def close(self) -> None:
        """Free the model; runs in other threads still finish."""
        self._compiled = None
        self._free.clear()


def _shape(path: Path, compiled: openvino.CompiledModel) -> tuple[int, ...]:
    inputs = {
        port.any_name: [side.get_length() if side.is_static else None for side in port.partial_shape]
        for port in compiled.inputs
    }
    return input_shape(path, inputs, [name for port in compiled.outputs for name in port.names])


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's error message: the reason.

    The lines before it only give positions in OpenVINO's sources.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return brief(lines[-1], 320) if lines else type(error).__name__
