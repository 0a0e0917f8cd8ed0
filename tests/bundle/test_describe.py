from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr import NOTICE
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.describe import describe
from edgecxr.bundle.tested import of_test_films
from edgecxr.errors import UsageError
from tests.tiny_bundle import LABELS, tiny_bundle, tiny_card

FIRST, SECOND, THIRD = LABELS
SCORE = {"auroc": 0.8123, "low": 0.75, "high": 0.8749}
POINT = {"youden": {"sensitivity": 0.9, "specificity": 0.8}, "strict": {"sensitivity": 0.25, "specificity": 0.99}}
LABEL = SCORE | {"positives": 7, "negatives": 23, "operating": POINT}


def test_a_bundle_says_what_it_is_and_where_it_decides(tmp_path: Path) -> None:
    bundle = tiny_bundle(
        tmp_path / "model",
        teacher="teacher-tiny-224",
        method="mlcak",
        version="1.2",
        data={"name": "shades", "phantom": True, "counts": {"train": {"images": 70}, "test": {"images": 30}}},
        metrics={
            "shades/val": {"split": "val"},
            "shades/test": {
                "data": "shades", "split": "test", "images": 30,
                "findings": {"macro": SCORE, "labels": {FIRST: LABEL, THIRD: LABEL | {"low": 0.5}}}, "abnormal": None,
            },
        },
        operating_points={"youden": {FIRST: 0.00123456, "abnormal": 0.5}, "strict": {FIRST: 0.25}},
        operating_counts={FIRST: {"positives": 3, "negatives": 500}, "abnormal": {"positives": 40, "negatives": 60}},
    )  # fmt: skip
    lines = describe(bundle).splitlines()
    assert lines[0] == "tiny-test"
    assert lines[1:6] == [
        "model    tiny ViT, 28 px, 4 tokens, 2 blocks; student, method mlcak, teacher teacher-tiny-224",
        f"folder   {tmp_path / 'model'}, made by edgecxr 1.2",
        "data     shades (synthetic phantom films): images train 70, test 30",
        "result   shades test, 30 images: AUROC findings (macro) 0.812 (0.750 to 0.875)",
        "file     model.onnx, fp32, opset 13, 0.0 MB",
    ]
    table = [re.split(" {2,}", line.strip()) for line in lines[7:]]
    area = "0.812 (0.750 to 0.875)"
    assert table[:5] == [
        ["AUROC (95 %)", "threshold", "sens.", "spec.", "test +/-", "val +/-"],
        [FIRST, area, "0.00123", "0.90", "0.80", "7/23", "3/500!"],
        [f"{SECOND}?", "-", "0.5", "-", "-", "-", "-"],  # no test films can tell
        [f"{THIRD}?", "0.812 (0.500 to 0.875)", "0.5", "0.90", "0.80", "7/23", "-"],  # its interval reaches 0.5
        ["abnormal?", "-", "0.5", "-", "-", "-", "40/60"],
    ]
    assert ["what is farther than", "9"] in table and ["test films (wrongly)", "0/10 (0%-28%)"] in table
    assert lines[-1] == NOTICE
    other = describe(bundle, "strict").splitlines()[8]
    assert re.split(" {2,}", other) == [FIRST, area, "0.25", "0.25", "0.99", "7/23", "3/500!"]
    with pytest.raises(UsageError, match="no operating point loose"):
        describe(bundle, "loose")


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["split", "data", "findings", "labels", "abnormal", FIRST, "auroc", "low", "high", "positives",
                         "negatives", "operating", "youden", "sensitivity"]), inner, max_size=5), max_leaves=20,
))  # fmt: skip
def test_a_card_may_hold_anything_as_results(anything: Any) -> None:
    card = tiny_card(
        metrics={"a": anything, "b": {"split": "test", "findings": {"labels": anything}, "abnormal": anything}}
    )
    assert all(0 <= result.auroc.low <= 1 and result.positives >= 0 for result in of_test_films(card).values())


def test_the_results_on_the_model_s_own_data_count(tmp_path: Path) -> None:
    records = {
        f"{data}/test": {"data": data, "split": "test", "findings": {"labels": {FIRST: LABEL | {"low": low}}}}
        for data, low in (("elsewhere", 0.5), ("own", 0.7), ("afar", 0.4))
    }
    assert of_test_films(tiny_card(metrics=records, data={"name": "own"}))[FIRST].reliable
    assert not of_test_films(tiny_card(metrics=records, data={"name": "another"}))[FIRST].reliable


def test_a_bundle_that_nobody_measured_says_so(tmp_path: Path) -> None:
    text = describe(tiny_bundle(tmp_path / "model", operating_points={}, gate={}))
    assert "quality gate: none" in text
    assert "not evaluated: `edgecxr evaluate`" in text and "data     the card does not" in text
    assert "decisions are made at 0.5" in text and "!" not in text


def test_a_real_export_shows_what_each_file_came_to(complete: Bundle) -> None:
    lines = [line.removeprefix("file").strip() for line in describe(complete).splitlines() if line.startswith("file")]
    for name, facts in complete.card.artefacts.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}, {facts['precision']}"))
        block = " ".join(lines[at : at + 4])
        assert f"opset {facts['opset']} ({facts['profile']})" in lines[at] and " MB" in lines[at]
        assert f"logits within {facts['parity']['max_logit_difference']:.1e}" in block
        if "verdict" in facts:
            assert f"{facts['verdict']['status']}: AUROC drop findings" in block
        if "calibration" in facts:
            chosen = facts["calibration"]
            assert f"calibrated by {chosen['method']} on {chosen['images']} images" in block
    assert sum("calibrated" in line for line in lines) == 1 and sum("AUROC drop" in line for line in lines) == 2


def test_the_target_is_said(tmp_path: Path) -> None:
    text = describe(tiny_bundle(tmp_path / "model", target={"name": "v100", "description": "an old server"}))
    assert "target   v100: an old server" in text.splitlines()


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"metrics": {"a": {"split": "test"}}}, "result"),
        ({"metrics": {"a": {"split": "test", "data": 1, "images": [], "findings": 3, "abnormal": {}}}}, "result"),
        ({"data": {"name": "x", "counts": [1]}}, "data"),
        ({"data": {"name": "x", "counts": {"train": 7}}}, "data"),
        ({"target": {"name": "v100"}}, "target"),
        ({"artefacts": {"model.onnx": {"precision": "fp32", "parity": 1}}}, "file"),
        ({"artefacts": {"model.onnx": {"precision": "fp32", "verdict": {"auroc_drop": {"a": "b"}}}}}, "file"),
        ({"artefacts": {"model.onnx": {"precision": "fp32", "calibration": {"method": 1}}}}, "file"),
    ],
)
def test_what_a_strangers_card_says_wrongly_is_left_out(tmp_path: Path, changes: dict[str, Any], title: str) -> None:
    text = describe(tiny_bundle(tmp_path / "model", **changes))
    assert re.search(rf"^{title:8} what .* says cannot be read$", text, re.MULTILINE)
    lines = text.splitlines()
    assert lines[0] == "tiny-test" and lines[-1] == NOTICE
