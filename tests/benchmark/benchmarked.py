"""A workspace with a teacher and a student that can be benchmarked in seconds: tiny graphs, made without torch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.benchmark.record import NAME, VERSION, percentiles
from edgecxr.workspace import Workspace
from tests.conftest import write_prepared
from tests.tiny_bundle import LABELS, tiny_bundle

CASES = {"positives": 60, "negatives": 140}
TEACHER, STUDENT = "teacher-tiny-224", "student-tiny-28"


def workspace(root: Path) -> Workspace:
    """Write a data set on which both models are good, and the bundles of both."""
    rng = np.random.default_rng(0)
    count = 40
    targets = rng.integers(0, 2, (count, 3)).astype(np.float32)
    images = rng.integers(60, 160, (count, 224, 224), dtype=np.uint8)
    for column, (rows, columns) in enumerate(((0, 0), (0, 1), (1, 0))):  # a finding is a bright quadrant
        patch = images[targets[:, column] == 1, 112 * rows : 112 * rows + 112, 112 * columns : 112 * columns + 112]
        images[targets[:, column] == 1, 112 * rows : 112 * rows + 112, 112 * columns : 112 * columns + 112] = patch + 2
    splits = ["train"] * 8 + ["val"] * 8 + ["test"] * 24
    prepared = write_prepared(root / "data" / "quadrants", images, targets, targets.max(axis=1), splits, LABELS)
    data = {"name": prepared.name, "hash": prepared.hash}
    tiny_bundle(root / "export" / TEACHER, 224, name=TEACHER, method="teacher", data=data, sha256="a" * 64)
    tiny_bundle(
        root / "export" / STUDENT, 28, name=STUDENT, method="mlcak", data=data, sha256="b" * 64,
        training={"teacher_sha256": "a" * 64},
    )  # fmt: skip
    return Workspace(root)


def interval(value: float, half: float = 0.02) -> dict[str, Any]:
    return {"auroc": value, "low": value - half, "high": value + half}


def difference(value: float, half: float = 0.01) -> dict[str, float]:
    return {"difference": value, "low": value - half, "high": value + half, "p": 0.5}


def row(
    model: str, backend: str, precision: str, ms: float, drop: float | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a row of a record: `ms` for every run, and an AUROC that is `drop` below the teacher's."""
    row: dict[str, Any] = {
        "id": f"{model}/{backend}/{precision}", "model": model, "backend": backend, "precision": precision,
        "threads": 1, "gpu": False, "status": "ok",
        "artefact": {"file": "model.onnx", "sha256": "c" * 64, "bytes": 22_000_000},
        "start_s": {"process": 0.1, "open": 0.2, "first": 0.1, "total": 0.4},
        "latency_ms": percentiles([ms / 1000] * 120),
        "throughput": [
            {"batch": 1, "images_per_s": 1000 / ms, "ms": ms, "runs": 120},
            {"batch": 64, "skipped": "one run would take about 20 s"},
        ],
        "film_ms": {stage: percentiles([0.01] * 3) for stage in ("decode", "preprocess", "model", "total")},
        "memory_mib": {"host": 100.0, "host_largest_batch": 120.0, "device": None, "device_largest_batch": None},
        "energy": {"absent": "no meter here"},
    }  # fmt: skip
    if drop is not None:
        row["auroc"] = {
            "findings": interval(0.8 - drop), "abnormal": interval(0.9 - drop) | CASES,
            "labels": {"Nodule/Mass": interval(0.7 - drop) | CASES, "Edema": interval(0.85 - drop) | CASES},
        }  # fmt: skip
        if drop or model != TEACHER:
            against = {"row": f"{TEACHER}/{backend}/fp32", "findings": difference(-drop), "abnormal": difference(-drop)}
            row["against_teacher"] = row["against_reference"] = against
    return row | changes


def record(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return a whole record with these rows, of one teacher and students."""
    models = {}
    for row in rows:
        teacher = row["model"].startswith("teacher")
        models[row["model"]] = {
            "role": "teacher" if teacher else "student", "size": 224 if teacher else 28, "weights": "trained",
            "labels": ["Nodule/Mass", "Edema"], "sha256": "", "teacher_sha256": None,
            "compared_with": None if teacher else TEACHER, "trained_on_other_data": False,
        }  # fmt: skip
    return copy.deepcopy(
        {
            "schema": NAME, "version": VERSION, "notice": "Research use only.", "created": "2026-11-26T00:00:00+00:00",
            "complete": True, "command": "edgecxr benchmark", "versions": {"numpy": "2.0"},
            "device": {
                "name": "Some <board>", "cpu": {"allowed": 2}, "gpus": [], "system": "Linux", "machine": "x86_64",
            },
            "settings": {"threads": 1, "passes": 3, "turns": 12, "max_batch": 64, "split": "test"},
            "film": "synthetic", "conditions": [],
            "models": models, "rows": rows,
            "data": {
                "name": "quadrants", "hash": "d", "split": "test", "images": 200, "patients": 150, "phantom": False,
                "replicates": 1000,
            },
            "absent": {}, "warnings": [],
        }
        | changes
    )  # fmt: skip
