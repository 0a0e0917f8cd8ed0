"""AUROCs of a benchmark's candidates, and their differences to the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from edgecxr import metrics
from edgecxr.benchmark.candidates import Candidate, Model
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.evaluate.comparison import aurocs, difference


def teacher_of(model: Model, models: Iterable[Model]) -> Model | None:
    """Return the teacher to compare a model with.

    It is the student's own teacher. For a student without one it is the only teacher with the same findings.

    Returns:
        The teacher; None if there is none, if several qualify, or if the model is not a student.
    """
    teachers = {other.sha256: other for other in models if other.role == "teacher" and other.labels == model.labels}
    if model.role != "student":
        return None
    if model.teacher_sha256:
        return teachers.get(model.teacher_sha256)
    return next(iter(teachers.values())) if len(teachers) == 1 else None


class Scores:
    """AUROCs of the candidates scored so far.

    All are computed on the same films and bootstrap replicates.

    Args:
        candidates: all of them.
        prepared: the data set.
        split: its name.
        replicates: number of bootstrap replicates, which resample whole patients.
    """

    def __init__(self, candidates: list[Candidate], prepared: Prepared, split: str, replicates: int) -> None:
        self._candidates, self._prepared, self._split = candidates, prepared, split
        rows = prepared.rows(split)
        self._weights = metrics.patient_weights(prepared.patients[rows], replicates)
        self._counts = {label: metrics.counts(prepared.targets[rows, i]) for i, label in enumerate(prepared.labels)}
        self._abnormal_counts = metrics.counts(prepared.abnormal[rows])
        self._scored: dict[str, dict[str, metrics.Aurocs]] = {}

    def add(self, candidate: Candidate, outputs: Outputs) -> None:
        """Compute a candidate's AUROCs from its outputs.

        Args:
            candidate: the candidate.
            outputs: on the images of the split, in order.
        """
        self._scored[candidate.id] = aurocs(self._prepared, self._split, outputs.logits, self._weights)

    def row(self, candidate: Candidate) -> dict[str, Any]:
        """Return the AUROC keys of a candidate's row.

        Returns:
            "auroc"; and, if there is a row to compare with, "against_teacher" (the teacher on the same engine and at
            the same precision) and "against_reference" (the teacher's first row in FP32). Empty before the candidate
            was scored.
        """
        if candidate.id not in self._scored:
            return {}
        ours = self._scored[candidate.id]
        labels = {
            label: _interval(ours["findings"].of(i), self._counts[label])
            for i, label in enumerate(self._prepared.labels)
        }
        result: dict[str, Any] = {
            "auroc": {
                "findings": _interval(ours["findings"].macro),
                "abnormal": _interval(ours["abnormal"].macro, self._abnormal_counts),
                "labels": {label: value for label, value in labels.items() if value},
            }
        }
        # Compare a teacher with its own FP32 row, too, since its INT8 file may lose AUROC.
        models = [candidate.model for candidate in self._candidates]
        teacher = candidate.model if candidate.model.role == "teacher" else teacher_of(candidate.model, models)
        rivals = [c for c in self._candidates if teacher and c.model.name == teacher.name and c.id in self._scored]
        same = next((rival for rival in rivals if rival.group == candidate.group), None)
        best = next((rival for rival in rivals if rival.precision == "fp32"), None)
        for key, rival in (("against_teacher", same), ("against_reference", best)):
            if rival and rival is not candidate:
                differences = {task: difference(ours[task], self._scored[rival.id][task]) for task in ours}
                result[key] = {"row": rival.id, **differences}
        return result


def _interval(interval: metrics.Interval, counts: tuple[int, int] | None = None) -> dict[str, float] | None:
    if any(math.isnan(value) for value in (interval.value, interval.low, interval.high)):
        return None
    cases = dict(zip(("positives", "negatives"), counts, strict=True)) if counts else {}
    return {"auroc": interval.value, "low": interval.low, "high": interval.high} | cases
