from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.benchmark import aurocs
from edgecxr.benchmark.candidates import Candidate, Model
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs


def model(name: str, role: str, sha256: str, teacher: str | None = None, labels: tuple[str, ...] = ("a",)) -> Model:
    return Model(name, role, (1, 28, 28), "trained", labels, {}, sha256, teacher)


def candidate(model: Model, backend: str = "onnxruntime", precision: str = "fp32") -> Candidate:
    return Candidate(model, backend, precision, "", {}, Path("model.onnx"))


def test_a_student_is_held_against_its_own_teacher_or_the_only_one_of_its_findings() -> None:
    first, second = model("first", "teacher", "1"), model("second", "teacher", "2")
    other = model("other", "teacher", "3", labels=("b",))
    taught, plain = model("taught", "student", "4", "2"), model("plain", "student", "5")
    assert aurocs.teacher_of(taught, [first, second, taught]) is second
    assert aurocs.teacher_of(plain, [first, other, plain]) is first
    assert aurocs.teacher_of(plain, [first, second, plain]) is None
    assert aurocs.teacher_of(first, [first, second]) is None
    assert aurocs.teacher_of(model("peer", "peer", ""), [first]) is None
    assert aurocs.teacher_of(taught, [first, taught]) is None, "another teacher is not its own"


@pytest.fixture
def outputs_of(clinic: Prepared) -> dict[str, Outputs]:
    rows = clinic.rows("test")
    rng = np.random.default_rng(0)
    outputs = {}
    for name, noise in (("teacher", 0.1), ("student", 1.0)):
        findings = np.nan_to_num(clinic.targets[rows]) + rng.normal(0, noise, clinic.targets[rows].shape)
        abnormal = np.nan_to_num(clinic.abnormal[rows]) + rng.normal(0, noise, len(rows))
        outputs[name] = Outputs(
            findings.astype(np.float32), abnormal.astype(np.float32), np.empty((0, 2, 2), np.float32)
        )
    return outputs


def scored(candidates: list[Candidate], outputs: dict[str, Outputs], data: Prepared) -> dict[str, dict[str, Any]]:
    scores = aurocs.Scores(candidates, data, "test", 200)
    for candidate in candidates:
        if candidate.id in outputs:
            scores.add(candidate, outputs[candidate.id])
    return {candidate.id: scores.row(candidate) for candidate in candidates}


def test_rows_hold_aurocs_and_paired_differences_to_the_teacher(
    clinic: Prepared, outputs_of: dict[str, Outputs]
) -> None:
    teacher = model("teacher", "teacher", "1", labels=clinic.labels)
    student = model("student", "student", "2", "1", labels=clinic.labels)
    candidates = [
        candidate(teacher),
        candidate(student),
        candidate(student, precision="int8"),
        candidate(student, "openvino"),
    ]
    outputs = {each.id: outputs_of[each.model.name] for each in candidates[:3]}
    by_row = scored(candidates, outputs, clinic)
    assert by_row.pop(candidates[3].id) == {}, "what did not answer has no AUROC"
    ours, theirs = by_row[candidates[1].id], by_row[candidates[0].id]
    assert "Edema" not in ours["auroc"]["labels"], "no film of the split has it"
    rows = clinic.rows("test")
    assert ours["auroc"]["abnormal"]["positives"] == int((clinic.abnormal[rows] == 1).sum())
    for task in ("findings", "abnormal"):
        against = ours["against_teacher"][task]
        assert against["difference"] == pytest.approx(ours["auroc"][task]["auroc"] - theirs["auroc"][task]["auroc"])
        assert against["low"] <= against["difference"] <= against["high"] <= 0.01
    assert ours["against_teacher"]["row"] == candidates[0].id
    # At INT8 there is no teacher to compare within, but its best answer is known.
    int8 = by_row[candidates[2].id]
    assert "against_teacher" not in int8 and int8["against_reference"]["row"] == candidates[0].id
    assert "against_teacher" not in theirs and "against_reference" not in theirs


def test_without_the_teacher_in_fp32_there_is_no_reference(clinic: Prepared, outputs_of: dict[str, Outputs]) -> None:
    teacher = model("teacher", "teacher", "1", labels=clinic.labels)
    student = model("student", "student", "2", "1", labels=clinic.labels)
    candidates = [candidate(teacher, precision="int8"), candidate(student, precision="int8")]
    row = scored(
        candidates, {candidates[0].id: outputs_of["teacher"], candidates[1].id: outputs_of["student"]}, clinic
    )[candidates[1].id]
    assert "against_reference" not in row and row["against_teacher"]["row"] == candidates[0].id


def test_a_teachers_lower_precision_is_held_against_its_best(clinic: Prepared, outputs_of: dict[str, Outputs]) -> None:
    teacher = model("teacher", "teacher", "1", labels=clinic.labels)
    candidates = [candidate(teacher), candidate(teacher, precision="int8")]
    rows = scored(
        candidates, {candidates[0].id: outputs_of["teacher"], candidates[1].id: outputs_of["student"]}, clinic
    )
    assert rows[candidates[1].id]["against_reference"]["row"] == candidates[0].id
    assert rows[candidates[1].id]["against_reference"]["abnormal"]["difference"] < 0
