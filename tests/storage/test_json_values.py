from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.storage.json_values import check_depth, format_of, parse_json, read_json
from edgecxr.storage.reading import BadFile

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_what_json_writes_comes_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@given(st.text(alphabet='[]{}",:0123456789.eE+-truefalsnINy\\u \x00\ud800é') | st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_value_or_refused(text: str | bytes) -> None:
    try:
        value = parse_json(text)
    except BadFile:
        return
    assert parse_json(json.dumps(value, allow_nan=False)) == value


DOUBTFUL = {
    "infinite": '{"a": Infinity}', "negative": "[-Infinity]", "not a number": "NaN", "overflow": "[1e999]",
    "key twice": '{"a": 1, "a": 2}', "key twice, within": '[{"b": {"a": 1, "\\u0061": 1}}]',
    "whole": "9" * 21, "long whole": "9" * 100_000, "deep list": "[" * 33 + "]" * 33,
    "deep table": '{"a":' * 33 + "1" + "}" * 33, "very deep": "[" * 200_000, "nothing": "", "more": "1 2",
}  # fmt: skip


@pytest.mark.parametrize("text", DOUBTFUL.values(), ids=DOUBTFUL)
def test_doubtful_values_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        parse_json(text)
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(BadFile):
        read_json(tmp_path / "file.json", 1 << 20)


def test_numbers_that_are_not_finite_may_be_allowed() -> None:
    nan, infinite, large = parse_json("[NaN, -Infinity, 1e999]", finite=False)
    assert math.isnan(nan) and infinite == -math.inf and large == math.inf


@given(VALUES)
def test_a_format_is_a_whole_number_and_nothing_that_equals_one(value: Any) -> None:
    if type(value) is int and value > 0:
        assert format_of({"format": value}) == value
    else:
        for table in ({"format": value}, {}, value):
            with pytest.raises(BadFile):
                format_of(table)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, -1])
def test_what_equals_a_number_is_none(value: Any) -> None:
    with pytest.raises(BadFile):
        format_of({"format": value})


def test_the_depth_counts_lists_and_tables() -> None:
    assert parse_json("[" * 32 + "]" * 32)
    check_depth([[1]], 2)
    with pytest.raises(BadFile):
        check_depth([[1]], 1)
