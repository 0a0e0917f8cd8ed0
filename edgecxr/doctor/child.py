"""Probes that doctor runs in child processes.

They import packages, decode test frames, and print the result as one line of JSON. Third-party packages are imported by
name, since any of them may be missing.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from collections.abc import Callable
from importlib import import_module
from typing import Any

from edgecxr.doctor.ask import MARK
from edgecxr.doctor.listing import one_line
from edgecxr.terminal import show, show_json
from edgecxr.workers.isolation import isolation

# The model y = Identity(x) on one float, to test whether an execution provider loads.
_MODEL = b64decode("CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=")


def main() -> None:
    """Print the answer of the probe named on the command line."""
    try:
        answer = {"facts": PROBES[sys.argv[1]](), "problem": ""}
    except Exception as error:
        answer = {"facts": {}, "problem": one_line(error)}
    show("")  # a library may have left a line unfinished
    show_json(f"{MARK}{json.dumps(answer)}")


def _torch() -> dict[str, Any]:
    torch = import_module("torch")
    usable = bool(torch.cuda.is_available())
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list() if usable else _built_for(torch),
        "usable": usable,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if usable else [],
    }


def _built_for(torch: Any) -> list[str]:
    # get_arch_list() is empty without a driver; the private function that it calls is not.
    flags = torch._C._cuda_getArchFlags() if hasattr(torch._C, "_cuda_getArchFlags") else None
    return flags.split() if flags else []


def _onnxruntime() -> dict[str, Any]:
    ort = import_module("onnxruntime")
    listed = list(ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 4
    loaded = []
    for provider in listed:
        try:
            session = ort.InferenceSession(_MODEL, options, providers=[provider])
        except Exception:  # ONNX Runtime's exceptions share no base class
            continue
        # ONNX Runtime silently drops providers that do not load.
        if provider in session.get_providers():
            loaded.append(provider)
    return {"version": ort.__version__, "listed": listed, "loaded": loaded}


def _module(*names: str) -> dict[str, Any]:
    """Import the first module that exists.

    If none does, the import error of the last one is raised.
    """
    for name in names[:-1]:
        try:
            module = import_module(name)
            break
        except ModuleNotFoundError:
            continue
    else:
        name = names[-1]
        module = import_module(name)
    version = getattr(module, "__version__", None)
    return {"module": name, "version": None if version is None else str(version)}


def _decoders() -> dict[str, Any]:
    from edgecxr.doctor.frames import try_decoders

    return {"syntaxes": try_decoders()}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "tensorrt": lambda: _module("tensorrt"),
    "tensorrt_rtx": lambda: _module("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "pycuda": lambda: _module("pycuda.driver"),
    "cuda": lambda: _module("cuda.bindings.runtime", "cuda.cudart"),
    "openvino": lambda: _module("openvino"),
    "decoders": _decoders,
    "isolation": isolation,
}
