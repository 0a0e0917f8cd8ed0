"""Folders of a stranger's modules, which say so when they are imported."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OTHERS = (
    "edgecxr", "tests", "sitecustomize", "usercustomize", "numpy", "torch", "torchvision", "timm", "onnx",
    "onnxruntime", "openvino", "tensorrt", "pydicom", "PIL", "pylibjpeg", "openjpeg", "pyjpegls", "gdcm", "typer",
    "click", "rich", "packaging", "fastjsonschema", "tomli", "safetensors", "matplotlib", "ray", "highdicom",
    "lightning_fabric", "pip", "setuptools", "pycuda", "cuda", "typing_extensions", "yaml", "google",
)  # fmt: skip
"""Names beside those of the standard library."""

NAMES = (*sorted(sys.stdlib_module_names), *OTHERS)

_TRAP = """
import sys as _sys
_file = open({sprung!r}, "a")
_file.write(__name__ + " in " + repr(_sys.argv) + "\\n")
_file.close()
raise SystemExit(99)
"""


def laid(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """Lay a trap of each name into a folder; return the file that is there once one has sprung."""
    folder.mkdir(parents=True, exist_ok=True)
    sprung = folder.parent / f"{folder.name}.sprung"
    for name in names:
        (folder / f"{name}.py").write_text(_TRAP.format(sprung=str(sprung)))
    return sprung


def answer(item: Any) -> tuple[Any, bytes]:
    """Return an item as a worker's answer."""
    return item, b""
