"""Recommendation of the fastest artefact with an AUROC close to the teacher's."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from edgecxr.benchmark.record import Record, measured
from edgecxr.registry import OF_CHECKPOINTS
from edgecxr.vocabulary import FEW_CASES

TASKS = ("findings", "abnormal")


@dataclass(frozen=True)
class Recommendation:
    """The row to run on a device, with the reason.

    Attributes:
        row: the row to run; None if none is known to be good enough.
        why: the reason, as a sentence for users.
    """

    row: dict[str, Any] | None
    why: str


def recommend(record: Record, tolerance: float) -> Recommendation:
    """Recommend the fastest row whose AUROC drop is within the tolerance.

    The fastest row is the one with the lowest median latency. For both tasks, the upper end of the
    drop's 95 % interval must be within the tolerance, compared with the teacher in FP32. If there are several teachers,
    the one with the highest AUROCs is the reference, and only its students are considered.

    Args:
        record: of one device.
        tolerance: largest acceptable drop of AUROC.
    """
    choice = _chosen(record, tolerance)
    if choice.row is None:
        return choice
    row = choice.row
    model, backend = shlex.quote(row["model"]), shlex.quote(row["backend"])  # users copy it into a shell
    command = f"edgecxr infer FILM --model {model} --backend {backend} --precision {row['precision']}"
    doubt = " The times are doubtful, see the warnings: measure again." if record["warnings"] else ""
    hint = f" (`{command}`)." if row["backend"] not in OF_CHECKPOINTS else "."
    return Recommendation(row, choice.why + hint + doubt)


def _chosen(record: Record, tolerance: float) -> Recommendation:
    teacher = _best_teacher(record)
    if teacher is None:
        return Recommendation(
            None, "none: no teacher and student in FP32 were scored on the same films; give both, and --data"
        )
    judged = [row for row in measured(record) if row.get("against_reference", {}).get("row") == teacher["id"]]
    students = [row for row in judged if record["models"][row["model"]]["role"] == "student"]
    if not students:
        return Recommendation(None, f"none: no student of {teacher['model']} was scored on films here")
    if scarce := _scarce(teacher):
        return Recommendation(None, f"none: {scarce} are too few to judge by: measure on more films")
    bound = f"{tolerance:g} of AUROC"
    acceptable = [row for row in [*judged, teacher] if _worst(row) <= tolerance]
    best = min(acceptable, key=lambda row: row["latency_ms"]["p50"])
    ms = f"{best['id']}: {best['latency_ms']['p50']:.2f} ms"
    if record["models"][best["model"]]["role"] == "student":
        loss = max(0.0, _worst(best))
        why = f"{ms}; with 95 % confidence it loses at most {loss:.3f} of AUROC to {teacher['model']}"
        return Recommendation(best, f"{why} (tolerance {tolerance:g})")
    if all(_least(row) > tolerance for row in students):
        return Recommendation(best, f"the teacher, {ms}: every student loses more than {bound} to it")
    nearest = min(students, key=_worst)
    return Recommendation(
        best,
        f"the teacher, {ms}: {record['data']['images']} films cannot tell whether a student loses {bound} or not "
        f"(nearest: {nearest['id']}, at most {_worst(nearest):.3f}); measure on more films, or accept a larger drop "
        "with --tolerance",
    )


def _best_teacher(record: Record) -> dict[str, Any] | None:
    """Return the FP32 row of the teacher with the highest AUROCs."""
    rows = {row["id"]: row for row in measured(record)}
    references = {row.get("against_reference", {}).get("row") for row in rows.values()}
    teachers = [rows[name] for name in references if name in rows and _areas(rows[name])]
    return max(teachers, key=lambda row: (sum(_areas(row)), row["id"]), default=None)


def _areas(row: dict[str, Any]) -> list[float]:
    return [area["auroc"] for task in TASKS if (area := row.get("auroc", {}).get(task))]


def _scarce(row: dict[str, Any]) -> str:
    """Return which films are too few, "" if none are.

    With few films, bootstrap intervals are too narrow.
    """
    auroc = row["auroc"]
    labels = [min(area["positives"], area["negatives"]) for area in auroc["labels"].values()]
    if labels and max(labels) < FEW_CASES:
        return f"fewer than {FEW_CASES} films with, or without, each finding"
    abnormal = auroc["abnormal"]
    if abnormal and min(abnormal["positives"], abnormal["negatives"]) < FEW_CASES:
        return f"{abnormal['positives']} abnormal and {abnormal['negatives']} normal films"
    return ""


def _differences(row: dict[str, Any]) -> list[dict[str, float]]:
    """Return the differences to the teacher.

    Tasks without an AUROC are left out; the list is empty for the teacher itself.
    """
    return [difference for task in TASKS if (difference := row.get("against_reference", {}).get(task))]


def _worst(row: dict[str, Any]) -> float:
    """Return the larger upper bound of the AUROC drop of both tasks."""
    return max((-difference["low"] for difference in _differences(row)), default=0.0)


def _least(row: dict[str, Any]) -> float:
    """Return the larger lower bound of the AUROC drop of both tasks."""
    return max((-difference["high"] for difference in _differences(row)), default=0.0)
