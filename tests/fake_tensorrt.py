"""TensorRT without a GPU: its three generations as the code sees them, with every name that is used written down.

The engine of the fake computes what `tests.tiny_bundle` says its model computes, from the memory whose addresses it was
given. Names that a generation does not have are missing, as in NVIDIA's bindings
(`tests/engines/tensorrt/test_library.py` compares the two).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from edgecxr.engines.tensorrt import buffers, library
from edgecxr.engines.tensorrt.buffers import Replay
from edgecxr.engines.tensorrt.library import Gpu

ORIN = Gpu("Orin", "8.7")
VERSIONS = ("8.6.1", "10.3.0", "11.4.0")
NAMES = ("image", "findings", "abnormal", "attention", "features")


class Fake:
    """What happened, and what shall fail.

    Attributes:
        version: of TensorRT.
        calls: what was called, with what matters of the arguments, in order.
        used: (class, name) of everything that was looked up and found.
        fails: calls that shall return None or False, such as "build"; "features" stands for a model of before, without.
        says: message that the logger is given when something fails.
        ran: (profile, batch) of each launch or capture.
        inspected: layers as the inspector lists them; None makes one of each node, only "norm" in FP32.
        wrong: changes the outputs of each run, by name, in place; None computes what the model computes.
    """

    def __init__(self, version: str = "10.3.0") -> None:
        self.version = version
        self.major = int(version.partition(".")[0])
        self.calls: list[Any] = []
        self.used: set[tuple[str, str]] = set()
        self.fails: set[str] = set()
        self.says = "something is wrong"
        self.inspected: list[dict[str, Any]] | None = None
        self.wrong: Callable[[dict[str, np.ndarray]], None] | None = None
        self.logger: Any = None
        self.nodes: list[tuple[str, str]] = [("patch", "CONVOLUTION"), ("norm", "NORMALIZATION"), ("shares", "SOFTMAX")]
        self.layers: list[Any] = []
        self.ran: list[tuple[int, int]] = []
        self.memory: dict[int, Any] = {}
        self.module = _module(self)

    def ok(self, step: str) -> bool:
        if step not in self.fails:
            return True
        self.logger.log(self.module.ILogger.ERROR, self.says)
        return False

    def named(self, call: str) -> list[Any]:
        """Return what was given to each call of this name."""
        return [args for name, *args in self.calls if name == call]


@contextmanager
def installed(fake: Fake, monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None = ORIN) -> Iterator[Fake]:
    """Let edgecxr find the fake, a GPU and memory on it."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake.module)
    monkeypatch.setattr(library, "find_gpu", lambda: gpu)
    monkeypatch.setattr(buffers, "open_buffers", lambda: FakeBuffers(fake))
    library._library.cache_clear()
    yield fake
    library._library.cache_clear()


class FakeBuffers:
    """Memory of the "GPU"; copies and work wait in the stream until `synchronise`."""

    def __init__(self, fake: Fake) -> None:
        self.fake, self.stream = fake, 77
        self.depth = 0
        fake.stream = []  # type: ignore[attr-defined]

    @contextmanager
    def active(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    def alloc(self, nbytes: int) -> int:
        assert self.depth
        memory = ctypes.create_string_buffer(nbytes)
        self.fake.memory[ctypes.addressof(memory)] = memory
        self.fake.calls.append(("alloc", nbytes))
        return ctypes.addressof(memory)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        assert self.depth
        return np.full(shape, 9, dtype)

    def to_device(self, address: int, host: np.ndarray) -> None:
        assert self.depth and host.nbytes <= len(self.fake.memory[address])
        self.fake.calls.append(("to_device", host.shape))
        self._later(lambda: ctypes.memmove(address, host.ctypes.data, host.nbytes))

    def to_host(self, host: np.ndarray, address: int) -> None:
        assert self.depth and host.nbytes <= len(self.fake.memory[address])
        self.fake.calls.append(("to_host", host.shape))
        self._later(lambda: ctypes.memmove(host.ctypes.data, address, host.nbytes))

    def synchronise(self) -> None:
        assert self.depth
        self.fake.calls.append(("synchronise",))
        work, self.fake.stream[:] = list(self.fake.stream), []  # type: ignore[attr-defined]
        for step in work:
            step()

    def capture(self, work: Callable[[], None]) -> Replay | None:
        if "capture" in self.fake.fails:
            return None
        self.fake.calls.append(("capture",))
        kept, self.fake.stream = self.fake.stream, []  # type: ignore[attr-defined]
        work()
        captured, self.fake.stream = self.fake.stream, kept  # type: ignore[attr-defined]

        def run() -> None:
            self.fake.calls.append(("replay",))
            self.fake.stream.extend(captured)  # type: ignore[attr-defined]

        return Replay(run, lambda: self.fake.calls.append(("free graph",)))

    def close(self) -> None:
        self.fake.calls.append(("close buffers",))
        self.fake.memory.clear()

    def _later(self, step: Callable[[], Any]) -> None:
        self.fake.stream.append(step)  # type: ignore[attr-defined]


def _module(fake: Fake) -> Any:  # noqa: C901 - one class of the bindings after the other
    strong = fake.major >= 10

    class Recorded:
        """Writes down every name that is looked up on an object and found; those with an underscore are the fake's."""

        def __getattribute__(self, name: str) -> Any:
            value = object.__getattribute__(self, name)
            if not name.startswith("_"):
                fake.used.add((type(self).__name__, name))
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_"):
                fake.used.add((type(self).__name__, name))
                fake.calls.append(("set", type(self).__name__, name, value))
            object.__setattr__(self, name, value)

    def names(kind: str, *members: str) -> Any:
        """Return an enumeration; a member is a number that knows its name."""
        member = type("member", (int,), {"name": property(lambda self: members[self])})
        return type(kind, (Recorded,), {name: member(index) for index, name in enumerate(members)})()

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            fake.logger = self

    class IHostMemory(Recorded):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def __bytes__(self) -> bytes:
            return self._content

    class ITensor(Recorded):
        def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
            object.__setattr__(self, "name", name)
            object.__setattr__(self, "shape", shape)
            object.__setattr__(self, "dtype", dtype)

    class ILayer(Recorded):
        num_outputs = 1

        def __init__(self, name: str, kind: str) -> None:
            object.__setattr__(self, "name", name)
            object.__setattr__(self, "type", getattr(module.LayerType, kind))

        def get_output(self, index: int) -> Any:
            return ITensor("out", (1,), module.DataType.HALF)

        if not fake.major >= 11:
            precision = None

            def set_output_type(self, index: int, kind: Any) -> None:
                fake.calls.append(("set_output_type", object.__getattribute__(self, "name"), index, kind.name))

    class INetworkDefinition(Recorded):
        num_inputs = 1

        @property
        def num_outputs(self) -> int:
            return 3 if "features" in fake.fails else 4

        @property
        def num_layers(self) -> int:
            return len(fake.nodes)

        def get_layer(self, index: int) -> Any:
            fake.layers.append(ILayer(*fake.nodes[index]))
            return fake.layers[-1]

        def get_input(self, index: int) -> Any:
            return ITensor("image", (-1, 1, 28, 28), module.DataType.FLOAT)

        def get_output(self, index: int) -> Any:
            if "tensors" in fake.fails:
                return ITensor("y", (-1,), module.DataType.FLOAT)
            return ITensor(NAMES[1 + index], (-1,), module.DataType.FLOAT)

    class ParserError(Recorded):
        def desc(self) -> str:
            return "no importer found"

        def node(self) -> int:
            return 3

        if strong:

            def node_name(self) -> str:
                return "/blocks.0/strange"

            def node_operator(self) -> str:
                return "Strange"

    class OnnxParser(Recorded):
        num_errors = 1

        def __init__(self, network: Any, logger: Any) -> None:
            assert logger is fake.logger

        def parse(self, content: bytes) -> bool:
            fake.calls.append(("parse", hashlib.sha256(content).hexdigest()))
            return fake.ok("parse")

        def get_error(self, index: int) -> Any:
            return ParserError()

    class IOptimizationProfile(Recorded):
        def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
            fake.calls.append(("set_shape", name, *shapes))
            self._shapes = shapes

    class ITimingCache(Recorded):
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> Any:
            return IHostMemory(b"cache of " + fake.version.encode())

    class IBuilderConfig(Recorded):
        profiling_verbosity: Any = None

        def __init__(self) -> None:
            self._profiles: list[Any] = []

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1 if fake.ok("profile") else -1

        def set_memory_pool_limit(self, pool: Any, limit: int) -> None:
            fake.calls.append(("memory", pool.name, limit))

        def set_flag(self, flag: Any) -> None:
            fake.calls.append(("flag", flag.name))

        def clear_flag(self, flag: Any) -> None:
            fake.calls.append(("no flag", flag.name))

        def create_timing_cache(self, content: bytes) -> Any:
            fake.calls.append(("timing cache", content))
            return ITimingCache(content)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return not cache._content or fake.ok("timing cache")

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder(Recorded):
        def __init__(self, logger: Any) -> None:
            if not fake.ok("builder"):
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_network(self, flags: int) -> Any:
            fake.calls.append(("network", flags))
            return INetworkDefinition()

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            fake.calls.append(("build",))
            if not fake.ok("build"):
                return None
            batches = [[shape[0] for shape in profile._shapes] for profile in config._profiles]
            return IHostMemory(b"plan" + json.dumps(batches).encode())

    class EngineInspector(Recorded):
        def get_engine_information(self, form: Any) -> str:
            io = "I/O Tensors" if strong else "Bindings"
            words = ("Half", "Float") if strong else ("Row major linear FP16 format", "Row major linear FP32")
            layers = [
                {"Name": name, "Outputs": [{"Name": "x", "Format/Datatype": words[name == "norm"]}]}
                for name, _ in fake.nodes
            ]
            return json.dumps({"Layers": layers if fake.inspected is None else fake.inspected, io: ["image"]})

    class IExecutionContext(Recorded):
        def __init__(self, batches: list[list[int]]) -> None:
            self._addresses: dict[str, int] = {}
            self._batches, self._profile, self._batch = batches, 0, 0

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            assert stream == 77 and not self._batch and profile < len(self._batches)
            self._profile = profile
            return fake.ok("profile of a context")

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return fake.ok("address")

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            fake.calls.append(("shape", shape))
            least, _, most = self._batches[self._profile]
            assert least <= shape[0] <= most, "TensorRT would refuse this batch with this profile"
            self._batch = shape[0]
            return fake.ok("shape")

        def execute_async_v3(self, stream: int) -> bool:
            assert stream == 77
            fake.calls.append(("execute", self._batch))
            fake.ran.append((self._profile, self._batch))
            if not fake.ok("execute"):
                return False
            fake.stream.append(lambda: _compute(fake, self._addresses, self._batch))  # type: ignore[attr-defined]
            return True

    class ICudaEngine(Recorded):
        @property
        def num_io_tensors(self) -> int:
            return 4 if "features" in fake.fails else 5

        def __init__(self, batches: list[list[int]]) -> None:
            self._batches = batches
            self.num_optimization_profiles = len(batches)

        def get_tensor_name(self, index: int) -> str:
            return (NAMES if "tensors" not in fake.fails else "abcde")[index]

        def get_tensor_dtype(self, name: str) -> Any:
            return module.DataType.HALF if "half" in fake.fails and name == "findings" else module.DataType.FLOAT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            shapes = {"image": (-1, 1, 28, 28), "findings": (-1, 3), "abnormal": (-1,), "attention": (-1, 2, 2)}
            return (shapes | {"features": (-1, 4)})[name]

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
            return [(batch, 1, 28, 28) for batch in self._batches[profile]]

        def create_execution_context(self) -> Any:
            return IExecutionContext(self._batches) if fake.ok("context") else None

        def create_engine_inspector(self) -> Any:
            return EngineInspector()

    class Runtime(Recorded):
        def __init__(self, logger: Any) -> None:
            assert logger is fake.logger

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            fake.calls.append(("deserialize", hashlib.sha256(content).hexdigest()))
            if not content.startswith(b"plan") or not fake.ok("deserialize"):
                return None
            return ICudaEngine(json.loads(content[4:]))

    flags = ["REFIT", "TF32"]
    if fake.major < 11:
        flags += ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    networks = ["EXPLICIT_BATCH"] if not strong else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    Module = type("module", (Recorded,), {})
    module: Any = Module()
    for name, value in {
        "__version__": fake.version, "ILogger": ILogger, "Builder": Builder, "OnnxParser": OnnxParser,
        "Runtime": Runtime,
        "NetworkDefinitionCreationFlag": names("NetworkDefinitionCreationFlag", *networks),
        "BuilderFlag": names("BuilderFlag", *flags),
        "MemoryPoolType": names("MemoryPoolType", "WORKSPACE"),
        "ProfilingVerbosity": names("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED"),
        "DataType": names("DataType", "FLOAT", "HALF", "INT8"),
        "LayerType": names("LayerType", "CONVOLUTION", "NORMALIZATION", "SOFTMAX", "CONSTANT", "SHAPE", "ELEMENTWISE"),
        "LayerInformationFormat": names("LayerInformationFormat", "ONELINE", "JSON"),
    }.items():  # fmt: skip
        object.__setattr__(module, name, value)
    return module


def _compute(fake: Fake, addresses: dict[str, int], batch: int) -> None:
    """Do what the tiny model does, from and to the memory of the GPU."""

    def array(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        return np.frombuffer(fake.memory[addresses[name]], dtype, int(np.prod(shape))).reshape(shape)

    images = array("image", (batch, 1, 28, 28))
    means = images.reshape(batch, 2, 14, 2, 14).mean(axis=(2, 4)).reshape(batch, 4)
    shares = np.exp(means)
    outputs = {
        "findings": array("findings", (batch, 3), np.float16 if "half" in fake.fails else np.float32),
        "abnormal": array("abnormal", (batch,)),
        "attention": array("attention", (batch, 2, 2)),
    }
    outputs["findings"][:] = 4 * means[:, :3] - 2
    outputs["abnormal"][:] = means.sum(axis=1) - 2
    outputs["attention"][:] = (shares / shares.sum(axis=1, keepdims=True)).reshape(batch, 2, 2)
    if "features" not in fake.fails:
        outputs["features"] = array("features", (batch, 4))
        outputs["features"][:] = means
    if fake.wrong is not None:
        fake.wrong(outputs)
