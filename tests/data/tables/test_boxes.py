from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.dataset import Box
from edgecxr.data.tables.boxes import film_corners, scaled
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
    for given in (ordered + others, (others + ordered)[::-1]):
        assert scaled(given, shapes, LABELS) == ordered


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
