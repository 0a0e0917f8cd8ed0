"""OpenVINO behind the `Backend` protocol, on the CPU."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

    The model is compiled when it is needed: for one image alone, and for any number of images. With all shapes known, a
    small model takes a tenth less time. Each holds weights of its own, laid out for its products.

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
            import openvino  # noqa: F401
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise MissingPackage("openvino", "openvino", "the openvino backend") from error
        # By default, OpenVINO computes in bfloat16 if the CPU can, which is less precise than FP32.
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        threads = allowed_cores() if threads is None else threads
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        self.path, self._config = path, config
        with _loading(path):
            # Given only a path, OpenVINO would try to read a damaged file as every other kind of model too.
            reader = FrontEndManager().load_by_framework("onnx")
            self._graph: openvino.Model | None = reader.convert(reader.load(io.BytesIO(model.content)))
        self._shape = _shape(path, self._graph)
        self._outputs = outputs_of({name for port in self._graph.outputs for name in port.names})
        self._lock = threading.Lock()
        # Whether it is for one image alone -> the compiled model, and its idle requests. Each request holds the memory
        # of one run; the list grows to the number of concurrent runs.
        self._compiled: dict[bool, tuple[openvino.CompiledModel, list[openvino.InferRequest]]] = {}
        self._largest = 0  # batch that has come back
        self._of_batch(1)

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or OpenVINO failed.
        """
        if self._graph is None:
            raise ModelError(f"{self.path} has been closed: open it again")
        check_images(self.path, images, self._shape)
        compiled, idle = self._of_batch(len(images))
        try:
            try:
                request = idle.pop()
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
        if self._graph is not None:
            idle.append(request)
        return outputs

    def _of_batch(self, count: int) -> tuple[openvino.CompiledModel, list[openvino.InferRequest]]:
        """Return the model compiled for batches of `count`, and its idle requests.

        Raises:
            ModelError: OpenVINO cannot compile it, or it has been closed.
        """
        import openvino

        alone = count == 1
        with self._lock:  # another thread may compile or close it meanwhile
            if self._graph is None:
                raise ModelError(f"{self.path} has been closed: open it again")
            if alone not in self._compiled:
                with _loading(self.path):
                    graph = self._graph
                    if alone:
                        graph = graph.clone()
                        graph.reshape([1, *self._shape])
                    self._compiled[alone] = openvino.Core().compile_model(graph, "CPU", self._config), []
            return self._compiled[alone]

    def close(self) -> None:
        """Free the model; runs in other threads still finish."""
        with self._lock:
            self._graph = None
            self._compiled.clear()


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Turn what OpenVINO raises while it loads a model into a ModelError."""
    import openvino

    try:
        with watchdog.watched(path, watchdog.LOADING):
            yield
    except Exception as error:  # OpenVINO raises RuntimeError and its subclasses, of several modules
        raise ModelError(
            f"{path} cannot be loaded by OpenVINO {openvino.__version__} ({_reason(error)}): "
            "export the model again, or upgrade openvino"
        ) from error


def _shape(path: Path, graph: openvino.Model) -> tuple[int, ...]:
    inputs = {
        port.any_name: [side.get_length() if side.is_static else None for side in port.partial_shape]
        for port in graph.inputs
    }
    return input_shape(path, inputs, [name for port in graph.outputs for name in port.names])


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's error message: the reason.

    The lines before it only give positions in OpenVINO's sources.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    return brief(lines[-1], 320) if lines else type(error).__name__
