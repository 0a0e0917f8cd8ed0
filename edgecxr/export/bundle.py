"""A finished run -> a bundle of artefacts that were compared with the checkpoint on real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.artefact import atomic_folder
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError
from edgecxr.export.onnx import OPSET, check_parity, compare, export_fp32
from edgecxr.models.reference import TorchBackend
from edgecxr.runtime.bundle import Bundle, seal, sha256_of
from edgecxr.runtime.onnxruntime import OnnxRuntimeBackend
from edgecxr.runtime.preprocess import box_mean
from edgecxr.train.checkpoint import load_run

CHECKED_IMAGES = 64
FP32_FILE = "model.onnx"


def export_bundle(run: Path, prepared: Prepared, dest: Path) -> tuple[Bundle, dict[str, Any]]:
    """Export a finished run; a bundle that was at `dest` stays as it was unless every check passes.

    Args:
        run: of a teacher or student.
        prepared: the data set whose validation images the artefact is compared on.
        dest: folder of the bundle.

    Returns:
        The bundle, and the differences from the checkpoint as `compare` gives them.

    Raises:
        ModelError: the run is not finished or damaged, or the exporter failed.
        InputError: the data set has no validation images.
        CheckFailed: the artefact differs from the checkpoint.
        UsageError: `dest` cannot be written, or another process is writing it.
    """
    model, card = load_run(run)
    rows = prepared.rows("val")
    if len(rows) == 0:
        raise InputError(f"data set {prepared.name} has no validation images to check the export on", "dataset")
    # Spread over the split, which is often sorted by patient or class.
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), CHECKED_IMAGES)).astype(int))]
    images = box_mean(prepared.images[rows], card.size)[:, None]
    with atomic_folder(dest) as folder:
        file = folder / FP32_FILE
        export_fp32(model, card, file)
        differences = compare(TorchBackend(model), OnnxRuntimeBackend(file), images)
        check_parity(differences, card.name)
        facts = {"precision": "fp32", "opset": OPSET, "sha256": sha256_of(file), "bytes": file.stat().st_size}
        card = replace(card, artefacts={FP32_FILE: facts | {"parity": differences | {"data": prepared.name}}})
        seal(folder, card)
    return Bundle(dest, card), differences
