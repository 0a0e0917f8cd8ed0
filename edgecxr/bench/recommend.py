"""Which artefact should run on a device: the fastest whose AUROC is known to be close enough to the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgecxr.bench.record import Record, measured

TOLERANCE = 0.02
"""Largest drop of an AUROC, of both tasks, that is acceptable unless the user says otherwise."""


@dataclass(frozen=True)
class Recommendation:
    """What a record says about the choice.

    Attributes:
        row: the row to run; None where none is known to be good enough.
        why: a sentence for people.
    """

    row: dict[str, Any] | None
    why: str


def recommend(record: Record, tolerance: float = TOLERANCE) -> Recommendation:
    """Choose the row with the lowest median latency whose drop of AUROC is within the tolerance.

    The upper end of the drop's 95 % interval counts, for both tasks, against the teacher in FP32.

    Args:
        record: of one device.
        tolerance: largest drop.
    """
    judged = [row for row in measured(record) if _drop(row) is not None]
    students = [row for row in judged if record["models"][row["model"]]["role"] == "student"]
    if not students:
        return Recommendation(None, "none: no student was compared with its teacher on films here")
    fit = [row for row in judged if _worst(row) <= tolerance]
    bound = f"{tolerance:g} of AUROC"
    if fit:
        best = min(fit, key=lambda row: row["latency_ms"]["p50"])
        return Recommendation(
            best,
            f"{best['id']}: {best['latency_ms']['p50']:.2f} ms; with 95 % confidence it loses at most "
            f"{max(0.0, _worst(best)):.3f} of AUROC to its teacher (tolerance {tolerance:g})",
        )
    surely = [row for row in students if _best(row) > tolerance]
    if len(surely) == len(students):
        return Recommendation(None, f"none: every student loses more than {bound} to its teacher")
    nearest = min(students, key=_worst)
    films = record["data"]["images"]
    return Recommendation(
        None,
        f"none: {films} films cannot tell whether a student loses {bound} or not (nearest: {nearest['id']}, "
        f"at most {_worst(nearest):.3f}): measure on more films, or accept more with --tolerance",
    )


def _drop(row: dict[str, Any]) -> list[dict[str, float]] | None:
    found = [row.get("against_reference", {}).get(task) for task in ("findings", "abnormal")]
    return found if all(found) else None


def _worst(row: dict[str, Any]) -> float:
    """Return the upper end of the drop, of the task that loses more."""
    return max(-found["low"] for found in _drop(row) or [])


def _best(row: dict[str, Any]) -> float:
    """Return the lower end of the drop, of the task that surely loses more."""
    return max(-found["high"] for found in _drop(row) or [])
