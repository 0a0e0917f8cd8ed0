"""Films whose pixels were cut into rows of the wrong length are refused, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from edgecxr.errors import InputError
from edgecxr.films.codestreams.row_length import other_row_length
from edgecxr.films.dicom import read_dicom
from tests.films.dicom_files import film, write


def picture(rows: int, columns: int, seed: int, noise: float = 20) -> np.ndarray:
    """Return a picture of soft shapes with noise, as radiographs are."""
    random = np.random.default_rng(seed)
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    shapes = sum(
        weight * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / width)
        for cy, cx, width, weight in random.uniform((-1, -1, 0.02, 300), (1, 1, 0.3, 2000), (8, 4))
    )
    return (shapes + random.normal(300, noise, (rows, columns))).clip(0, 4095).astype(np.uint16)


SIDES = st.integers(60, 500)


@given(SIDES, SIDES, st.integers(0, 1000))
def test_pixels_of_a_film_line_up_in_its_own_rows(rows: int, columns: int, seed: int) -> None:
    assert other_row_length(picture(rows, columns, seed)) is None


@given(st.integers(128, 300), st.floats(1.15, 1.8), st.booleans(), st.integers(0, 1000))
def test_exchanged_sides_are_told(side: int, ratio: float, tall: bool, seed: int) -> None:
    rows, columns = (int(side * ratio), side) if tall else (side, int(side * ratio))
    pixels = picture(rows, columns, seed)
    assert other_row_length(pixels.reshape(columns, rows)) == columns


def test_other_sides_with_the_same_product_are_told() -> None:
    pixels = picture(300, 240, 0)
    assert other_row_length(pixels.reshape(400, 180)) == 240
    assert other_row_length(pixels.reshape(200, 360)) == 240


@given(
    st.integers(128, 240), st.integers(1, 3), st.integers(-3, 3), st.lists(st.floats(0, 3000), min_size=2, max_size=9),
    st.integers(0, 1000),
)  # fmt: skip
def test_a_pattern_that_repeats_every_few_rows_is_no_other_length(
    columns: int, times: int, more: int, pattern: list[float], seed: int
) -> None:
    rows = times * columns + more
    stripes = np.resize(pattern, rows)[:, None].astype(np.uint16)
    assert other_row_length(picture(rows, columns, seed) + stripes) is None


@given(st.integers(128, 200), st.floats(1.15, 1.8), st.integers(0, 1000))
def test_exchanged_sides_are_told_where_rows_differ_slightly(columns: int, ratio: float, seed: int) -> None:
    rows = int(columns * ratio)
    pixels = picture(rows, columns, seed) + np.resize([0, 30], rows)[:, None].astype(np.uint16)
    assert other_row_length(pixels.reshape(columns, rows)) in (columns, 2 * columns)


@pytest.mark.parametrize("pixels", [
    np.zeros((300, 200), np.uint16), np.random.default_rng(0).integers(0, 4096, (300, 200)).astype(np.uint16),
    np.tile(np.arange(200, dtype=np.uint16), (300, 1)), np.tile(np.arange(300, dtype=np.uint16)[:, None], (1, 200)),
    np.repeat([0, 200], 256 * 128).astype(np.uint8).reshape(256, 256), np.eye(300, dtype=np.uint8) * 200,
    np.ones((1, 1), np.uint8), np.ones((31, 400), np.uint8), np.ones((2, 50_000), np.uint8),
])  # fmt: skip
def test_what_has_no_shapes_is_not_judged(pixels: np.ndarray) -> None:
    assert other_row_length(pixels) is None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_film_with_exchanged_sides_is_malformed(tmp_path: Path, syntax: str) -> None:
    dataset = film(picture(300, 240, 1), bits=12)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    assert read_dicom(write(dataset, tmp_path)).size == (300, 240)
    if syntax == RLELossless:
        dataset = film(picture(300, 240, 1).reshape(240, 300), bits=12)
        dataset.compress(RLELossless)
    else:
        dataset.Rows, dataset.Columns = 240, 300
    with pytest.raises(InputError, match="rows of 240") as caught:
        read_dicom(write(dataset, tmp_path))
    assert caught.value.reason == "malformed"
