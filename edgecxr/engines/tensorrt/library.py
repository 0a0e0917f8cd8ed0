"""TensorRT, TensorRT-RTX and the GPU of this machine."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecxr.bundle.engine_record import EngineEnvironment
from edgecxr.errors import MissingPackage, brief

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")

_MAX_MESSAGES = 100


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA shows to this process.

    Attributes:
        name: such as "Orin" or "NVIDIA H100 80GB HBM3".
        capability: compute capability, such as "8.7".
    """

    name: str
    capability: str


@dataclass(frozen=True)
class Library:
    """The installed TensorRT or TensorRT-RTX.

    Attributes:
        trt: the module.
        name: "tensorrt" or "tensorrt_rtx".
        version: such as "10.3.0".
        logger: passed to every TensorRT object; its `errors` and `warnings` hold the messages, oldest first, its
            `layers` the builder's list of layers, or "".
    """

    trt: Any
    name: str
    version: str
    logger: Any

    def here(self, gpu: Gpu | None) -> EngineEnvironment:
        """Return the machine and library that a new engine depends on."""
        name, capability = (gpu.name, gpu.capability) if gpu else (None, None)
        return EngineEnvironment(name, capability, self.name, self.version)

    def forget(self) -> None:
        """Clear the collected messages."""
        self.logger.errors.clear()
        self.logger.warnings.clear()
        self.logger.layers = ""

    def first_error(self) -> str:
        """Return TensorRT's first error since `forget`, on one line."""
        return brief(self.logger.errors[0] if self.logger.errors else "TensorRT gave no reason", 240)

    def make(self, kind: Callable[..., Any], *args: Any) -> Any | None:
        """Return kind(*args), or None if TensorRT cannot make it."""
        try:
            return kind(*args)
        except (TypeError, RuntimeError) as error:  # how its bindings report a null pointer
            self.logger.errors.append(str(error))
            return None


def find_gpu() -> Gpu | None:
    """Return the first GPU that CUDA can use; None without one.

    The driver is asked directly, so the name is the same with every buffer library.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    compute_capability_major, compute_capability_minor = 75, 76
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), compute_capability_major, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), compute_capability_minor, device)
    )
    return None if failed else Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def load_tensorrt(purpose: str) -> Library:
    """Load TensorRT, or TensorRT-RTX if TensorRT is missing.

    Args:
        purpose: what needs it, for the message.

    Raises:
        MissingPackage: neither is installed, or it does not load.
    """
    try:
        return _library()
    except ImportError as error:
        raise MissingPackage("tensorrt", "tensorrt", purpose) from error


@functools.cache
def _library() -> Library:
    """Return the library, loaded once per process.

    TensorRT keeps the first logger that it gets for all objects.
    """
    broken: Exception | None = None
    for name in MODULES:
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            if getattr(error, "name", None) != name:  # installed, but something that it needs is missing
                broken = broken or error
            continue
        kind = "tensorrt" if name == "tensorrt" else "tensorrt_rtx"
        return Library(trt, kind, str(trt.__version__), _logger(trt))
    if broken is not None:
        raise ImportError(brief(broken)) from broken
    if os.path.exists("/etc/nv_tegra_release"):
        raise ImportError("on a Jetson it comes with the system: python3 -m venv --system-site-packages")
    raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")


def _logger(trt: Any) -> Any:
    """Return a logger that collects TensorRT's errors and warnings."""

    class Messages(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                kept = self.errors
            elif severity == trt.ILogger.WARNING:
                kept = self.warnings
            else:
                if message.startswith("Layers:"):
                    self.layers = message
                return
            if len(kept) < _MAX_MESSAGES:
                kept.append(message)

    return Messages()
