from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecxr.benchmark import record
from edgecxr.errors import InputError
from tests.benchmark import benchmarked
from tests.benchmark.benchmarked import STUDENT, TEACHER


def whole() -> record.Record:
    return benchmarked.record([benchmarked.row(TEACHER, "onnxruntime", "fp32", 20.0, 0.0)])


ROW = whole()["rows"][0]


def test_percentiles_are_in_milliseconds_and_only_of_enough_runs() -> None:
    found = record.percentiles([i / 1000 for i in range(1, 101)])
    assert found == {
        "p50": 50.5, "p90": 90.1, "p95": 95.05, "p99": 99.01, "min": 1.0, "mean": 50.5, "runs": 100
    }  # fmt: skip
    few = record.percentiles([0.001] * 12)
    assert (few["p90"], few["p95"], few["p99"]) == (1.0, None, None)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record.write(whole(), tmp_path / "a.json")
    assert record.read(tmp_path / "a.json") == whole()


def test_what_does_not_fit_the_schema_is_not_written(tmp_path: Path) -> None:
    broken = whole()
    broken["rows"][0]["precision"] = "int4"
    with pytest.raises(InputError, match="precision"):
        record.write(broken, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there"),
        ("{", "no record"),
        ("[]", "no record"),
        (json.dumps({"schema": "other"}), "no record"),
        (json.dumps(whole() | {"version": 99}), "version 99.*upgrade edgecxr"),
        (json.dumps(whole() | {"version": 0}), "version 0.*measure again"),
        (json.dumps(whole() | {"version": None}), "version None.*measure again"),
        (json.dumps({k: v for k, v in whole().items() if k != "rows"}), "damaged.*rows"),
        (json.dumps(whole() | {"rows": [{"id": "a"}]}), "damaged.*rows"),
        (json.dumps(whole() | {"models": {}}), "damaged.*no model"),
        (json.dumps(whole() | {"settings": {}}), "damaged.*settings"),
        (json.dumps(whole() | {"more": 1}), "damaged"),
        (json.dumps(whole() | {"rows": [{k: v for k, v in ROW.items() if k != "energy"}]}), "damaged.*energy"),
        (json.dumps(whole() | {"rows": [ROW | {"latency_ms": ROW["latency_ms"] | {"p50": None}}]}), "damaged.*p50"),
        (json.dumps(whole() | {"rows": [ROW | {"status": "failed"}]}), "damaged.*reason"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        record.read(path)
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


def test_rows_without_a_latency_are_not_among_the_measured() -> None:
    failed = benchmarked.row(STUDENT, "openvino", "fp32", 2.0, status="failed", reason="it broke")
    early = benchmarked.row(STUDENT, "torch", "fp32", 2.0, status="pending")
    good = benchmarked.row(STUDENT, "onnxruntime", "fp32", 2.0)
    assert record.measured({"rows": [failed, early, good]}) == [good]


def test_committed_records_fit_the_schema() -> None:
    paths = list((Path(__file__).parents[2] / "benchmarks/results").glob("*/benchmark*.json"))
    assert paths
    for path in paths:
        assert np.isfinite([row["latency_ms"]["p50"] for row in record.measured(record.read(path))]).all()
