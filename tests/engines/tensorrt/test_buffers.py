"""Buffers through each of the three libraries, over fakes of them whose "GPU" is ordinary memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecxr.engines.tensorrt import buffers as module
from edgecxr.engines.tensorrt.buffers import Buffers, CudaPythonBuffers, PycudaBuffers, TorchBuffers, open_buffers
from edgecxr.engines.tensorrt.library import find_gpu
from edgecxr.errors import MissingPackage, ModelError


class Gpu:
    """What is allocated, what waits in the stream, what a capture records."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.waiting: list[Callable[[], Any]] = []
        self.capturing: list[Callable[[], Any]] | None = None
        self.streams = 0
        self.graphs = 0
        self.contexts: list[str] = []

    def alloc(self, nbytes: int) -> int:
        memory = ctypes.create_string_buffer(nbytes)
        self.held[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def free(self, address: int) -> None:
        del self.held[address]

    def copy(self, to: int, source: int, nbytes: int) -> None:
        self.enqueue(lambda: ctypes.memmove(to, source, nbytes))

    def enqueue(self, step: Callable[[], Any]) -> None:
        (self.waiting if self.capturing is None else self.capturing).append(step)

    def synchronise(self) -> None:
        work, self.waiting = self.waiting, []
        for step in work:
            step()


class Status(IntEnum):
    SUCCESS = 0
    OUT_OF_MEMORY = 2


class Runtime:
    """cuda.bindings.runtime: every call returns a status and perhaps a value."""

    class cudaMemcpyKind(IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.fails = gpu, ""

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "fails"):
            return lambda *args: (Status.OUT_OF_MEMORY, None)
        return object.__getattribute__(self, name)

    def cudaMalloc(self, nbytes: int) -> Any:
        return Status.SUCCESS, self.gpu.alloc(nbytes)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> Any:
        return Status.SUCCESS, self.gpu.alloc(nbytes)

    def cudaFree(self, address: int) -> Any:
        self.gpu.free(address)
        return (Status.SUCCESS,)

    cudaFreeHost = cudaFree

    def cudaStreamCreate(self) -> Any:
        self.gpu.streams += 1
        return Status.SUCCESS, 5

    def cudaStreamDestroy(self, stream: int) -> Any:
        self.gpu.streams -= 1
        return (Status.SUCCESS,)

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: Any, stream: int) -> Any:
        assert kind in self.cudaMemcpyKind and stream == 5
        self.gpu.copy(to, source, nbytes)
        return (Status.SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> Any:
        self.gpu.synchronise()
        return (Status.SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Any:
        assert mode is self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.gpu.capturing = []
        return (Status.SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        graph, self.gpu.capturing = self.gpu.capturing, None
        self.gpu.graphs += 1
        return Status.SUCCESS, graph

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> Any:
        self.gpu.graphs += 1
        return Status.SUCCESS, list(graph)

    def cudaGraphLaunch(self, ready: Any, stream: int) -> Any:
        self.gpu.waiting.extend(ready)
        return (Status.SUCCESS,)

    def cudaGraphDestroy(self, graph: Any) -> Any:
        self.gpu.graphs -= 1
        return (Status.SUCCESS,)

    cudaGraphExecDestroy = cudaGraphDestroy


def pycuda_driver(gpu: Gpu) -> Any:
    class Memory:
        def __init__(self, nbytes: int) -> None:
            assert gpu.contexts
            self.address = gpu.alloc(nbytes)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            assert gpu.contexts
            gpu.free(self.address)

    class Stream:
        def __init__(self) -> None:
            assert gpu.contexts
            self.handle = 5

        def synchronize(self) -> None:
            assert gpu.contexts
            gpu.synchronise()

    class Context:
        def push(self) -> None:
            gpu.contexts.append("current")

        @staticmethod
        def pop() -> None:
            gpu.contexts.pop()

        def detach(self) -> None:
            assert gpu.contexts, "pycuda would not release it from another thread"
            gpu.held["detached"] = gpu.held.pop("context")  # type: ignore[index, arg-type]

    def retain() -> Context:
        gpu.held["context"] = 1  # type: ignore[index]
        return Context()

    def current(step: Callable[..., None]) -> Callable[..., None]:
        def checked(*args: Any) -> None:
            assert gpu.contexts
            step(*args)

        return checked

    return SimpleNamespace(
        init=lambda: None,
        Device=lambda index: SimpleNamespace(retain_primary_context=retain),
        Context=Context,
        Stream=Stream,
        mem_alloc=Memory,
        pagelocked_empty=lambda shape, dtype: np.empty(shape, dtype),
        memcpy_htod_async=current(lambda to, host, stream: gpu.copy(to, host.ctypes.data, host.nbytes)),
        memcpy_dtoh_async=current(lambda host, source, stream: gpu.copy(host.ctypes.data, source, host.nbytes)),
    )


def torch_module(gpu: Gpu) -> Any:
    torch = pytest.importorskip("torch")

    class Tensor:
        """A tensor of torch whose copies wait in the stream."""

        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor

        def __getitem__(self, index: Any) -> Any:
            return Tensor(self.tensor[index])

        def data_ptr(self) -> int:
            return int(self.tensor.data_ptr())

        def numpy(self) -> Any:
            return self.tensor.numpy()

        def copy_(self, source: Any, non_blocking: bool) -> None:
            assert gpu.contexts and non_blocking
            gpu.enqueue(lambda: self.tensor.copy_(source.tensor))

    class Graph:
        steps: Any = None

        def replay(self) -> None:
            assert gpu.contexts
            gpu.waiting.extend(self.steps)

        def reset(self) -> None:
            gpu.graphs -= 1

    @contextlib.contextmanager
    def stream(which: Any) -> Iterator[None]:
        gpu.contexts.append(which)
        yield
        gpu.contexts.pop()

    @contextlib.contextmanager
    def graph(graph: Graph, stream: Any, capture_error_mode: str) -> Iterator[None]:
        gpu.capturing = []
        gpu.graphs += 1
        try:
            yield
        finally:
            graph.steps, gpu.capturing = gpu.capturing, None

    cuda = SimpleNamespace(
        is_available=lambda: True,
        Stream=lambda: SimpleNamespace(cuda_stream=5, synchronize=gpu.synchronise),
        stream=stream,
        graph=graph,
        CUDAGraph=Graph,
    )
    return SimpleNamespace(
        cuda=cuda,
        uint8=torch.uint8,
        empty=lambda nbytes, dtype, device="cpu", pin_memory=False: Tensor(torch.empty(nbytes, dtype=dtype)),
        from_numpy=lambda array: Tensor(torch.from_numpy(array)),
    )


KINDS: dict[str, Callable[[Gpu], Buffers]] = {
    "pycuda": lambda gpu: PycudaBuffers(pycuda_driver(gpu)),
    "cuda-python": lambda gpu: CudaPythonBuffers(Runtime(gpu)),
    "torch": lambda gpu: TorchBuffers(torch_module(gpu)),
}


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture(params=KINDS)
def buffers(request: pytest.FixtureRequest, gpu: Gpu) -> Buffers:
    return KINDS[request.param](gpu)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
def test_what_goes_to_the_gpu_comes_back(buffers: Buffers, dtype: Any) -> None:
    assert buffers.stream == 5
    with buffers.active():
        address = buffers.alloc(24 * np.dtype(dtype).itemsize)
        there, back = buffers.pinned((2, 3, 4), dtype), buffers.pinned((2, 3, 4), dtype)
        assert there.shape == (2, 3, 4) and there.dtype == dtype
        there[:] = np.arange(24).reshape(2, 3, 4) % 3
        back[:] = 0
        buffers.to_device(address, there)
        buffers.to_host(back, address)
        assert not back.any()  # copies wait for their turn
        buffers.synchronise()
    np.testing.assert_array_equal(back, there)


def test_a_part_of_the_memory_can_be_copied(buffers: Buffers) -> None:
    with buffers.active():
        address = buffers.alloc(16)
        host = buffers.pinned((4,), np.float32)
        host[:] = (1, 2, 3, 4)
        buffers.to_device(address, host)
        buffers.synchronise()
        host[:] = 0
        buffers.to_host(host[:2], address)
        buffers.synchronise()
    assert host.tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("kind", ["cuda-python", "torch"])
def test_a_captured_graph_does_its_work_again_with_new_numbers(kind: str, gpu: Gpu) -> None:
    buffers = KINDS[kind](gpu)
    values: list[float] = []
    with buffers.active():
        host = buffers.pinned((1,), np.float32)
        replay = buffers.capture(lambda: gpu.enqueue(lambda: values.append(float(host[0]))))
        assert replay is not None and not values
        for value in (1, 2):
            host[:] = value
            replay.run()
            buffers.synchronise()
        replay.free()
    assert values == [1, 2] and gpu.graphs == 0


@pytest.mark.parametrize("kind", ["cuda-python", "torch"])
def test_a_capture_that_fails_ends(kind: str, gpu: Gpu) -> None:
    buffers = KINDS[kind](gpu)

    def work() -> None:
        raise ModelError("no")

    with buffers.active(), pytest.raises(ModelError, match="no"):
        buffers.capture(work)
    assert gpu.capturing is None


def test_pycuda_has_no_graphs(gpu: Gpu) -> None:
    assert KINDS["pycuda"](gpu).capture(lambda: None) is None


@pytest.mark.parametrize("kind", KINDS)
def test_closing_frees_everything_once(kind: str, gpu: Gpu) -> None:
    buffers = KINDS[kind](gpu)
    with buffers.active():
        for _ in range(3):
            buffers.alloc(8)
            buffers.pinned((2,), np.float32)
    buffers.close()
    buffers.close()
    assert set(gpu.held) == ({"detached"} if kind == "pycuda" else set())
    assert gpu.streams == 0 and gpu.contexts == []


def test_pycudas_context_is_current_inside_a_block_only(gpu: Gpu) -> None:
    buffers = KINDS["pycuda"](gpu)
    assert gpu.contexts == []
    with pytest.raises(RuntimeError), buffers.active():
        assert gpu.contexts == ["current"]
        raise RuntimeError
    assert gpu.contexts == []


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc", "cudaStreamSynchronize"])
def test_a_status_of_cuda_becomes_an_error_of_ours(call: str, gpu: Gpu) -> None:
    runtime = Runtime(gpu)
    buffers = CudaPythonBuffers(runtime)
    runtime.fails = call
    with pytest.raises(ModelError, match=rf"CUDA failed in {call} \(OUT_OF_MEMORY\)"):
        buffers.alloc(8)
        buffers.pinned((8,), np.float32)
        buffers.synchronise()


def test_closing_goes_on_after_a_fault(gpu: Gpu) -> None:
    runtime = Runtime(gpu)
    buffers = CudaPythonBuffers(runtime)
    buffers.alloc(8)
    runtime.fails = "cudaFree"
    buffers.close()
    assert gpu.streams == 0


# ---- which library


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Name of a module -> what importing it gives or raises; all others are not there."""
    modules: dict[str, Any] = {}

    def import_module(name: str) -> Any:
        value = modules.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=import_module))
    return modules


def test_cuda_python_which_has_graphs_comes_before_pycuda_before_torch(libraries: dict[str, Any], gpu: Gpu) -> None:
    libraries["torch"] = torch_module(gpu)
    assert isinstance(open_buffers(), TorchBuffers)
    libraries["pycuda.driver"] = pycuda_driver(gpu)
    assert isinstance(open_buffers(), PycudaBuffers)
    libraries["cuda.cudart"] = Runtime(gpu)
    assert isinstance(open_buffers(), CudaPythonBuffers)
    libraries["cuda.bindings.runtime"] = Runtime(Gpu())
    assert open_buffers()._cuda is libraries["cuda.bindings.runtime"]  # type: ignore[attr-defined]


def test_without_a_library_the_error_names_one(libraries: dict[str, Any]) -> None:
    with pytest.raises(MissingPackage, match=r"tensorrt backend needs pycuda, which is not installed"):
        open_buffers()


@pytest.mark.parametrize(
    "problem", [ImportError("libcuda.so.1: cannot open shared object"), RuntimeError("libcuda.so.1: gone")]
)
def test_a_library_that_does_not_load_is_passed_over_and_named_in_the_end(
    libraries: dict[str, Any], problem: Exception, gpu: Gpu
) -> None:
    libraries["pycuda.driver"] = problem
    with pytest.raises(MissingPackage, match=r"which does not load \(libcuda\.so\.1"):
        open_buffers()
    libraries["cuda.cudart"] = Runtime(gpu)
    assert isinstance(open_buffers(), CudaPythonBuffers)


def test_a_library_that_cannot_use_the_gpu_is_named(libraries: dict[str, Any]) -> None:
    def init() -> None:
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")

    libraries["pycuda.driver"] = SimpleNamespace(init=init)
    with pytest.raises(ModelError, match=r"pycuda\.driver cannot use the GPU \(cuInit failed"):
        open_buffers()


def test_the_driver_is_asked_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def __init__(self, status: int) -> None:
            self.status = status

        def cuInit(self, flags: int) -> int:
            return self.status

        def cuDeviceGet(self, device: Any, index: int) -> int:
            return 0

        def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
            name.value = b"Orin"
            return 0

        def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
            value._obj.value = {75: 8, 76: 7}[attribute]
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(0))
    device = find_gpu()
    assert device is not None and (device.name, device.capability) == ("Orin", "8.7")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(100))
    assert find_gpu() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError("no libcuda")))
    assert find_gpu() is None


def test_nothing_heavy_is_imported_before_an_engine_is_opened() -> None:
    import subprocess

    code = (
        "import sys, edgecxr.engines.tensorrt.engine, edgecxr.engines.tensorrt.build;"
        "import edgecxr.engines.tensorrt.buffers as b;"
        "print(sorted(set(sys.modules) & {'torch', 'pycuda', 'cuda', 'tensorrt', 'tensorrt_rtx_bindings', 'onnx'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "[]\n", ended
