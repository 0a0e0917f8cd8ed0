"""Choice of the INT8 calibration that keeps the most AUROC.

Numbers of images and methods are tried, and judged on the validation split.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.prepared import Prepared
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.evaluate.comparison import aurocs
from edgecxr.export.calibration_images import Calibration, choose
from edgecxr.export.lower_precision import CALIBRATION_BATCH, Ranges, calibrate_on, to_int8, weighted_layers
from edgecxr.export.parity import TASKS, Truth, logits_of
from edgecxr.export.recipe import Recipe
from edgecxr.vocabulary import FloatArray


def quantise(
    source: Path,
    dest: Path,
    truth: Truth,
    size: int,
    recipe: Recipe,
    float_part: str,
    keep: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the INT8 file of the best calibration.

    Args:
        source: an FP32 file.
        dest: the file to write.
        truth: images, labels and the checkpoint's logits; the training images of its data set calibrate.
        size: side of the model's input in pixels.
        recipe: the numbers of images and the methods to try.
        float_part: precision of the layers that are not quantised: "fp32" or "fp16".
        keep: names of layers that stay floating point.
        progress: called with (calibrations done, calibrations in all).

    Returns:
        Facts for the card: those of `to_int8`, "calibration" (the choice and all scores) and "layers" (by kind).

    Raises:
        InputError: the training split is not fit for calibration; reason "dataset".
        ModelError: the file cannot be quantised.
    """
    choices = {choice.sha256: choice for choice in (_choices(truth.prepared, recipe))}
    pairs = [(choice, method) for choice in choices.values() for method in recipe.calibration_methods]
    tried: list[dict[str, Any]] = []
    best: tuple[float, float] | None = None
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".try-") as folder:
        file = Path(folder) / "try.onnx"
        for done, (choice, method) in enumerate(pairs, start=1):
            ranges = ranges_of(source, truth.prepared, choice, size, method)
            facts = to_int8(source, file, ranges, float_part, keep)
            logits = logits_of(OnnxRuntimeBackend(file), truth.prepared, truth.split, size)
            score = _score(truth, logits), -float(np.sqrt(np.mean((logits - truth.logits) ** 2)))
            tried.append(
                {"method": method, "images": len(choice.rows), "val_auroc": score[0], "rms_logit_difference": -score[1]}
            )
            if best is None or score > best:
                best = score
                chosen = choice.to_dict() | {"method": method}
                shutil.copyfile(file, dest)
            progress(done, len(pairs))
    layers = weighted_layers(source)
    kept = [layer for layer in layers if layer in set(keep)]
    return facts | {
        "calibration": chosen | {"tried": tried},
        "layers": {"int8": len(layers) - len(kept), "float": kept},
    }


def ranges_of(source: Path, prepared: Prepared, choice: Calibration, size: int, method: str) -> Ranges:
    """Calibrate a file on chosen images, read in batches."""
    starts = range(0, len(choice.rows), CALIBRATION_BATCH)
    batches = (prepared.inputs(choice.rows[start : start + CALIBRATION_BATCH], size) for start in starts)
    return calibrate_on(source, batches, method)


def _choices(prepared: Prepared, recipe: Recipe) -> list[Calibration]:
    return [choose(prepared, count, recipe.seed) for count in recipe.calibration_images]


def _score(truth: Truth, logits: FloatArray) -> float:
    """Return the mean AUROC of both tasks, or 0 without any.

    If neither task has an AUROC, the score of 0 lets the logits decide.
    """
    areas = aurocs(truth.prepared, truth.split, logits, truth.weights[:1])
    values = [value for task in TASKS for value in areas[task].labels if not np.isnan(value)]
    # Rounding drops what a few swapped pairs of films would change: there, the logits are the better judge.
    return round(float(np.mean(values)), 3) if values else 0.0
