"""Chest X-ray models for small devices.

Research use only, not a medical device.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecxr.infer.predictor import Predictor

__all__ = ["NOTICE", "__version__", "load"]

__version__ = "0.1.0.dev0"

NOTICE = "Research use only. Not a medical device; not for diagnosis."
"""Attached to every output that a person or a program could mistake for a clinical finding."""

# ONNX Runtime's official builds send telemetry to Microsoft by default; a device must send nothing unasked. The
# variable is read when onnxruntime is first imported, in child processes too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    bundle: str | os.PathLike[str] | None = None,
    *,
    backend: str = "onnxruntime",
    operating_point: str = "youden",
    precision: str = "fp32",
    threads: int | None = None,
    any_view: bool = False,
    force: bool = False,
) -> Predictor:
    """Open a model for predictions.

    Example: `edgecxr.load("student-28").predict("scan.dcm").abnormal`. It needs no torch. The predictor is
    thread-safe: threads may share it, and each gets the same results as it would alone.

    Args:
        bundle: path of a bundle, or its name in the workspace. None means EDGECXR_MODEL, else the latest bundle of
            the workspace, as for `edgecxr infer`.
        backend: the engine, a key of `edgecxr.registry.BACKENDS`.
        operating_point: the rule on the model's card that turns probabilities into decisions.
        precision: which of the bundle's model files: "fp32", "fp16" or "int8". INT8 is not always faster on a
            CPU: measure it.
        threads: number of threads for one prediction; None lets the engine choose.
        any_view: also accept films that declare a lateral or oblique view.
        force: also accept films that the quality gate refuses; their predictions say so.

    Returns:
        A `edgecxr.infer.predictor.Predictor`; its `predict` accepts a path, bytes, an open file, a pydicom data set or
        an array. Close it, or use it in a `with` block, to free the model's memory before the program ends.

    Raises:
        UsageError: no such backend, operating point or precision.
        ModelError: there is no such bundle, or it cannot be used.
        MissingPackage: the engine is not installed.
    """
    from edgecxr import resolve
    from edgecxr.infer.predictor import Predictor
    from edgecxr.workspace import Workspace

    folder = resolve.bundle(Workspace.default(), None if bundle is None else os.fspath(bundle))
    return Predictor(folder, backend, operating_point, precision, threads, any_view=any_view, force=force)
