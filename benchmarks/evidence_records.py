"""The records of `evidence.py`: read, put into words, held against a plan. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from evidence_plan import DataSet, Plan

from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.errors import InputError, UsageError, brief

ROUNDED = 1e-4
"""By which an AUROC of a record may differ from that of the answers beside it: it is rounded."""


def result(record: dict[str, Any]) -> str:
    """Return a record in a few words."""
    if record["status"] != "done":
        return f"{record['status']}: {record['message']}"
    test = record["test"]
    scores = " / ".join("-" if test[task] is None else f"{test[task]:.3f}" for task in ("findings", "abnormal"))
    return f"test AUROC findings / abnormal {scores}, best epoch {record['best_epoch']}, {record['minutes']} min"


def record_of(records: Path, name: str) -> dict[str, Any] | None:
    """Return the record of a run; None where there is none yet.

    Raises:
        InputError: it is damaged.
    """
    path = records / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = record["run"] == name and record["status"] in ("done", "diverged") and record["commit"]
        whole = whole and isinstance(record["spec"], dict) and isinstance(record["data"]["hash"], str)
        if record["status"] == "done":
            whole = whole and record["weights"]["sha256"] and {"findings", "abnormal"} <= record["test"].keys()
            whole = whole and (records / f"{name}.npz").exists()
        if not whole:
            raise ValueError("something is missing")
        return dict(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no whole record of a training ({type(error).__name__}): restore it and the .npz beside it, or "
            "remove both",
            "malformed",
        ) from error


def check_records(plan: Plan, records: Path, hashes: dict[str, str]) -> None:
    """Refuse to go on where the records are of other settings, data, teachers or starts than the plan's.

    Args:
        plan: what is asked for.
        records: folder of the records that there are.
        hashes: of the plan's data sets.

    Raises:
        UsageError: names the run and what differs.
    """
    for run in plan.runs:
        record = record_of(records, run.id)
        if record is None:
            continue
        # Another plan may have needed the weights, and so rounded them; the other way round they are lacking.
        kept = {"keep_weights": True} if record["spec"].get("keep_weights") else {}
        differs = [key for key, value in (run.spec | kept).items() if record["spec"].get(key) != value]
        if record["data"]["hash"] != (hashes.get(run.data) or plan.data[run.data].hash or record["data"]["hash"]):
            differs.append(f"data set {run.data}")
        undistilled = run.settings.get("undistilled")
        for key, needed in (("teacher", run.teacher), ("start", run.start), ("undistilled", undistilled)):
            if needed and record[key] != {"run": needed, "sha256": weights_of(records, needed)}:
                differs.append(f"weights of {needed}")
        if differs:
            raise UsageError(
                f"{records / run.id}.json was made with another {', another '.join(differs)}: a changed protocol is a "
                "plan of another name"
            )


def answers(records: Path, name: str, images: int, labels: int) -> Outputs:
    """Return what a finished run answers for the test films; its attention is 1 where it is strongest, else 0.

    Args:
        records: where it is.
        name: id of the run.
        images: number of the test films.
        labels: number of findings.

    Raises:
        InputError: it is damaged, or is not of these films.
    """
    path = records / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            grid, strongest = int(file["grid"]), file["strongest"]
            findings, abnormal = file["findings"], file["abnormal"]
        if findings.shape != (images, labels) or abnormal.shape != (images,) or strongest.shape != (images,):
            raise ValueError(f"it has findings of shape {findings.shape}, not ({images}, {labels})")
        if not (np.isfinite(findings).all() and np.isfinite(abnormal).all()):
            raise ValueError("it has logits that are no finite numbers")
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is not what a run answers for these films ({brief(error)}): restore it, or remove it and "
            f"{name}.json",
            "malformed",
        ) from error
    attention = strongest[:, None] == np.arange(grid * grid)
    return Outputs(findings, abnormal, attention.reshape(-1, grid, grid).astype(np.float32))


def check_answers(records: Path, name: str, findings: float, abnormal: float) -> None:
    """Refuse answers of another run: their AUROCs are not those of the record.

    Args:
        records: where both are.
        name: id of the run.
        findings: macro AUROC of its answers.
        abnormal: AUROC of its answers.

    Raises:
        InputError: they differ.
    """
    test = (record_of(records, name) or {})["test"]
    for task, value in (("findings", findings), ("abnormal", abnormal)):
        if (test[task] is None) != math.isnan(value) or (test[task] is not None and abs(test[task] - value) > ROUNDED):
            raise InputError(
                f"{records / name}.npz gives an AUROC of {value:.5f} in {task} and {name}.json says {test[task]}: they "
                "are not of the same run; restore both, or remove both",
                "malformed",
            )


def weights_of(records: Path, name: str | None) -> str | None:
    """Return the SHA-256 of a run's weights; None where it has no record of any."""
    record = (record_of(records, name) if name else None) or {}
    return record.get("weights", {}).get("sha256")


def data_hash(entry: DataSet, folder: Path) -> str:
    """Return the hash of a prepared data set.

    Raises:
        InputError: it is damaged, or another one than the plan says.
    """
    path = folder / "data" / entry.name
    digest = Prepared.open(path).hash
    if entry.hash not in (None, digest):
        raise InputError(
            f"{path} is not the data set of the plan (its hash is {digest}): prepare it again, or give a plan of other "
            "data another name",
            "dataset",
        )
    return digest
