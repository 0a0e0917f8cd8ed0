"""TensorRT and TensorRT-RTX behind the `Backend` protocol.

They run only engines that `edgecxr build` made on this machine.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle import engine_record
from edgecxr.bundle.engine_record import EngineRecord
from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnx_model import INPUT, check_images, outputs_of
from edgecxr.engines.tensorrt import buffers as memory
from edgecxr.engines.tensorrt import library as libraries
from edgecxr.engines.tensorrt.buffers import Buffers, Replay
from edgecxr.engines.tensorrt.layer_types import Layer
from edgecxr.engines.tensorrt.layers import inspected
from edgecxr.engines.tensorrt.library import Library
from edgecxr.errors import EdgeCxrError, ModelError, UsageError, brief
from edgecxr.vocabulary import FloatArray

# TensorRT's own map uses classes that newer versions of NumPy have removed.
_DTYPES: dict[str, Any] = {
    "FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "INT8": np.int8, "UINT8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip

_ROOM = "close what else uses the GPU; `edgecxr doctor` says more"


class TensorRTBackend:
    """A thread-safe backend for the engine of an ONNX file.

    It runs the engine that `edgecxr build` made, on the first GPU. Concurrent calls wait for each other. From the
    second run with a batch size on, a CUDA graph replaces the single launches if TensorRT and the buffer library allow
    it. A single image has its own optimisation profile and its own graph.

    Args:
        path: the ONNX file in a bundle, read or to be read; its engine is in the folder engines/ beside it.
        threads: must be None, because this backend computes on the GPU.
        graphs: whether to use CUDA graphs.
        built: path, content and record of an engine that was just built and is about to be checked; None runs the one
            that `edgecxr build` recorded.

    Attributes:
        path: the ONNX file.
        engine_file: the engine that runs.
        record: the record of the engine.

    Raises:
        UsageError: `threads` is given.
        MissingPackage: TensorRT, or a library for its buffers, is not installed.
        ModelError: there is no GPU, no engine was built on this machine for this file, or it does not load.
    """

    def __init__(
        self,
        path: Path | ModelFile,
        threads: int | None = None,
        graphs: bool = True,
        built: tuple[Path, bytes, EngineRecord] | None = None,
    ) -> None:
        if threads is not None:
            raise UsageError("the tensorrt backend computes on the GPU: leave the number of threads out")
        model = ModelFile.of(path)
        self.path = path = model.path
        self._lock = threading.Lock()
        library = libraries.load_tensorrt("the tensorrt backend")
        gpu = libraries.find_gpu()
        if gpu is None:
            raise ModelError(
                f"{path} cannot run on TensorRT: there is no NVIDIA GPU that CUDA can use here (`edgecxr doctor` says "
                "more); the onnxruntime backend needs none"
            )
        self.engine_file, content, self.record = built or engine_record.usable(model, library.here(gpu))
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
        """Run any number of images, in batches that fit the engine.

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
                    batches = [session.run(images[i : i + session.most]) for i in range(0, len(images), session.most)]
            except EdgeCxrError:
                raise
            except Exception as error:  # each buffer library has its own exceptions
                raise ModelError(f"{self.path} failed on {len(images)} images ({brief(error)}): {_ROOM}") from error
        return Outputs(*(np.concatenate(columns) for columns in zip(*batches, strict=True)))

    def layers(self) -> list[Layer] | None:
        """Return the layers as the engine reports them.

        None if it does not report them, or the backend has been closed.
        """
        with self._lock:
            return None if self._session is None else self._session.layers()

    def close(self) -> None:
        """Free the engine and its memory, after any run in progress."""
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                session.close()


class _Session:
    """An engine with its memory and contexts; not thread-safe.

    Attributes:
        buffers: its memory.
        shape: (1, S, S) of an image.
        most: largest batch that the engine accepts.
    """

    def __init__(
        self, library: Library, buffers: Buffers, path: Path, file: Path, content: bytes, graphs: bool
    ) -> None:
        self.buffers = buffers
        self._library = library
        library.forget()
        rebuild_command = engine_record.rebuild(path)
        self._runtime: Any = library.make(library.trt.Runtime, library.logger)
        self._engine: Any = self._runtime and self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise ModelError(f"{file} cannot be loaded ({library.first_error()}): {rebuild_command}")
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        self._outputs = outputs_of(names)
        if names != {INPUT, *self._outputs}:
            raise ModelError(f"{file} is not a model of edgecxr: its tensors are {', '.join(sorted(names))}")
        self._contexts = [
            _Context(library, buffers, path, file, self._engine, profile, graphs)
            for profile in range(self._engine.num_optimization_profiles)
        ]
        self.most = max(context.most for context in self._contexts)
        self.shape = self._contexts[0].shape
        self._host: dict[str, NDArray[Any]] = {}
        self._address: dict[str, int] = {}
        for name in (INPUT, *self._outputs):
            self._give_memory(name, file)

    def run(self, images: FloatArray) -> list[FloatArray]:
        """Return the outputs for at most `most` images.

        Args:
            images: (n, 1, S, S).

        Returns:
            The outputs in the order of `Outputs`, (n, ...) float32 each.
        """
        count = len(images)
        context = next(context for context in self._contexts if count <= context.most)
        batch = max(count, context.least)
        staged = self._host[INPUT][:batch]
        staged[:count] = images
        staged[count:] = 0
        self.buffers.to_device(self._address[INPUT], staged)
        context.compute(batch)
        for name in self._outputs:
            self.buffers.to_host(self._host[name][:batch], self._address[name])
        self.buffers.synchronise()
        return [self._host[name][:count].astype(np.float32) for name in self._outputs]

    def layers(self) -> list[Layer] | None:
        """Return the engine's layers; None if not reported."""
        return inspected(self._library.trt, self._engine)

    def close(self) -> None:
        """Free everything."""
        with self.buffers.active():
            # In this order: freeing one needs the next.
            for context in self._contexts:
                context.close()
            self._contexts = []
            self._engine = None
            self._runtime = None
        self._host, self._address = {}, {}
        self.buffers.close()

    def _give_memory(self, name: str, file: Path) -> None:
        """Allocate a tensor for the largest batch.

        CUDA graphs need fixed addresses, so this happens once.
        """
        shape = (self.most, *(int(side) for side in tuple(self._engine.get_tensor_shape(name))[1:]))
        kind = self._engine.get_tensor_dtype(name).name
        if min(shape) < 1 or kind not in _DTYPES:
            raise ModelError(f"{file} has a tensor {name} of shape {shape} and kind {kind}: export the model again")
        self._host[name] = self.buffers.pinned(shape, _DTYPES[kind])
        self._address[name] = self.buffers.alloc(math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize)
        for context in self._contexts:
            context.set_address(name, self._address[name])


class _Context:
    """An optimisation profile's execution context and CUDA graph; not thread-safe.

    Attributes:
        shape: (1, S, S) of an image.
        least: smallest batch that the profile accepts.
        most: largest batch that it accepts.
    """

    def __init__(
        self, library: Library, buffers: Buffers, path: Path, file: Path, engine: Any, profile: int, graphs: bool
    ) -> None:
        self._library, self._buffers, self._path, self._file, self._graphs = library, buffers, path, file, graphs
        self._graph: Replay | None = None
        self._batch = self._runs = 0
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise ModelError(f"{file} finds no room on the GPU ({library.first_error()}): {_ROOM}")
        # A new context has the first profile.
        if profile and not self._context.set_optimization_profile_async(profile, buffers.stream):
            raise ModelError(
                f"{file} refuses its profile {profile} ({library.first_error()}): {engine_record.rebuild(path)}"
            )
        least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT, profile))
        self.least, self.most = int(least[0]), int(most[0])
        self.shape = tuple(int(side) for side in most[1:])

    def set_address(self, name: str, address: int) -> None:
        """Tell where a tensor lies on the GPU."""
        if not self._context.set_tensor_address(name, address):
            raise ModelError(f"{self._file} refuses the memory for {name} ({self._library.first_error()}): {_ROOM}")

    def compute(self, batch: int) -> None:
        """Enqueue the work for a batch; the images must be enqueued before."""
        if batch != self._batch:
            self._drop_graph()  # it was captured for the previous batch size
            self._batch = self._runs = 0
            self._library.forget()
            if not self._context.set_input_shape(INPUT, (batch, *self.shape)):
                raise ModelError(f"{self._path} takes no batch of {batch} ({self._library.first_error()})")
            self._batch = batch
        # The first run with a shape may do setup work that a graph must not record.
        if self._graph is None and self._graphs and self._runs == 1:
            self._graph = self._captured()
            self._graphs = self._graph is not None
        if self._graph is not None:
            self._graph.run()
        else:
            self._enqueue()
        self._runs += 1

    def close(self) -> None:
        """Free the graph and the context."""
        self._drop_graph()
        self._context = None

    def _captured(self) -> Replay | None:
        capturable = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX compiles during runs
        if capturable is not None and not capturable(self._buffers.stream):
            return None
        try:
            return self._buffers.capture(self._enqueue)
        except Exception:  # without a graph, runs are only slower
            return None

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._buffers.stream):
            raise ModelError(
                f"{self._path} failed on TensorRT ({self._library.first_error()}): {engine_record.rebuild(self._path)}"
            )

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()
