"""A data set whose findings have boxes, and models whose answers are written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecxr.bundle.card import ModelCard
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.evaluate.evaluation import ModelOutputs
from tests.conftest import LABELS, write_prepared

# (film, finding, x_min, y_min, x_max, y_max): three of either finding, small to large, and one for validation.
BOXES = [
    (0, 0, 10, 10, 20, 20),
    (1, 0, 100, 100, 140, 140),
    (2, 0, 20, 20, 120, 120),
    (2, 0, 150, 150, 160, 160),
    (3, 1, 200, 10, 212, 22),
    (4, 1, 64, 64, 110, 110),
    (5, 1, 0, 100, 110, 210),
    (12, 1, 0, 0, 224, 224),
]


def boxed(folder: Path, copies: int = 1) -> Prepared:
    """Twelve test films, the first six with boxes, and a validation film; `copies` of all of them."""
    count = 13 * copies
    targets = np.zeros((count, 2), np.float32)
    lines = ["id,label,x_min,y_min,x_max,y_max"]
    for copy in range(copies):
        for film, label, *corners in BOXES:
            targets[13 * copy + film, label] = 1
            lines.append(",".join(map(str, (f"film{13 * copy + film}", LABELS[label], *corners))))
    splits = (["test"] * 12 + ["val"]) * copies
    images = np.random.default_rng(0).integers(0, 256, (count, 224, 224), dtype=np.uint8)
    patients = [f"p{i // 2}" for i in range(count)]
    prepared = write_prepared(folder, images, targets, targets.max(axis=1), splits, patients=patients)
    (prepared.path / "boxes.csv").write_text("\n".join(lines) + "\n")
    return Prepared.open(prepared.path)


def answered(prepared: Prepared, findings: np.ndarray, cells: list[int], grid: int = 7, **card: object) -> ModelOutputs:
    """A model that gives these logits for the test films, and looks at one patch of each: `cells`, row by row."""
    attention = np.full((len(cells), grid * grid), 0.1 / grid**2, np.float32)
    attention[np.arange(len(cells)), cells] += 0.9
    values = {"name": "m", "labels": LABELS, "size": 28, "tokens": grid**2, "patch": 4, "arch": "tiny", "depth": 2}
    outputs = Outputs(
        findings.astype(np.float32), findings.max(axis=1).astype(np.float32), attention.reshape(-1, grid, grid)
    )
    return ModelOutputs(prepared.path, ModelCard(**values | {"method": "mlcak"} | card), prepared, outputs)
