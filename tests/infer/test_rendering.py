"""A film that was rendered otherwise than those that the model learnt from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgecxr.infer.predictor import Predictor
from edgecxr.infer.rendering import CODES, rendering_doubts
from edgecxr.vocabulary import RENDERINGS
from tests.data.layouts import dicom, pixels
from tests.infer.test_run import infer
from tests.tiny_bundle import tiny_bundle


def learnt_from(**counts: Any) -> dict[str, Any]:
    return {"name": "set", "counts": {"train": {"images": 10, "renderings": counts}, "test": {"images": 1}}}


def films(folder: Path) -> list[Path]:
    plain = Image.fromarray(pixels(1, 128))
    plain.save(folder / "picture.png")
    ImageOps.equalize(plain).save(folder / "equalised.png")
    return [dicom(folder / "dicom.dcm", 1, 128), folder / "equalised.png", folder / "picture.png"]


@pytest.mark.parametrize(
    ("counts", "codes"),
    [
        ({"dicom": 100}, [None, "rendering", "rendering-unknown"]),
        ({"windowed": 100}, [None, "rendering", "rendering-unknown"]),
        ({"equalised": 100}, ["rendering", None, "rendering-unknown"]),
        ({"equalised": 98, "picture": 2}, ["rendering", None, "rendering-unknown"]),
        ({"equalised": 98, "dicom": 2}, ["rendering", None, "rendering-unknown"]),
        ({"picture": 100}, ["rendering-unknown", "rendering", None]),
        ({"dicom": 50, "equalised": 50}, [None, None, "rendering-unknown"]),
        ({}, [None, None, None]),
    ],
)
def test_each_film_s_line_has_the_code_and_the_run_says_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counts: dict[str, int], codes: list[str | None]
) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "model", data=learnt_from(**counts)))
    paths = films(tmp_path)
    infer(predictor, [*paths, *reversed(paths)][:5])
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["codes"] for line in lines[:3]] == [[code] if code else [] for code in codes]
    assert printed.err.count("warning: ") == sum(code is not None for code in codes)
    for line in lines:
        messages = {message for _, message in predictor.doubts.values()} & set(line["warnings"])
        assert len(messages) == len(line["codes"])
    infer(predictor, [*paths, *paths[::-1]][:5], as_json=False)
    assert capsys.readouterr().out.count("was trained on") == sum(code is not None for code in codes)


@given(st.dictionaries(st.sampled_from(sorted(RENDERINGS)), st.integers(1, 1000)))
def test_a_rendering_that_the_model_has_seen_enough_of_is_in_no_doubt(counts: dict[str, int]) -> None:
    doubts = rendering_doubts(counts)
    assert {code for code, _ in doubts.values()} <= set(CODES)
    for rendering, count in counts.items():
        assert rendering not in doubts or count < 0.1 * sum(counts.values())
    assert ("dicom" in doubts) == ("windowed" in doubts)
    assert bool(counts) or not doubts


@pytest.mark.parametrize(
    "data",
    [
        {}, {"counts": None}, {"counts": []}, {"counts": {"train": 3}}, {"counts": {"train": {"images": 9}}},
        {"counts": {"train": {"renderings": ["equalised"]}}}, learnt_from(equalised="many", dicom=-1, picture=True),
        learnt_from(other=10), learnt_from(equalised=1.5, windowed=None),
    ],
)  # fmt: skip
def test_cards_of_before_and_odd_ones_say_nothing(tmp_path: Path, data: dict[str, Any]) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "model", data=data))
    assert predictor.card.renderings == {} and predictor.doubts == {}
    assert predictor.predict(films(tmp_path)[1]).codes == ()


def test_arrays_are_judged_as_pictures(tmp_path: Path) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "model", data=learnt_from(dicom=3)))
    even = np.asarray(ImageOps.equalize(Image.fromarray(pixels(1, 128))))
    assert predictor.predict(even).codes == ("rendering",)
    assert predictor.predict(even.astype(np.float32) / 255).codes == ("rendering",)
    assert predictor.predict(pixels(1, 128)).codes == ("rendering-unknown",)
