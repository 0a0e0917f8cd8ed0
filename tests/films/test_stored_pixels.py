"""Films by lookup and in integers: bit for bit what the plain way gives, pixel by pixel in float64."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from edgecxr.errors import InputError
from edgecxr.films import resize
from edgecxr.films.display import displayed
from edgecxr.films.radiograph import StoredPixels
from edgecxr.films.read import read_radiograph
from edgecxr.films.resize import to_base
from tests.films.dicom_files import film, lookup, write

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import plain_film

SIDES = st.integers(1, 40) | st.sampled_from([224, 225, 336, 448, 449, 600, 896])


@st.composite
def films(draw: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the words of a film and its elements: of any depth, sign, polarity and window."""
    words = np.dtype(draw(st.sampled_from([np.uint8, np.uint16])))
    width = 8 * words.itemsize
    bits = draw(st.integers(2, width))
    high = draw(st.sampled_from([bits - 1, bits - 1, width - 1]))
    signed = draw(st.booleans())
    values = draw(st.integers(0, 2**32 - 1).map(np.random.default_rng)).integers(
        0, 1 << draw(st.integers(1, bits)), (draw(SIDES), draw(SIDES))
    )
    values[: len(values) // draw(st.integers(1, 9))] = draw(st.integers(0, (1 << bits) - 1))
    stored = (values << (high + 1 - bits)).astype(words)
    elements: dict[str, Any] = {
        "BitsStored": bits, "HighBit": high, "PixelRepresentation": int(signed),
        "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
    }  # fmt: skip
    slopes = st.none() | st.sampled_from(["1", "2", "0.5", "-1", "0.3", "1e-3"])
    if slope := draw(slopes):
        elements |= {"RescaleSlope": slope, "RescaleIntercept": draw(st.sampled_from(["0", "-1024", "7.25"]))}
    kind = draw(st.sampled_from(["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "table"]))
    if kind == "table":
        entries = draw(st.lists(st.integers(0, 4095), min_size=2, max_size=40).filter(any))
        elements["VOILUTSequence"] = [lookup(entries, draw(st.integers(0, 200)), 12)]
    elif kind != "none":
        ends = st.integers(0, 1 << bits) | st.sampled_from([0.5, 99.25, 100])
        elements |= {"WindowCenter": draw(ends), "WindowWidth": max(1, draw(ends)), "VOILUTFunction": kind}
    if draw(st.booleans()) and not signed:
        elements["PixelPaddingValue"] = draw(st.integers(0, (1 << bits) - 1))
    return stored, elements


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(film_and_elements=films(), size=st.sampled_from([7, 16, 224]), big=st.booleans())
def test_every_film_is_what_the_plain_way_gives(
    tmp_path_factory: pytest.TempPathFactory, film_and_elements: tuple[np.ndarray, dict[str, Any]], size: int, big: bool
) -> None:
    stored, elements = film_and_elements
    dataset = film(stored.astype(stored.dtype.newbyteorder(">")) if big else stored, **elements)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    path = write(dataset, tmp_path_factory.mktemp("film"))
    expected = plain_film.grey(dcmread(path))
    try:
        radiograph = read_radiograph(path)
    except InputError as error:
        assert error.reason == "blank" and expected.min() == expected.max()
        return
    assert isinstance(radiograph.held, StoredPixels)
    np.testing.assert_array_equal(radiograph.pixels, expected)
    if min(stored.shape) > size:
        np.testing.assert_array_equal(to_base(radiograph.held, size), plain_film.base(expected, size))
    np.testing.assert_array_equal(to_base(radiograph.held, size), to_base(expected, size))
    np.testing.assert_array_equal(displayed(radiograph.held), displayed(expected))


TABLES = st.sampled_from(["line", "steps", "noise", "halves", "flat", "beyond"])


def table_of(kind: str, rng: np.random.Generator, words: int) -> np.ndarray:
    """Return a table; "halves" makes means that lie exactly where rounding changes, by the thousand."""
    low, high = sorted(rng.integers(0, words, 2).tolist())
    line = np.clip((np.arange(words) - low) / max(1, high - low), 0, 1)
    return {
        "line": line, "steps": np.floor(3 * line) / 3, "noise": rng.random(words), "flat": np.full(words, 0.25),
        "halves": rng.integers(0, 511, words) / 510, "beyond": 2 * line - 0.5,
    }[kind].astype(np.float32)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    kind=TABLES, shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1), word=st.sampled_from([np.uint8, np.uint16]), hidden=st.booleans(),
)  # fmt: skip
def test_integers_give_the_bits_of_the_sums_in_float64(
    kind: str, shape: tuple[int, int], size: int, seed: int, word: Any, hidden: bool
) -> None:
    rng = np.random.default_rng(seed)
    words = 1 << int(rng.integers(1, 8 * np.dtype(word).itemsize + 1))
    stored = StoredPixels(
        rng.integers(0, words, shape).astype(word),
        table_of(kind, rng, words),
        rng.random(shape) < 0.7 if hidden else None,
    )
    grey = stored.table[stored.words] * (1 if stored.visible is None else stored.visible)
    np.testing.assert_array_equal(stored.grey(), grey)
    np.testing.assert_array_equal(to_base(stored, size), to_base(grey.astype(np.float32), size))
    assert stored.is_blank() == (grey.min() == grey.max())


def test_cells_at_the_edge_of_rounding_are_averaged_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).integers(0, 2, (40, 40)).astype(np.uint8)
    stored = StoredPixels(words, np.array([0, 1 / 255, 0.3, 0.1], np.float32))
    assert (to_base(stored, 20) == plain_film.base(stored.grey(), 20)).all()
    monkeypatch.setattr(resize, "_cell", lambda *_: np.uint8(7))
    assert (to_base(stored, 20) == 7).sum() > 100, "cells with a mean of a half are doubtful"
    monkeypatch.setattr(resize, "_DOUBTFUL", 100)
    assert not (to_base(stored, 20) == 7).any(), "so many are averaged all anew"


def test_white_cells_of_any_size_do_not_overflow() -> None:
    for rows, columns in ((80, 78), (40, 40), (5 * 400, 5 * 330), (5 * 66000, 6)):
        for table in ([0, 0.5, 0, 1], [0, 0, 0, 1]):
            stored = StoredPixels(np.full((rows, columns), 3, np.uint16), np.array(table, np.float32))
            assert (to_base(stored, 5) == 255).all()
