"""Which artefact should run on a device: the fastest whose AUROC is known to be close enough to the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecxr.benchmark.record import Record, measured
from edgecxr.registry import OF_CHECKPOINTS
from edgecxr.vocabulary import FEW_CASES

TASKS = ("findings", "abnormal")


@dataclass(frozen=True)
class Recommendation:
    """What a record says about the choice.

    Attributes:
        row: the row to run; None where none is known to be good enough.
        why: a sentence for people.
    """

    row: dict[str, Any] | None
    why: str


def recommend(record: Record, tolerance: float) -> Recommendation:
    """Choose the row with the lowest median latency whose drop of AUROC is within the tolerance.

    The upper end of the drop's 95 % interval counts, for both tasks, against the teacher in FP32. Where there are
    several teachers, the one with the highest AUROCs is the measure, and only its students are judged.

    Args:
        record: of one device.
        tolerance: largest drop.
    """
    found = _chosen(record, tolerance)
    if found.row is None:
        return found
    row = found.row
    typed = f"edgecxr infer FILM --model {row['model']} --backend {row['backend']} --precision {row['precision']}"
    doubt = " BUT THE TIMES ARE DOUBTFUL, see the warnings: measure again." if record["warnings"] else ""
    hint = f" (`{typed}`)." if row["backend"] not in OF_CHECKPOINTS else "."
    return Recommendation(row, found.why + hint + doubt)


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
    fit = [row for row in [*judged, teacher] if _worst(row) <= tolerance]
    best = min(fit, key=lambda row: row["latency_ms"]["p50"])
    ms = f"{best['id']}: {best['latency_ms']['p50']:.2f} ms"
    if record["models"][best["model"]]["role"] == "student":
        most = max(0.0, _worst(best))
        why = f"{ms}; with 95 % confidence it loses at most {most:.3f} of AUROC to {teacher['model']}"
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
    """Return the FP32 row that students are held against, of the teacher with the highest AUROCs."""
    rows = {row["id"]: row for row in measured(record)}
    named = {row.get("against_reference", {}).get("row") for row in rows.values()}
    found = [rows[name] for name in named if name in rows and _areas(rows[name])]
    return max(found, key=lambda row: (sum(_areas(row)), row["id"]), default=None)


def _areas(row: dict[str, Any]) -> list[float]:
    return [area["auroc"] for task in TASKS if (area := row["auroc"][task])]


def _scarce(row: dict[str, Any]) -> str:
    """Return what there is too little of in the data; with few films, intervals are too narrow to be true."""
    auroc = row["auroc"]
    labels = [min(area["positives"], area["negatives"]) for area in auroc["labels"].values()]
    if labels and max(labels) < FEW_CASES:
        return f"fewer than {FEW_CASES} films with, or without, each finding"
    abnormal = auroc["abnormal"]
    if abnormal and min(abnormal["positives"], abnormal["negatives"]) < FEW_CASES:
        return f"{abnormal['positives']} abnormal and {abnormal['negatives']} normal films"
    return ""


def _differences(row: dict[str, Any]) -> list[dict[str, float]]:
    """Return the differences to the teacher of the tasks that have an AUROC; none of the teacher itself."""
    return [found for task in TASKS if (found := row.get("against_reference", {}).get(task))]


def _worst(row: dict[str, Any]) -> float:
    """Return the upper end of the drop, of the task that loses more."""
    return max((-found["low"] for found in _differences(row)), default=0.0)


def _least(row: dict[str, Any]) -> float:
    """Return the lower end of the drop, of the task that surely loses more."""
    return max((-found["high"] for found in _differences(row)), default=0.0)
