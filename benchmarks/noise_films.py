"""Films of noise, prepared, for benchmarks of training. No torch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from edgecxr.data.adapters.folder import folder as open_folder
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.prepared import Prepared
from edgecxr.workspace import Workspace

LABELS = 14


def films(folder: Path, workspace: Workspace, count: int) -> Prepared:
    """Prepare films of noise, `count` of them for training; what is on them makes no difference to time."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    splits = ["train"] * count + ["val"] * 4
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "split", *(f"Finding {n}" for n in range(1, LABELS + 1)), "abnormal"])
        for i, split in enumerate(splits):
            Image.fromarray(rng.integers(0, 256, (224, 224), dtype=np.uint8)).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", i, split, *[i % 2] * (LABELS + 1)])
    return prepare(open_folder(folder, name="films"), workspace.data_dir("films"))
