from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.dataset import Box
from edgecxr.data.tables.boxes import film_corners, kept_boxes, placement_warnings, scaled
from edgecxr.data.tables.table import read_table
from edgecxr.errors import InputError

LABELS = ("Nodule", "Edema")


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((0, 0, 896, 448), (0, 0, 224, 224)),  # the whole film of 448 rows and 896 columns
        ((100, 100, 300, 200), (25, 50, 75, 100)),
        ((1, 1, 2, 2), (0.25, 0.5, 0.5, 1)),
        ((-8, 440, 8, 460), (0, 220, 2, 224)),
        ((0.1, 0.1, 10.1, 10.1), (0.03, 0.05, 2.52, 5.05)),
    ],
)
def test_each_axis_is_scaled_by_its_own_and_clipped(corners: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert scaled([Box(0, "Edema", *corners)], {0: (448, 896)}, LABELS) == [(0, "Edema", *expected)]


@pytest.mark.parametrize("corners", [(-9, 0, 0, 9), (0, 448, 9, 460), (5, 5, 5, 9), (5, 5, 9, 5), (5, 5, 5.01, 9)])
def test_a_box_without_an_area_in_the_image_is_dropped(corners: tuple[float, ...]) -> None:
    assert scaled([Box(0, "Edema", *corners)], {0: (448, 896)}, LABELS) == []


def test_a_small_film_is_enlarged() -> None:
    assert scaled([Box(0, "Edema", 28, 14, 56, 28)], {0: (56, 112)}, LABELS) == [(0, "Edema", 56, 56, 112, 112)]


def test_the_order_is_that_of_images_labels_and_corners_and_others_are_left_out() -> None:
    ordered = [
        Box(2, "Nodule", 1, 2, 3, 4),
        Box(2, "Nodule", 1, 3, 2, 4),
        Box(2, "Edema", 0, 2, 3, 4),
        Box(10, "Nodule", 0, 0, 3, 4),
        Box(10, "Nodule", 0, 0, 3, 4),  # of another reader
    ]
    others = [Box(3, "Nodule", 0, 0, 1, 1), Box(2, "Mass", 0, 0, 1, 1)]
    shapes = {2: (224, 224), 10: (224, 224)}
    for boxes in (ordered + others, (others + ordered)[::-1]):
        assert scaled(boxes, shapes, LABELS) == ordered


def corners_of(folder: Path, *rows: str, sized: bool = False) -> np.ndarray:
    (folder / "boxes.csv").write_text("\n".join(["a,b,c,d", *rows]) + "\n")
    return film_corners(read_table(folder / "boxes.csv"), "abcd", sized)


def test_corners_or_a_corner_and_a_size_are_read_and_no_corners_are_no_box(tmp_path: Path) -> None:
    rows = ("1,2,3.5,4", ",NaN, ,", "5,5,5,5")
    nan = [np.nan] * 4
    np.testing.assert_array_equal(corners_of(tmp_path, *rows), [[1, 2, 3.5, 4], nan, [5, 5, 5, 5]])
    np.testing.assert_array_equal(corners_of(tmp_path, *rows, sized=True), [[1, 2, 4.5, 6], nan, [5, 5, 10, 10]])


@pytest.mark.parametrize(
    ("row", "sized", "message"),
    [
        ("1,2,3,", False, r"is no box \(a 1, b 2, c 3, d empty\): give four numbers with minima"),
        (",,3,4", True, r"is no box \(a empty, b empty, c 3, d 4\): give four numbers with a width"),
        ("4,2,3,9", False, "give four numbers with minima that are not above the maxima"),
        ("4,2,3,-1", True, "a width and a height from 0 on"),
        ("4,2,inf,9", False, "column 'c' holds 'inf', which is no number: correct the cell"),
        ("4,2,1e999,9", False, "column 'c' holds '1e999'"),
        ("4,2,3 px,9", False, "column 'c' holds '3 px'"),
    ],
)
def test_what_is_no_box_is_refused_with_its_line(tmp_path: Path, row: str, sized: bool, message: str) -> None:
    with pytest.raises(InputError, match=rf"^line 3 of {tmp_path}/boxes\.csv.* {message}") as caught:
        corners_of(tmp_path, "1,2,3,4", row, sized=sized)
    assert caught.value.reason == "dataset"
    assert "\n" not in str(caught.value)


SIDES = st.sampled_from([-900.0, -40.0, -0.5, 0.0, 0.004, 3.0, 50.0, 99.5, 100.0, 101.0, 130.0, 1100.0])


@given(corners=st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES), max_size=12), rejected=st.integers(0, 3))
def test_each_box_is_kept_or_counted_by_reason(corners: list[tuple[float, ...]], rejected: int) -> None:
    inside = [Box(0, "Edema", min(a, b), min(c, d), max(a, b), max(c, d)) for a, b, c, d in corners]
    boxes = inside + [Box(1, "Edema", 1, 1, 9, 9)] * rejected
    shapes = {0: (100, 100)}
    texts = placement_warnings(boxes, shapes, ["a.png", "b.png"])
    counts = {text: int(re.search(r"\d+", text)[0]) for text in texts}
    left_out = sum(count for text, count in counts.items() if "left out" in text)
    assert len(scaled(boxes, shapes, LABELS)) + left_out == len(boxes)
    assert any("b.png" in text for text in texts) == bool(rejected)
    far = sum(min(box[2:4]) < -2 or max(box[4:]) > 102 for box in scaled_from(inside))
    assert sum(count for text, count in counts.items() if "left out" not in text) == far


def scaled_from(boxes: list[Box]) -> list[Box]:
    """Return the boxes that have a place on a film of 100 px."""
    return [box for box in boxes if scaled([box], {0: (100, 100)}, LABELS)]


def test_boxes_that_reach_a_little_beyond_the_film_are_clipped_in_silence() -> None:
    boxes = [Box(0, "Edema", -1, 0, 101, 100), Box(0, "Edema", 0, 0, 224, 224)]
    assert placement_warnings(boxes, {0: (100, 100)}, ["a"])[0].count("1 (a)") == 1
    assert placement_warnings(boxes[:1], {0: (100, 100)}, ["a"]) == []


@given(
    spelling=st.sampled_from([str, str.upper, str.lower, str.title]),
    name=st.sampled_from(["Pleural_Thickening", "Edema", "Infiltration", "Infiltrate"]),
    blank=st.sampled_from(["_", " ", "  "]),
)
def test_findings_are_compared_without_case_where_that_tells_them_apart(
    spelling: Callable[[str], str], name: str, blank: str
) -> None:
    own = ("Pleural_Thickening", "Edema", "Infiltration", "Mass", "mass")
    typed = spelling(name).replace("_", blank)
    sources, targets = {label: (label,) for label in own}, np.ones((1, 5), np.float32)
    kept = kept_boxes([(0, "a", typed, (1, 1, 2, 2))], "labels.csv", own, sources, targets)
    assert [box.label for box in kept.boxes] == ["Infiltration" if "Infil" in name else name] and not kept.warnings
    lines = [(0, "a", finding, (1, 1, 2, 2)) for finding in ("Mass", "mass", "MASS")]
    kept = kept_boxes(lines, "labels.csv", own, sources, targets)
    assert [box.label for box in kept.boxes] == ["Mass", "mass"] and "(MASS)" in kept.warnings[0]


@given(
    lines=st.lists(st.tuples(st.sampled_from([0, 1, None]), st.sampled_from(["Edema", "Nodule", "Rash", ""]))),
    merged=st.booleans(),
)
def test_each_line_of_a_list_is_a_box_or_counted(lines: list[tuple[int | None, str]], merged: bool) -> None:
    sources, targets = {"Edema": ("Edema",)}, np.array([[1], [0]], np.float32)
    listed = [(row, f"{row}.png", finding, (1, 1, 2, 2)) for row, finding in lines]
    kept = kept_boxes(listed, "labels.csv", LABELS, sources, targets, merged)
    counts = {text: int(re.search(r"\d+", text)[0]) for text in kept.warnings}
    left_out = sum(count for text, count in counts.items() if "left out" in text)
    assert len(kept.boxes) + kept.unused + left_out == len(lines)
    absent = lines.count((1, "Edema"))
    assert sum(counts.values()) - left_out == (0 if merged else absent)
    assert (1 in [box.index for box in kept.boxes]) == bool(absent and not merged)
