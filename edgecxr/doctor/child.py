"""What doctor does in child processes: import packages, decode, and print what was found as one line of JSON.

Third-party packages are imported by name: which of them are here is the question.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from importlib import import_module
from typing import Any

from edgecxr.doctor.ask import MARK
from edgecxr.doctor.listing import one_line

# y = Identity(x), x of one float: a session of it shows whether an execution provider loads.
_MODEL = b64decode("CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=")


def main(probe: str) -> None:
    """Print the answer of one of `PROBES`."""
    try:
        answer = {"facts": PROBES[probe](), "problem": ""}
    except Exception as error:
        answer = {"facts": {}, "problem": one_line(error)}
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)


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
    # get_arch_list() gives nothing where no driver is; what it asks does.
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
        # What does not load is left out of the session in silence.
        if provider in session.get_providers():
            loaded.append(provider)
    return {"version": ort.__version__, "listed": listed, "loaded": loaded}


def _module(*names: str) -> dict[str, Any]:
    """Import the first module that is there, all of the others' absence being its own error."""
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
}
