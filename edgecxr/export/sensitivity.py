"""Analysis of what INT8 costs, layer by layer.

Each layer is quantised alone, everything else stays FP32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.export.lower_precision import Ranges, to_int8, weighted_layers
from edgecxr.export.parity import TASKS, Truth, logits_of, same_auroc
from edgecxr.registry import load
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.spreadsheet import csv_text
from edgecxr.terminal import joined


@dataclass(frozen=True)
class Cost:
    """Losses from quantising one layer alone.

    Attributes:
        layer: name of the layer.
        rms: root mean square of the logits' differences from the checkpoint.
        drop: AUROC of the checkpoint minus that with the layer quantised, by task; NaN if unknown.
    """

    layer: str
    rms: float
    drop: dict[str, float]


def analyse(source: Path, ranges: Ranges, truth: Truth, size: int, progress: Callable[[int, int], None]) -> list[Cost]:
    """Quantise one layer at a time and compare with the checkpoint.

    Args:
        source: an FP32 file.
        ranges: from `calibrate` on this file.
        truth: images, labels and the checkpoint's logits.
        size: side of the model's input in pixels.
        progress: called with (layers done, layers in all).

    Returns:
        The costs, the worst first. They are ranked by `rms`, since AUROCs of a few hundred images are too coarse.
    """
    layers = weighted_layers(source)
    costs = []
    with tempfile.TemporaryDirectory(dir=source.parent, prefix=".analyse-") as folder:
        file = Path(folder) / "one.onnx"
        for done, layer in enumerate(layers, start=1):
            to_int8(source, file, ranges, keep=[other for other in layers if other != layer])
            logits = logits_of(OnnxRuntimeBackend(file), truth.prepared, truth.split, size)
            drop = same_auroc(truth, logits, tolerance=0).drop
            rms = float(np.sqrt(np.mean((logits - truth.logits) ** 2)))
            costs.append(Cost(layer, rms, {task: drop[task].value for task in TASKS}))
            progress(done, len(layers))
    return sorted(costs, key=lambda cost: -cost.rms)


def worst(costs: Sequence[Cost], count: int) -> tuple[str, ...]:
    """Return the names of the layers that cost most."""
    return tuple(cost.layer for cost in costs[:count])


def table(costs: Sequence[Cost], rows: int = 12) -> str:
    """Return a text table of the layers that cost most."""
    title = "layer quantised alone"
    width = max(len(title), *(len(cost.layer) for cost in costs))
    lines = [f"{title:{width}}  RMS of logits  AUROC drop: findings  abnormal"]
    for cost in costs[:rows]:
        drops = f"{cost.drop['findings']:+20.4f}  {cost.drop['abnormal']:+8.4f}"
        lines.append(f"{cost.layer:{width}}  {cost.rms:13.5f}  {drops}")
    if len(costs) > rows:
        lines.append(f"and {len(costs) - rows} layers that cost less")
    return joined(lines)


def write(costs: Sequence[Cost], folder: Path, title: str) -> tuple[Path, Path]:
    """Write int8-layers.csv and int8-layers.png into `folder` and return their paths."""
    header = ["layer", "rms", *(f"auroc_drop_{task}" for task in TASKS)]
    text = csv_text(header, ([cost.layer, cost.rms, *(cost.drop[task] for task in TASKS)] for cost in costs))
    numbers, picture = folder / "int8-layers.csv", folder / "int8-layers.png"
    atomic_write(numbers, text)
    load("edgecxr.plots.int8_cost:int8_cost", "plots")(costs, TASKS, title, picture)
    return numbers, picture
