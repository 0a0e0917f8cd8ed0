"""TensorRT and TensorRT-RTX behind the `Backend` protocol: engines that `edgecxr build` made on this machine."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle import engine_record
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnx_model import INPUT, check_file, check_images, outputs_of
from edgecxr.engines.tensorrt import buffers as memory
from edgecxr.engines.tensorrt import library as libraries
from edgecxr.engines.tensorrt.buffers import Buffers, Replay
from edgecxr.engines.tensorrt.library import Library
from edgecxr.errors import EdgeCxrError, ModelError, UsageError, brief
from edgecxr.vocabulary import FloatArray

# TensorRT's own map gives classes that newer versions of numpy have removed.
_DTYPES: dict[str, Any] = {
    "FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "INT8": np.int8, "UINT8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip

_ROOM = "close what else uses the GPU; `edgecxr doctor` says more"


class TensorRTBackend:
    """Runs the engine that `edgecxr build` made of an ONNX file, on the first GPU.

    Thread-safe: calls wait for each other. From the second run with a batch size on, a CUDA graph replaces the single
    launches where TensorRT and the library of the buffers allow it.

    Args:
        path: the ONNX file in a bundle; its engine is in the folder engines/ beside it.
        threads: not for this backend.
        graphs: whether to use CUDA graphs.

    Attributes:
        path: the ONNX file.
        engine_file: the engine that runs.
        record: of the engine.

    Raises:
        UsageError: `threads` is given.
        MissingPackage: TensorRT, or a library for its buffers, is not installed.
        ModelError: there is no GPU, or no engine that was built on this machine for this file, or it does not load.
    """

    def __init__(self, path: Path, threads: int | None = None, graphs: bool = True) -> None:
        if threads is not None:
            raise UsageError("the tensorrt backend computes on the GPU: leave the number of threads out")
        self.path = path
        self._lock = threading.Lock()
        check_file(path)
        library = libraries.load_tensorrt("the tensorrt backend")
        gpu = libraries.find_gpu()
        if gpu is None:
            raise ModelError(
                f"{path} cannot run on TensorRT: there is no NVIDIA GPU that CUDA can use here (`edgecxr doctor` says "
                "more); the onnxruntime backend needs none"
            )
        self.engine_file, content, self.record = engine_record.usable(path, library.here(gpu))
        file = self.engine_file
        buffers = memory.open_buffers()
        try:
            with buffers.active():
                self._session: _Session | None = _Session(library, buffers, path, file, content, graphs)
        except BaseException as error:
            buffers.close()
            if isinstance(error, EdgeCxrError) or not isinstance(error, Exception):
                raise
            raise ModelError(f"{file} cannot be prepared to run ({brief(error)}): {_ROOM}") from error

    def run(self, images: FloatArray) -> Outputs:
        """Run any number of images, in parts where they are more than the engine takes at a time.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, TensorRT failed, or the backend has been closed.
        """
        with self._lock:
            session = self._session
            if session is None:
                raise ModelError(f"{self.path} has been closed: open it again")
            check_images(self.path, images, session.shape)
            try:
                with session.buffers.active():
                    parts = [session.run(images[i : i + session.most]) for i in range(0, len(images), session.most)]
            except EdgeCxrError:
                raise
            except Exception as error:  # each of the buffer libraries has errors of its own
                raise ModelError(f"{self.path} failed on {len(images)} images ({brief(error)}): {_ROOM}") from error
        return Outputs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def close(self) -> None:
        """Free the engine and its memory; what another thread has begun still ends well."""
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                session.close()


class _Session:
    """An engine, its memory and the graph of the batch that it ran last; used by one thread at a time.

    Attributes:
        buffers: its memory.
        shape: (1, S, S) of an image.
        least: smallest batch that the engine takes.
        most: largest batch that it takes.
    """

    def __init__(
        self, library: Library, buffers: Buffers, path: Path, file: Path, content: bytes, graphs: bool
    ) -> None:
        self.buffers = buffers
        self._library, self._path, self._graphs = library, path, graphs
        self._graph: Replay | None = None
        self._batch = self._runs = 0
        library.forget()
        again = engine_record.rebuild(path)
        self._runtime: Any = library.make(library.trt.Runtime, library.logger)
        self._engine: Any = self._runtime and self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise ModelError(f"{file} cannot be loaded ({library.said()}): {again}")
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        self._outputs = outputs_of(names)
        if names != {INPUT, *self._outputs}:
            raise ModelError(f"{file} is not a model of edgecxr: its tensors are {', '.join(sorted(names))}")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise ModelError(f"{file} finds no room on the GPU ({library.said()}): {_ROOM}")
        least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(INPUT, 0))
        self.least, self.most = int(least[0]), int(most[0])
        self.shape = tuple(int(side) for side in most[1:])
        self._host: dict[str, NDArray[Any]] = {}
        self._address: dict[str, int] = {}
        for name in (INPUT, *self._outputs):
            self._give_memory(name, file)

    def run(self, images: FloatArray) -> list[FloatArray]:
        """Return the values of the outputs, in the order of `Outputs`, for at most `most` images (n, 1, S, S)."""
        count, batch = len(images), max(len(images), self.least)
        given = self._host[INPUT][:batch]
        given[:count] = images
        given[count:] = 0
        self.buffers.to_device(self._address[INPUT], given)
        self._compute(batch)
        for name in self._outputs:
            self.buffers.to_host(self._host[name][:batch], self._address[name])
        self.buffers.synchronise()
        return [self._host[name][:count].astype(np.float32) for name in self._outputs]

    def close(self) -> None:
        """Free everything."""
        with self.buffers.active():
            self._drop_graph()
            # In this order: each needs the next to be freed.
            self._context = None
            self._engine = None
            self._runtime = None
        self._host, self._address = {}, {}
        self.buffers.close()

    def _give_memory(self, name: str, file: Path) -> None:
        """Allocate a tensor once, for the largest batch: fixed addresses are what a CUDA graph needs."""
        shape = (self.most, *(int(side) for side in tuple(self._engine.get_tensor_shape(name))[1:]))
        kind = self._engine.get_tensor_dtype(name).name
        if min(shape) < 1 or kind not in _DTYPES:
            raise ModelError(f"{file} has a tensor {name} of shape {shape} and kind {kind}: export the model again")
        self._host[name] = self.buffers.pinned(shape, _DTYPES[kind])
        self._address[name] = self.buffers.alloc(math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize)
        if not self._context.set_tensor_address(name, self._address[name]):
            raise ModelError(f"{file} refuses the memory for {name} ({self._library.said()}): {_ROOM}")

    def _compute(self, batch: int) -> None:
        if batch != self._batch:
            self._drop_graph()  # it is of the other shape
            self._batch = self._runs = 0
            self._library.forget()
            if not self._context.set_input_shape(INPUT, (batch, *self.shape)):
                raise ModelError(f"{self._path} takes no batch of {batch} ({self._library.said()})")
            self._batch = batch
        # The first run with a shape may prepare what a graph must not record.
        if self._graph is None and self._graphs and self._runs == 1:
            self._graph = self._captured()
            self._graphs = self._graph is not None
        if self._graph is not None:
            self._graph.run()
        else:
            self._enqueue()
        self._runs += 1

    def _captured(self) -> Replay | None:
        capturable = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX compiles while it runs
        if capturable is not None and not capturable(self.buffers.stream):
            return None
        try:
            return self.buffers.capture(self._enqueue)
        except Exception:  # without a graph it is only slower
            return None

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.buffers.stream):
            raise ModelError(
                f"{self._path} failed on TensorRT ({self._library.said()}): {engine_record.rebuild(self._path)}"
            )

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()
