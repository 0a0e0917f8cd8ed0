"""OpenVINO behind the `Backend` protocol, on the CPU."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

    The model is compiled for one image alone, and for any number of images when such a batch first comes. With all
    shapes known, a small model takes about a tenth less time. Each of the two holds weights of its own, laid out for
    its products.

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
        self._lock = threading.Lock()  # of compiling
        self._closed = False
        self._compiled: dict[bool, _Compiled] = {}  # whether it is for one image alone -> the model
        self._of_batch(1)

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or OpenVINO failed.
        """
        if self._closed:
            raise ModelError(f"{self.path} has been closed: open it again")
        check_images(self.path, images, self._shape)
        compiled = self._of_batch(len(images))
        try:
            try:
                request = compiled.idle.pop()
            except IndexError:
                request = compiled.model.create_infer_request()
            with watchdog.watched_run(self.path, len(images), compiled.largest):
                results = request.infer({INPUT: images})
            outputs = Outputs(*(results[name] for name in self._outputs))
        except Exception as error:
            raise ModelError(
                f"{self.path} failed on {len(images)} images ({_reason(error)}): "
                "give fewer at a time, or export the model again"
            ) from error
        compiled.largest = max(compiled.largest, len(images))
        if not self._closed:
            compiled.idle.append(request)
        return outputs

    def _of_batch(self, count: int) -> _Compiled:
        """Return the model compiled for batches of `count`.

        Raises:
            ModelError: OpenVINO cannot compile it, or it has been closed.
        """
        alone = count == 1
        compiled = self._compiled.get(alone)  # without the lock: the other one may be compiled just now
        if compiled is not None:
            return compiled
        with self._lock:
            if alone not in self._compiled:
                if self._graph is None:
                    raise ModelError(f"{self.path} has been closed: open it again")
                self._compiled[alone] = self._compile(self._graph, alone)
                if len(self._compiled) == 2:
                    self._graph = None  # its weights are no longer needed
            return self._compiled[alone]

    def _compile(self, graph: openvino.Model, alone: bool) -> _Compiled:
        import openvino

        with _loading(self.path):
            if alone:
                graph = graph.clone()
                graph.reshape([1, *self._shape])
            return _Compiled(openvino.Core().compile_model(graph, "CPU", self._config))

    def close(self) -> None:
        """Free the model; runs in other threads still finish."""
        with self._lock:
            self._closed, self._graph = True, None
            self._compiled.clear()


@dataclass
class _Compiled:
    """A compiled model.

    Attributes:
        model: OpenVINO's.
        idle: requests that nobody uses, as many as there were concurrent runs; each holds the memory of one run.
        largest: number of images in the largest batch that has come back.
    """

    model: openvino.CompiledModel
    idle: list[openvino.InferRequest] = field(default_factory=list)
    largest: int = 0


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
