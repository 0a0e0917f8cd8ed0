"""AUROCs of everything that a benchmark measured, and how far each is from the teacher, on the same films."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from edgecxr import metrics
from edgecxr.bench.candidates import Candidate, Model
from edgecxr.bench.comparison import aurocs, difference
from edgecxr.data.prepared import Prepared
from edgecxr.runtime.types import Outputs

Scored = dict[str, metrics.Aurocs]


def teacher_of(model: Model, models: Iterable[Model]) -> Model | None:
    """Return the teacher that a model is held against: its own, or else the only one for the same findings."""
    teachers = {other.sha256: other for other in models if other.role == "teacher" and other.labels == model.labels}
    if model.role != "student":
        return None
    own = teachers.get(model.teacher_sha256 or "")
    return own or (next(iter(teachers.values())) if len(teachers) == 1 else None)


def rows(
    candidates: list[Candidate], outputs: Mapping[str, Outputs], prepared: Prepared, split: str, replicates: int
) -> dict[str, dict[str, Any]]:
    """Score what the candidates said of a split.

    Args:
        candidates: all of them.
        outputs: a candidate's id -> what it said of the split's images, in order.
        prepared: the data set.
        split: its name.
        replicates: bootstrap replicates of whole patients, the same for all.

    Returns:
        A candidate's id -> the keys that it adds to its row: "auroc", and where there is one to compare with,
        "against_teacher" (the teacher on the same engine and at the same precision) and "against_reference" (the
        teacher's first row of the highest precision).
    """
    weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates)
    scored = {name: aurocs(prepared, split, found, weights) for name, found in outputs.items()}
    models = [candidate.model for candidate in candidates]
    found: dict[str, dict[str, Any]] = {}
    for one in candidates:
        if one.id not in scored:
            continue
        ours = scored[one.id]
        labels = {label: _interval(ours["findings"].of(i)) for i, label in enumerate(prepared.labels)}
        found[one.id] = {
            "auroc": {
                "findings": _interval(ours["findings"].macro),
                "abnormal": _interval(ours["abnormal"].macro),
                "labels": {label: value for label, value in labels.items() if value},
            }
        }
        # A teacher's own rows are held against its best one, too: its INT8 file may lose something.
        teacher = one.model if one.model.role == "teacher" else teacher_of(one.model, models)
        rivals = [c for c in candidates if teacher and c.model.name == teacher.name and c.id in scored]
        same = next((rival for rival in rivals if rival.group == one.group), None)
        for key, rival in (("against_teacher", same), ("against_reference", reference(rivals))):
            if rival and rival is not one:
                found[one.id][key] = {
                    "row": rival.id, **{task: difference(ours[task], scored[rival.id][task]) for task in ours},
                }  # fmt: skip
    return found


def reference(rivals: list[Candidate]) -> Candidate | None:
    """Return the row of a teacher that is its answer at its best: FP32 on the first engine that has it."""
    order = ("fp32", "fp16", "int8")
    return min(rivals, key=lambda one: order.index(one.precision), default=None)


def _interval(found: metrics.Interval) -> dict[str, float] | None:
    if any(math.isnan(value) for value in (found.value, found.low, found.high)):
        return None
    return {"auroc": found.value, "low": found.low, "high": found.high}
