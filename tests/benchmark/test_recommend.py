from __future__ import annotations

import re
from typing import Any

from edgecxr.benchmark.recommend import recommend
from tests.benchmark.benchmarked import STUDENT, TEACHER, record, row

REFERENCE = row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0)


def test_the_fastest_whose_drop_is_surely_within_the_tolerance_is_recommended() -> None:
    results = record(
        [
            REFERENCE,
            row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005),  # at most .015
            row(STUDENT, "onnxruntime", "int8", 1.0, 0.015),  # at most .025
        ]
    )
    advice = recommend(results, 0.02)
    assert advice.row and advice.row["precision"] == "fp32" and "3.00 ms" in advice.why and "0.015" in advice.why
    assert recommend(results, 0.03).row["precision"] == "int8"  # type: ignore[index]


def test_where_the_films_are_too_few_it_is_the_teacher_and_says_so() -> None:
    advice = recommend(record([REFERENCE, row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005)]), 0.01)
    assert advice.row and advice.row["id"] == REFERENCE["id"]
    assert "200 films cannot tell" in advice.why and "at most 0.015" in advice.why


def test_students_that_surely_lose_too_much_are_told_from_those_that_may() -> None:
    advice = recommend(record([REFERENCE, row(STUDENT, "onnxruntime", "fp32", 3.0, 0.1)]), 0.02)
    assert advice.row and advice.row["id"] == REFERENCE["id"] and "every student loses more" in advice.why


def test_without_a_teacher_in_fp32_nothing_is_recommended() -> None:
    advice = recommend(record([row(STUDENT, "onnxruntime", "fp32", 3.0)]), 0.02)
    assert advice.row is None and re.search(r"no teacher and student .*FP32", advice.why)
    assert "no student" in recommend(record([REFERENCE | against(REFERENCE)]), 0.02).why


def against(teacher: dict[str, Any]) -> dict[str, Any]:
    zero = {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    return {"against_reference": {"row": teacher["id"], "findings": zero, "abnormal": zero}}


def test_a_handful_of_films_gives_no_certainty() -> None:
    few = {"positives": 2, "negatives": 2}
    teacher = row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0)
    teacher["auroc"]["abnormal"] |= few
    student = row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005) | against(teacher)
    advice = recommend(record([teacher, student]), 0.02)
    assert advice.row is None and "2 abnormal and 2 normal films are too few" in advice.why


def test_where_one_task_has_no_auroc_the_other_decides() -> None:
    rows = [row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0), row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005)]
    for each in rows:
        each["auroc"]["abnormal"] = None
        if "against_reference" in each:
            each["against_reference"]["abnormal"] = None
    assert recommend(record(rows), 0.02).row["model"] == STUDENT  # type: ignore[index]


def test_of_several_teachers_the_best_is_the_measure() -> None:
    poor, hasty = "teacher-poor-224", "student-hasty-28"
    worse = row(poor, "onnxruntime", "fp32", 20.0, 0.2)
    worse.pop("against_reference"), worse.pop("against_teacher")
    quick = row(hasty, "onnxruntime", "fp32", 1.0, 0.2) | against(worse)
    good = row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005)
    assert recommend(record([REFERENCE, worse, quick, good]), 0.02).row["model"] == STUDENT  # type: ignore[index]


def test_what_failed_is_not_recommended() -> None:
    failed = row(STUDENT, "openvino", "fp32", 0.1, 0.0, status="failed", reason="it broke")
    good = row(STUDENT, "onnxruntime", "fp32", 3.0, 0.0)
    assert recommend(record([REFERENCE, failed, good]), 0.02).row["backend"] == "onnxruntime"  # type: ignore[index]


def test_it_comes_with_the_command_and_with_doubts_about_the_times() -> None:
    rows = [REFERENCE, row(STUDENT, "openvino", "int8", 3.0, 0.005)]
    rows[1]["against_reference"] |= {"row": REFERENCE["id"]}
    advice = recommend(record(rows), 0.02)
    assert f"`edgecxr infer FILM --model {STUDENT} --backend openvino --precision int8`" in advice.why
    assert "doubtful" not in advice.why
    assert "times are doubtful" in recommend(record(rows, warnings=["2 cores were at work"]), 0.02).why
