from __future__ import annotations

from edgecxr.bench import tables
from tests.bench.benchmarked import STUDENT, TEACHER, record, row

ROWS = [
    row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0),
    row(STUDENT, "onnxruntime", "fp32", 3.0, 0.01),
    row(TEACHER, "openvino", "fp32", 20.0, 0.0),
    row(STUDENT, "openvino", "fp32", 1.0, 0.01),
    row(STUDENT, "onnxruntime", "int8", 2.0, 0.02),
]


def column(cells: list[list[str]], name: str) -> list[str]:
    return [line[cells[0].index(name)] for line in cells[1:]]


def test_a_student_is_compared_with_its_teacher_on_the_same_engine_and_precision() -> None:
    cells = tables.main_cells(record(ROWS))
    assert column(cells, "faster") == ["", "10.00x", "", "20.00x", ""]
    assert column(cells, "precision")[-1] == "int8"
    assert "mJ/image" not in cells[0], "a column that nothing fills is left out"


def test_best_against_best_takes_each_models_fastest_row() -> None:
    cells = tables.best_cells(record(ROWS))
    assert column(cells, "engine") == ["openvino", "openvino"]
    assert column(cells, "faster") == ["20.00x", ""]
    assert column(cells, "findings")[0] == "-0.010 (-0.020 to +0.000)"


def test_another_model_can_be_the_measure() -> None:
    other = row("student-base-28", "onnxruntime", "fp32", 6.0)
    cells = tables.main_cells(record([*ROWS, other]), against="student-base-28")
    assert column(cells, "faster")[:2] == ["0.20x", "2.00x"]


def test_what_is_doubtful_absent_or_failed_is_named() -> None:
    failed = row(STUDENT, "torch", "fp32", 2.0, status="failed", reason="it broke")
    made = record(
        [*ROWS, failed],
        warnings=["the CPU's clock fell"],
        absent={"tensorrt": "no NVIDIA GPU was found here"},
        data=None,
        complete=False,
    )
    made["models"][STUDENT]["weights"] = "random"
    text = tables.summary(made)
    for part in (
        "NOT COMPLETE", "latency alone", "warning: the CPU's clock fell", "tensorrt is absent: no NVIDIA GPU",
        f"failed: {STUDENT}/torch/fp32: it broke", f"{STUDENT} (random weights)", "no energy: no meter here",
        made["notice"],
    ):  # fmt: skip
        assert part in text, part


def test_two_records_are_compared_row_by_row() -> None:
    before, after = record(ROWS), record([row(STUDENT, "onnxruntime", "fp32", 6.0), row(STUDENT, "torch", "fp32", 9.0)])
    after["device"]["name"] = "Another board"
    text = tables.compare(before, after, ("a.json", "b.json"))
    (line,) = [line for line in text.splitlines() if line.startswith(f"{STUDENT}/onnxruntime/fp32")]
    assert line.split()[1:3] == ["2.00", "0.50"]
    assert "different machines" in text and f"only in B: {STUDENT}/torch/fp32" in text and "only in A:" in text


def test_another_file_under_the_same_name_is_marked() -> None:
    changed = row(STUDENT, "onnxruntime", "fp32", 6.0)
    changed["artefact"]["sha256"] = "e" * 64
    assert "(other file)" in tables.compare(record(ROWS), record([changed]), ("a", "b"))
    nothing = tables.compare(record(ROWS), record([row(STUDENT, "torch", "fp32", 6.0)]), ("a", "b"))
    assert "no model, engine and precision that both have" in nothing
