from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecxr import NOTICE
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.describe import describe
from tests.tiny_bundle import LABELS, tiny_bundle

FIRST, SECOND, THIRD = LABELS
SCORE = {"auroc": 0.8123, "low": 0.75, "high": 0.8749}


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
                "data": "shades", "split": "test", "images": 30, "findings": {"macro": SCORE}, "abnormal": None,
            },
        },
        operating_points={"youden": {FIRST: 0.00123456, "abnormal": 0.5}, "strict": {FIRST: 0.25}},
        operating_counts={FIRST: {"positives": 3, "negatives": 500}, "abnormal": {"positives": 40, "negatives": 60}},
    )  # fmt: skip
    lines = describe(bundle).splitlines()
    assert lines[0] == "tiny-test"
    assert lines[1:8] == [
        "model    tiny ViT, 28 px, 4 tokens, 2 blocks; student, method mlcak, teacher teacher-tiny-224",
        f"lies in  {tmp_path / 'model'}, from edgecxr 1.2",
        "data     shades (synthetic phantom films): images train 70, test 30",
        "result   shades test, 30 images: AUROC findings (macro) 0.812 (0.750 - 0.875)",
        "gate     fp32, from a distance of 9: refuses 0/10 (0.0% - 28.0%) test films",
        "gate       of what is no chest film: noise 0/10 (0.0% - 28.0%)",
        "file     model.onnx, fp32, opset 13, 0.0 MB",
    ]
    table = [line.replace(SECOND, "second").split() for line in lines[8:]]
    assert table[:3] == [
        ["threshold", "youden", "strict", "val.", "pos", "neg"],
        [FIRST, "0.001235", "0.25", "3", "500", "!"],
        ["second", "-", "-"],
    ]
    assert table[4] == ["abnormal", "0.5", "-", "40", "60"]
    assert lines[-2].startswith("! fewer than 20 validation films") and lines[-1] == NOTICE


def test_a_bundle_that_nobody_measured_says_so(tmp_path: Path) -> None:
    text = describe(tiny_bundle(tmp_path / "model", operating_points={}, gate={}))
    assert "cannot tell whether a film is a chest film" in text
    assert "not evaluated: `edgecxr evaluate`" in text and "the card does not say" in text
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
    lines = describe(tiny_bundle(tmp_path / "model", **changes)).splitlines()
    assert f"{title:8} what the card says cannot be read" in lines
    assert lines[0] == "tiny-test" and lines[-1] == NOTICE
