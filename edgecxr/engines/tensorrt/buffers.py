"""Memory and a stream on the GPU for TensorRT, through pycuda, cuda-python or torch, whichever is there."""

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
        run: enqueue all of it again, with the same addresses.
        free: forget it.
    """

    run: Callable[[], None]
    free: Callable[[], None]


class Buffers(Protocol):
    """Memory on one GPU, and the stream that copies and computes in order.

    Attributes:
        stream: CUDA's handle of the stream.
    """

    stream: int

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current for this thread, for as long as the block lasts; everything else happens inside one."""
        ...

    def alloc(self, nbytes: int) -> int:
        """Return the address of new memory on the GPU."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in page-locked memory, which the GPU copies from and to without a detour."""
        ...

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """Enqueue a copy to the GPU; `host` is contiguous and stays as it is until `synchronise`."""
        ...

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Enqueue a copy from the GPU; `host` is contiguous and holds the result after `synchronise`."""
        ...

    def synchronise(self) -> None:
        """Wait until all that was enqueued is done."""
        ...

    def capture(self, work: Callable[[], None]) -> Replay | None:
        """Record what `work` enqueues, without doing it; None where this library has no CUDA graphs."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def open_buffers() -> Buffers:
    """Return buffers on the first GPU, through the first library of pycuda, cuda-python and torch that is installed.

    Raises:
        MissingPackage: none of them is.
        ModelError: CUDA does not work.
    """
    broken: Exception | None = None
    for module, make in (
        ("pycuda.driver", PycudaBuffers),
        ("cuda.bindings.runtime", CudaPythonBuffers),
        ("cuda.cudart", CudaPythonBuffers),
        ("torch", TorchBuffers),
    ):
        try:
            library = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # a library of CUDA that does not load shows in many ways
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
    """Buffers through pycuda, in CUDA's primary context, where TensorRT works too.

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
        if self._context is None:
            return
        with self.active():
            for memory in self._device:
                memory.free()
            # The page-locked memory goes with its arrays, in this context.
            self._device, self._host, self._stream = [], [], None
        self._context.detach()
        self._context = None


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
        """See `Buffers`; every thread begins with the first GPU's primary context."""
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
        # Other threads of the process may use CUDA meanwhile, torch's for example.
        self._call("cudaStreamBeginCapture", self._stream, self._cuda.cudaStreamCaptureMode(1))
        try:
            work()
        except BaseException:
            with suppress(ModelError):  # a capture that failed cannot be ended well, and must be ended
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
        held = [("cudaFree", address) for address in self._device]
        held += [("cudaFreeHost", address) for address in self._host]
        for name, what in [*held, ("cudaStreamDestroy", self._stream)]:
            with suppress(ModelError):  # after a fault on the GPU nothing can be freed; the driver does it in the end
                self._call(name, what)
        self._device, self._host, self._stream = [], [], None

    def _copy(self, to: int, source: int, nbytes: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", to, source, nbytes, getattr(self._cuda.cudaMemcpyKind, kind), self._stream)

    def _call(self, name: str, *args: Any) -> Any:
        """Call a function of the runtime; return its value, if it has one."""
        status, *values = getattr(self._cuda, name)(*args)
        if int(status):
            said = getattr(status, "name", status)
            raise ModelError(f"CUDA failed in {name} ({said}): `edgecxr doctor` says what the GPU lacks")
        return values[0] if values else None


class TorchBuffers:
    """Buffers through torch, for a workstation that has nothing else.

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
