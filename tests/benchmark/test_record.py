from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgecxr.benchmark import record, report, tables
from edgecxr.errors import InputError
from tests.benchmark import benchmarked
from tests.benchmark.benchmarked import STUDENT, TEACHER


def whole() -> record.Record:
    return benchmarked.record([benchmarked.row(TEACHER, "onnxruntime", "fp32", 20.0, 0.0)])


ROW = whole()["rows"][0]


def test_percentiles_are_in_milliseconds_and_only_of_enough_runs() -> None:
    percentiles = record.percentiles([i / 1000 for i in range(1, 101)])
    assert percentiles == {
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
    ("content", "message"),
    [
        (None, "is not there"),
        ("{", "no record"),
        ("[]", "no record"),
        (json.dumps({"schema": "other"}), "no record"),
        (json.dumps(whole() | {"version": 99}), "version 99.*upgrade edgecxr"),
        (json.dumps(whole() | {"version": 0}), "version 0.*measure again"),
        (json.dumps(whole() | {"version": True}), "version True.*measure again"),
        (json.dumps(whole() | {"version": 1.0}), "version 1.0.*measure again"),
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
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
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


def full() -> record.Record:
    """Return a record with every kind of field."""
    rows = [
        benchmarked.row(TEACHER, "onnxruntime", "fp32", 20.0, 0.0),
        benchmarked.row(STUDENT, "onnxruntime", "fp32", 2.0, 0.01),
        benchmarked.row(STUDENT, "openvino", "fp32", 2.0, status="failed", reason="it broke"),
    ]
    rows[1]["energy"] = {"meter": "a", "scope": "board", "idle_watts": 1.5, "batches": [
        {"batch": 1, "images": 9, "seconds": 1.0, "joules_per_image": 0.5, "watts": 2.0}
    ]}  # fmt: skip
    rows[1]["problems"] = {"energy": "no meter"}
    return benchmarked.record(rows, warnings=["hot"], absent={"tensorrt": "no GPU"})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a record."""
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


PLACES = list(places(full()))
MISSING = object()


def changed(place: tuple[Any, ...], value: Any) -> record.Record:
    results = full()
    holder: Any = results
    for key in place[:-1]:
        holder = holder[key]
    if value is MISSING:
        del holder[place[-1]]
    else:
        holder[place[-1]] = copy.deepcopy(value)
    return results


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    MISSING, None, True, False, 0, -1, 1, 0.0, -0.0, 1e-320, -1e-9, 0.5, 1e300, -1e300, 2**63, 10**400, float("nan"),
    float("inf"), float("-inf"), "", "$x$", "a\x1b[31m\nb\u202e", "0", "x" * 20_000, [], [1], {}, {"a": 1}, deep(50),
    [None], [{}], {"": None},
]  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=("rows", 0, "latency_ms", "p50"), value=0)
@example(place=("rows", 1, "throughput"), value=[])
@example(place=("rows", 1, "throughput"), value=[{"batch": 1, "skipped": "slow"}])
@example(place=("rows", 1, "throughput", 0), value={"batch": 1, "ms": 1.0})
@example(place=("data",), value=None)
@example(place=("rows", 1, "id"), value=full()["rows"][0]["id"])
@given(place=st.sampled_from(PLACES), value=st.sampled_from(VALUES))
def test_whatever_a_record_holds_it_is_refused_in_a_line_or_shown(
    place: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(changed(place, value)))
    try:
        results = record.read(path)
    except InputError as error:
        assert error.reason == "malformed" and "a.json" in str(error)
        assert str(error).isprintable() and len(str(error)) < 400 + len(str(path))
        return
    shown = report.markdown([results], 0.02) + report.page([results], 0.02, lambda _, chosen: {})
    shown += (
        tables.summary(results)
        + tables.compare(results, full(), ("a", "b"))
        + tables.compare(full(), results, ("a", "b"))
    )
    figures = set(re.findall(r"[+-]?\b(?:nan|inf)x?\b", shown, re.IGNORECASE))
    assert not figures


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("rows", 0, "latency_ms", "p50"), 0, "p50"),
        (("rows", 0, "latency_ms", "p50"), -1, "p50"),
        (("rows", 0, "latency_ms", "p50"), float("inf"), "p50"),
        (("rows", 0, "latency_ms", "p50"), float("nan"), "p50"),
        (("rows", 0, "latency_ms", "p50"), 10**18, "p50"),
        (("rows", 0, "latency_ms", "p50"), 10**100, "digits"),
        (("rows", 0, "latency_ms", "p50"), "fast", "p50"),
        (("rows", 0, "memory_mib", "host"), float("nan"), "rows[0].memory_mib.host"),
        (("rows", 1, "energy", "idle_watts"), 10**19, "rows[1].energy.idle_watts"),
        (("rows", 0, "throughput"), [], "throughput"),
        (("rows", 0, "auroc", "labels", "Edema"), None, "Edema"),
        (("rows", 1, "id"), full()["rows"][0]["id"], "rows[1].id"),
        (("rows", 1, "model"), "gone", "rows[1].model"),
        (("device", "name"), "x" * 1000, "device.name"),
        (("film",), "x" * 100_000, "film"),
        (("created",), "yesterday", "created"),
        (("data",), None, "data is null"),
        (("models", STUDENT, "size"), 0, "size"),
        (("rows",), [ROW] * 3000, "rows"),
        (("conditions",), [{"when": "now", "deep": deep(400)}], "nested"),
    ],
)  # fmt: skip
def test_the_field_is_named(place: tuple[Any, ...], value: Any, field: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(changed(place, value)))
    with pytest.raises(InputError) as caught:
        record.read(path)
    assert field in str(caught.value) and "a.json" in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"schema": ' * 5000, "9" * 5000, "\ufeff{}", "\x00", '"\ud800"'])
def test_what_no_parser_likes_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as caught:
        record.read(path)
    assert caught.value.reason == "malformed" and str(caught.value).isprintable()
