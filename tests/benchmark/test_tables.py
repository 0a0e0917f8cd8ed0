from __future__ import annotations

import re

from edgecxr.benchmark import tables
from tests.benchmark import benchmarked
from tests.benchmark.benchmarked import STUDENT, TEACHER, record, row

ROWS = [
    row(TEACHER, "onnxruntime", "fp32", 30.0, 0.0),
    row(STUDENT, "onnxruntime", "fp32", 3.0, 0.01),
    row(TEACHER, "openvino", "fp32", 20.0, 0.0),
    row(STUDENT, "openvino", "fp32", 1.0, 0.01),
    row(STUDENT, "onnxruntime", "int8", 2.0, 0.02),
]


def metered(name: str = "RAPL") -> dict[str, object]:
    batches = [
        {"batch": batch, "images": 100, "seconds": 1.0, "joules_per_image": joules, "watts": 9.0}
        for batch, joules in ((1, 0.02), (64, 0.001))
    ]
    return {"meter": name, "scope": "CPU package", "idle_watts": 4.5, "batches": batches}


def test_energy_is_that_of_one_image_alone_and_not_compared_across_meters() -> None:
    rows = [row(STUDENT, "onnxruntime", "fp32", 3.0, energy=metered(name)) for name in ("RAPL", "NVML")]
    assert column(tables.main_cells(record(rows[:1])), "mJ/image") == ["20.00"]
    same = tables.compare(record(rows[:1]), record(rows[:1]), ("a", "b"))
    assert "different meters" not in same and same.splitlines()[4].split()[-1] == "1.00"
    other = tables.compare(record(rows[:1]), record(rows[1:]), ("a", "b"))
    assert (
        "different meters of energy" in other
        and len(other.splitlines()[5].split()) == len(same.splitlines()[4].split()) - 1
    )


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


def test_the_tables_of_a_terminal_fit_it_and_their_rows_have_the_same_numbers(monkeypatch) -> None:
    teacher, student = "teacher-tiny-224-phantom", "student-tiny-28-mlcak-phantom"
    monkeypatch.setattr(benchmarked, "TEACHER", teacher)
    rows = [
        row(teacher, "onnxruntime", "fp32", 130.0, 0.0, energy=metered()),
        row(student, "onnxruntime", "fp32", 13.0, 0.01, energy=metered()),
        row(student, "onnxruntime-tensorrt", "int8", 2.0, 0.02, energy=metered()),
    ]
    results = record(rows)
    text = tables.summary(results)
    assert max(len(line) for line in text.splitlines() if not line.startswith("energy of")) <= 100
    numbered = [line.split() for line in text.splitlines() if re.match(r"[123]  ", line)]
    assert [line[0] for line in numbered] == [*"123" * 4, "3", "1"]
    assert [line[1] for line in numbered] == [
        *(teacher, student, student), *("130.00", "13.00", "2.00"), *(teacher, student, student) * 2, student, teacher
    ]  # fmt: skip
    shown = {head for cells in text.splitlines() if cells.startswith("#") for head in re.split(r" {2,}", cells)}
    assert shown >= set(tables.main_cells(results)[0])  # nothing is left out
    without = tables.summary(record([row(teacher, "torch", "fp32", 1.0)]))
    assert "AUROC with" not in without and "normal/abnormal" not in without


def test_another_model_can_be_the_measure() -> None:
    other = row("student-base-28", "onnxruntime", "fp32", 6.0)
    cells = tables.main_cells(record([*ROWS, other]), against="student-base-28")
    assert column(cells, "faster")[:2] == ["0.20x", "2.00x"]


def test_what_is_doubtful_absent_or_failed_is_named() -> None:
    failed = row(STUDENT, "torch", "fp32", 2.0, status="failed", reason="it broke")
    results = record(
        [*ROWS, failed],
        warnings=["the CPU's clock fell"],
        absent={"tensorrt": "no NVIDIA GPU was found here"},
        data=None,
        complete=False,
    )
    results["rows"][0]["problems"] = {"film": "the film cannot be read"}
    results["rows"][1]["no_auroc"] = "its weights are random"
    results["rows"][2]["energy"] = metered()
    results["models"][STUDENT]["weights"] = "random"
    text = tables.summary(results)
    for part in (
        f"{TEACHER}/onnxruntime/fp32 has no more film: the film cannot be read",
        f"no AUROC of {STUDENT}/onnxruntime/fp32: its weights are random",
        f"energy of {TEACHER}/openvino/fp32: RAPL, CPU package, 4.5 W at rest included", "mJ/image",
        "NOT COMPLETE", "Latency alone",
        "warning: the CPU's clock fell", "not here: tensorrt (no NVIDIA GPU was found here)",
        f"failed: {STUDENT}/torch/fp32: it broke", f"{STUDENT} (random weights)", "no energy: no meter here",
        results["notice"],
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
    assert "fp32 *" in tables.compare(record(ROWS), record([changed]), ("a", "b"))
    nothing = tables.compare(record(ROWS), record([row(STUDENT, "torch", "fp32", 6.0)]), ("a", "b"))
    assert re.search(r"no model, engine .*both have", nothing)
