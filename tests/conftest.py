"""Small prepared data sets and runs that several tests share."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.prepared import FIXED_COLUMNS, FORMAT, Prepared, content_hash

LABELS = ("Cardiomegaly", "Nodule/Mass")


def write_prepared(
    folder: Path,
    images: np.ndarray,
    targets: np.ndarray,
    abnormal: np.ndarray,
    splits: list[str],
    labels: tuple[str, ...] = LABELS,
    patients: list[str] | None = None,
) -> Prepared:
    """Write a prepared data set straight from arrays: (N, 224, 224) uint8, (N, L), (N,)."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*FIXED_COLUMNS, *labels])
        for i, split in enumerate(splits):
            values = ["" if np.isnan(v) else f"{v:g}" for v in (abnormal[i], *targets[i])]
            table.writerow([f"film{i}", patients[i] if patients else f"p{i}", split, *values])
    info = {
        "format": FORMAT, "name": folder.name, "labels": labels, "phantom": True, "images": len(images), "rejected": {},
        "counts": {}, "provenance": {}, "hash": content_hash(folder), "version": "test",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(info))
    return Prepared.open(folder)


def striped(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return films whose first label is bright on the left, whose second is bright below; both easy to learn."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (count, 2)).astype(np.float32)
    images = rng.integers(40, 90, (count, 224, 224), dtype=np.uint8)
    images[targets[:, 0] == 1, :, :112] += 120
    images[targets[:, 1] == 1, 112:] += 40
    abnormal = targets.max(axis=1)
    targets[::7, 1] = np.nan
    splits = (["train"] * (count - 2 * (count // 4))) + ["val"] * (count // 4) + ["test"] * (count // 4)
    return images, targets, abnormal, splits


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return write_prepared(tmp_path / "runs" / "data" / "striped", *striped())


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch to one thread: the tests run in several processes, and results shall not depend on the machine."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
