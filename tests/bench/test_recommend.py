from __future__ import annotations

from edgecxr.bench.recommend import recommend
from tests.bench.benchmarked import STUDENT, TEACHER, record, row


def test_the_fastest_whose_drop_is_surely_within_the_tolerance_is_recommended() -> None:
    made = record(
        [
            row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0),
            row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005),  # at most .015
            row(STUDENT, "onnxruntime", "int8", 1.0, 0.015),  # at most .025
        ]
    )
    found = recommend(made, 0.02)
    assert found.row and found.row["precision"] == "fp32" and "3.00 ms" in found.why and "0.015" in found.why
    assert recommend(made, 0.03).row["precision"] == "int8"  # type: ignore[index]


def test_where_the_films_are_too_few_it_says_so() -> None:
    found = recommend(record([row(STUDENT, "onnxruntime", "fp32", 3.0, 0.005)]), 0.01)
    assert found.row is None and "200 films cannot tell" in found.why and "at most 0.015" in found.why


def test_students_that_surely_lose_too_much_are_told_from_those_that_may() -> None:
    found = recommend(record([row(STUDENT, "onnxruntime", "fp32", 3.0, 0.1)]), 0.02)
    assert found.row is None and "every student loses more" in found.why


def test_without_aurocs_nothing_is_recommended() -> None:
    found = recommend(record([row(STUDENT, "onnxruntime", "fp32", 3.0)]), 0.02)
    assert found.row is None and "no student was compared" in found.why


def test_what_failed_is_not_recommended() -> None:
    failed = row(STUDENT, "openvino", "fp32", 0.1, 0.0, status="failed", reason="it broke")
    good = row(STUDENT, "onnxruntime", "fp32", 3.0, 0.0)
    assert recommend(record([failed, good]), 0.02).row["backend"] == "onnxruntime"  # type: ignore[index]
