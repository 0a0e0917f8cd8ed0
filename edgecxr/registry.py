"""Names that users type, mapped to "module:Object" strings.

Strings let the command line and the device runtime name torch-side objects without importing torch.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from edgecxr.errors import MissingPackage, UsageError

BACKENDS = {
    "onnxruntime": "edgecxr.engines.onnxruntime:OnnxRuntimeBackend",
    "onnxruntime-cuda": "edgecxr.engines.onnxruntime:open_cuda",
    "onnxruntime-tensorrt": "edgecxr.engines.onnxruntime_tensorrt:open_tensorrt",
    "openvino": "edgecxr.engines.openvino:OpenVinoBackend",
    "tensorrt": "edgecxr.engines.tensorrt.engine:TensorRTBackend",
    "torch": "edgecxr.train.checkpoint:open_checkpoint",
    "torch-cuda": "edgecxr.train.checkpoint:open_checkpoint_cuda",
}
OF_CHECKPOINTS = ("torch", "torch-cuda")
"""Backends that run a finished run; the others run a model file of a bundle."""

METHODS = {
    "none": "edgecxr.distill.base:Undistilled",
    "vanilla": "edgecxr.distill.vanilla:Vanilla",
    "hinton": "edgecxr.distill.vanilla:Hinton",
    "last-block": "edgecxr.distill.last_block:LastBlock",
    "one-to-one": "edgecxr.distill.one_to_one:OneToOne",
    "mlcak": "edgecxr.distill.mlcak:Mlcak",
}
DATASETS = {
    "phantom": "edgecxr.phantom.make:phantom",
    "vindr": "edgecxr.data.adapters.vindr:vindr",
    "vinbigdata": "edgecxr.data.adapters.vinbigdata:vinbigdata",
    "nih": "edgecxr.data.adapters.nih:nih",
    "chexpert": "edgecxr.data.adapters.chexpert:chexpert",
    "mimic-cxr": "edgecxr.data.adapters.mimic:mimic",
    "chestmnist": "edgecxr.data.adapters.chestmnist:chestmnist",
    "folder": "edgecxr.data.adapters.folder:folder",
}

EXECUTORS = ("processes", "ray")
"""Ways to read films: processes on this machine, or a Ray cluster that sees the same files."""


def resolve(table: dict[str, str], name: str, noun: str) -> Any:
    """Return the object that `name` stands for in `table`.

    Args:
        table: one of the tables of this module.
        name: what the user typed.
        noun: the word for it in messages, such as "method".

    Raises:
        UsageError: the name is unknown; the message suggests the nearest one.
        MissingPackage: the object's module needs a package that is not installed.
    """
    check(table, name, noun)
    return load(table[name], f"{noun} {name!r}")


def check(table: dict[str, str], name: str, noun: str) -> None:
    """Refuse a name that is not in `table`, without importing anything.

    The arguments are those of `resolve`.

    Raises:
        UsageError: the name is unknown; the message suggests the nearest one.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown {noun} {name!r}{hint} (there are: {', '.join(table)})")


def load(target: str, purpose: str) -> Any:
    """Import an object by its path "module:Object".

    A missing third-party package becomes an error that names its extra.

    Args:
        target: the import path, such as "edgecxr.train.teacher:train_teacher".
        purpose: what needs it, for the message.

    Raises:
        MissingPackage: a package that the module imports is not installed.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "edgecxr"):
            raise
        from edgecxr import extras

        extra = extras.extra_of(package)
        # A package in no extra is a dependency of another package: the installation is broken, so reinstall all.
        raise MissingPackage(package, "all" if extra is None else extra, purpose) from error
