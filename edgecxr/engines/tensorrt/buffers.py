"""GPU memory and a stream for TensorRT, through any installed library.

The libraries are cuda-python, pycuda and torch.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgecxr.errors import MissingPackage, ModelError


@dataclass(frozen=True)
class Replay:
    """Work that was captured as a CUDA graph.

    Attributes:
        run: enqueue the work again, with the same addresses.
        free: release the graph.
    """

    run: Callable[[], None]
    free: Callable[[], None]


class Buffers(Protocol):
    """Memory on one GPU, and the stream for copies and computation.

    Attributes:
        stream: CUDA's handle of the stream, which executes its work in order.
    """

    stream: int

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current for this thread while the block lasts.

        Every other method but `close` must be called inside such a block.
        """
        ...

    def alloc(self, nbytes: int) -> int:
        """Allocate memory on the GPU and return its address."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in page-locked memory, for direct copies by the GPU."""
        ...

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """Enqueue a copy to the GPU.

        `host` must be contiguous and stay unchanged until `synchronise`.
        """
        ...

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Enqueue a copy from the GPU.

        `host` must be contiguous; it holds the result after `synchronise`.
        """
        ...

    def synchronise(self) -> None:
        """Wait until all enqueued work is done."""
        ...

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """Record the work that `work` enqueues, without running it.

        Returns:
            The recorded work; None if this library has no CUDA graphs.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def open_buffers() -> Buffers:
    """Open buffers on the first GPU with the first usable library.

    The order is cuda-python, pycuda, torch: pycuda has no CUDA graphs, and torch takes seconds to load.

    Raises:
        MissingPackage: none of them is installed and loads.
        ModelError: CUDA does not work.
    """
    broken: Exception | None = None
    for module, make in (
        ("cuda.bindings.runtime", CudaPythonBuffers),
        ("cuda.cudart", CudaPythonBuffers),
        ("pycuda.driver", PycudaBuffers),
        ("torch", TorchBuffers),
    ):
        try:
            library = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a CUDA library that fails to load raises many kinds of errors
            broken = broken or error
            continue
        if module == "torch" and not library.cuda.is_available():
            broken = broken or ImportError("this torch cannot use the GPU")
            continue
        try:
            return make(library)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{module} cannot use the GPU ({error}): `edgecxr doctor` says more") from error
    cause = broken if isinstance(broken, ImportError) or broken is None else ImportError(str(broken))
    raise MissingPackage("pycuda", "tensorrt", "the tensorrt backend") from cause


class PycudaBuffers:
    """Buffers through pycuda, in CUDA's primary context, which TensorRT uses too.

    Args:
        driver: the module pycuda.driver.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        driver.init()
        self._context = driver.Device(0).retain_primary_context()
        self._device: list[Any] = []
        self._host: list[NDArray[Any]] = []
        with self.active():
            self._stream = driver.Stream()
        self.stream = int(self._stream.handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `Buffers`."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def alloc(self, nbytes: int) -> int:
        """See `Buffers`."""
        self._device.append(self._driver.mem_alloc(nbytes))
        return int(self._device[-1])

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Buffers`."""
        array: NDArray[Any] = self._driver.pagelocked_empty(shape, dtype)
        self._host.append(array)
        return array

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """See `Buffers`."""
        self._driver.memcpy_htod_async(address, host, self._stream)

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """See `Buffers`."""
        self._driver.memcpy_dtoh_async(host, address, self._stream)

    def synchronise(self) -> None:
        """See `Buffers`."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """Return None: pycuda has no CUDA graphs."""
        return None

    def close(self) -> None:
        """See `Buffers`."""
        context, self._context = self._context, None
        if context is None:
            return
        context.push()
        try:
            for memory in self._device:
                memory.free()
            # Dropping the arrays frees their page-locked memory, which needs this context.
            self._device, self._host, self._stream = [], [], None
            # While it is current: pycuda releases no context that another thread made and that is not.
            context.detach()
        finally:
            with suppress(Exception):  # pycuda counts a context that was detached as popped
                self._driver.Context.pop()


class CudaPythonBuffers:
    """Buffers through NVIDIA's cuda-python.

    Args:
        runtime: the module cuda.bindings.runtime, or the older cuda.cudart.
    """

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime
        self._device: list[int] = []
        self._host: list[int] = []
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)

    def active(self) -> AbstractContextManager[None]:
        """See `Buffers`; every thread starts in the first GPU's primary context."""
        return nullcontext()

    def alloc(self, nbytes: int) -> int:
        """See `Buffers`."""
        self._device.append(int(self._call("cudaMalloc", nbytes)))
        return self._device[-1]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Buffers`."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call("cudaHostAlloc", nbytes, 0))
        self._host.append(address)
        memory = (ctypes.c_byte * nbytes).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """See `Buffers`."""
        self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """See `Buffers`."""
        self._copy(host.ctypes.data, address, host.nbytes, "cudaMemcpyDeviceToHost")

    def synchronise(self) -> None:
        """See `Buffers`."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Buffers`."""
        # Mode 1 (thread-local) lets other threads, such as torch's, use CUDA during the capture.
        self._call("cudaStreamBeginCapture", self._stream, self._cuda.cudaStreamCaptureMode(1))
        try:
            work()
        except BaseException:
            with suppress(ModelError):  # a failed capture must be ended too, which raises
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", self._stream))
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            ready = self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

        def free() -> None:
            with suppress(ModelError):
                self._call("cudaGraphExecDestroy", ready)

        return Replay(lambda: self._call("cudaGraphLaunch", ready, self._stream), free)

    def close(self) -> None:
        """See `Buffers`."""
        if self._stream is None:
            return
        resources = [("cudaFree", address) for address in self._device]
        resources += [("cudaFreeHost", address) for address in self._host]
        for name, handle in [*resources, ("cudaStreamDestroy", self._stream)]:
            with suppress(ModelError):  # after a GPU fault nothing can be freed; the driver does it at exit
                self._call(name, handle)
        self._device, self._host, self._stream = [], [], None

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, getattr(self._cuda.cudaMemcpyKind, kind), self._stream)

    def _call(self, name: str, *args: Any) -> Any:
        """Call a function of the runtime; return its value, if any."""
        status, *values = getattr(self._cuda, name)(*args)
        if int(status):
            status_name = getattr(status, "name", status)
            raise ModelError(f"CUDA failed in {name} ({status_name}): `edgecxr doctor` says what the GPU lacks")
        return values[0] if values else None


class TorchBuffers:
    """Buffers through torch, for machines without pycuda and cuda-python.

    Args:
        torch: the module.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._memory: dict[int, Any] = {}
        self._stream = torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)

    def active(self) -> AbstractContextManager[None]:
        """See `Buffers`."""
        current: AbstractContextManager[None] = self._torch.cuda.stream(self._stream)
        return current

    def alloc(self, nbytes: int) -> int:
        """See `Buffers`."""
        memory = self._torch.empty(nbytes, dtype=self._torch.uint8, device="cuda")
        self._memory[memory.data_ptr()] = memory
        return int(memory.data_ptr())

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Buffers`."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self._torch.empty(nbytes, dtype=self._torch.uint8, pin_memory=True)
        array: NDArray[Any] = memory.numpy().view(dtype).reshape(shape)  # keeps the tensor alive
        return array

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """See `Buffers`."""
        self._memory[address][: host.nbytes].copy_(self._bytes(host), non_blocking=True)

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """See `Buffers`."""
        self._bytes(host).copy_(self._memory[address][: host.nbytes], non_blocking=True)

    def synchronise(self) -> None:
        """See `Buffers`."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """See `Buffers`."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return Replay(graph.replay, graph.reset)

    def close(self) -> None:
        """See `Buffers`."""
        self._memory = {}

    def _bytes(self, host: NDArray[Any]) -> Any:
        return self._torch.from_numpy(host.reshape(-1).view(np.uint8))
