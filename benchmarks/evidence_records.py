"""The records of `evidence.py`: read, put into words, held against a plan. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evidence_plan import DataSet, Plan

from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, UsageError


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
        assert record["run"] == name and record["status"] in ("done", "diverged")
        assert isinstance(record["spec"], dict) and isinstance(record["data"]["hash"], str) and record["commit"]
        if record["status"] == "done":
            assert record["weights"]["sha256"] and (records / f"{name}.npz").exists()
        return dict(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
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
        differs = [key for key, value in run.spec.items() if record["spec"].get(key) != value]
        if record["data"]["hash"] != hashes.get(run.data, record["data"]["hash"]):
            differs.append(f"data set {run.data}")
        if run.teacher and record["teacher"] != {"run": run.teacher, "sha256": weights_of(records, run.teacher)}:
            differs.append(f"weights of {run.teacher}")
        if run.start and record["start"] != {"run": run.start, "sha256": weights_of(records, run.start)}:
            differs.append(f"weights of {run.start}")
        if differs:
            raise UsageError(
                f"{records / run.id}.json was made with another {', another '.join(differs)}: a changed protocol is a "
                "plan of another name"
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
    found = Prepared.open(path).hash
    if entry.hash not in (None, found):
        raise InputError(
            f"{path} is not the data set of the plan (its hash is {found}): prepare it again, or give a plan of other "
            "data another name",
            "dataset",
        )
    return found
