"""edgecxr: chest X-ray models for small devices. Research use only, not a medical device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecxr.infer.predictor import Predictor

__all__ = ["NOTICE", "__version__", "load"]

__version__ = "0.1.0.dev0"

NOTICE = "Research use only. Not a medical device; not for diagnosis."
"""Goes with every output that a person or a program could take for a finding."""

# ONNX Runtime's official builds report their use to Microsoft by default, and nothing shall leave a device unasked. It
# reads this when it is first imported, whoever does that, in child processes too.
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
    """Open a model for predictions: `edgecxr.load("student-28").predict("scan.dcm").abnormal`.

    No torch is needed. The predictor is thread-safe: threads may share it, and each gets what it would get alone.

    Args:
        bundle: path of a bundle, or its name in the workspace; None takes what `edgecxr infer` would take, which is
            EDGECXR_MODEL, else the latest bundle of the workspace.
        backend: the engine, a key of `edgecxr.registry.BACKENDS`.
        operating_point: the rule on the model's card that turns probabilities into decisions.
        precision: which of the bundle's model files: "fp32", "fp16" or "int8". On a CPU INT8 is not the faster one
            as a matter of course: measure it.
        threads: how many threads one prediction computes with; None leaves it to the engine.
        any_view: look at films that say that they are lateral or oblique, too.
        force: look at films that the quality gate refuses, too; their predictions say so.

    Returns:
        A `edgecxr.infer.predictor.Predictor`; its `predict` takes a path or an array. Close it, or use it in a
        `with` block, where the model's memory is wanted back before the program ends.

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
