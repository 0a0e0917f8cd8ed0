from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.uid import JPEG2000Lossless

from edgecxr.films.codestreams import jpeg2000
from edgecxr.films.codestreams.jpeg2000 import halved
from edgecxr.films.read import read_radiograph
from edgecxr.films.resize import to_base
from edgecxr.phantom.film import render
from tests.films.dicom_files import film, write

ALIKE = {224: (0.15, 5, 48), 448: (0.25, 9, 94)}
"""Grey levels of 255 that a film's image may differ by from the full decoder's: on average, in 99.9 %, at marks."""

EDGE = {224: (18, 36), 448: (36, 70)}
"""Grey levels that an edge from black to white makes at most, and a corner or a line; without clipping."""

REVERSIBLE = np.array([-1, 2, 6, 2, -1]) / 8
IRREVERSIBLE = np.array(
    [0.02674876, -0.01686412, -0.07822327, 0.26686412, 0.60294902, 0.26686412, -0.07822327, -0.01686412, 0.02674876]
)
"""Low-pass filters of both wavelets (ISO 15444-1, annex F)."""

ODD = (1803, 1793)


def stored(rows: int, columns: int) -> np.ndarray:
    """Return a film of 12 bits with noise, and a mark with sharp edges in a corner."""
    small = Image.fromarray(render(seed=0, index=3).pixels)
    large = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), np.float64)
    large = large + np.random.default_rng(0).normal(0, 0.004, large.shape)
    large[60:160, 50:65] = large[100:115, 50:180] = 1
    return np.rint(4095 * np.clip(large, 0, 1)).astype(np.uint16)


def j2k(folder: Path, pixels: np.ndarray, **elements: Any) -> Path:
    dataset = film(pixels, **{"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096} | elements)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return write(dataset, folder, "j2k.dcm")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return j2k(tmp_path_factory.mktemp("large"), stored(*ODD))


def stream_of(path: Path) -> bytes:
    return get_frame(dcmread(path).PixelData, 0, number_of_frames=1)


def assert_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radiograph = read_radiograph(path)
    monkeypatch.setattr(jpeg2000, "LEAST", 10**6)
    whole = read_radiograph(path)
    monkeypatch.undo()
    rows, columns = whole.pixels.shape
    assert radiograph.pixels.shape == (rows // 2, columns // 2) and radiograph.shape == whole.shape == (rows, columns)
    assert radiograph.warnings == whole.warnings
    for size, limits in ALIKE.items():
        apart = np.abs(to_base(radiograph.pixels, size).astype(int) - to_base(whole.pixels, size))
        measured = apart.mean(), np.quantile(apart, 0.999), apart.max()
        assert np.less_equal(measured, limits).all() and apart.any(), (size, measured)


def test_a_large_film_is_decoded_at_half_its_size_and_differs_little(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_alike(large, monkeypatch)


@pytest.mark.parametrize("bits", [10, 16])
def test_it_differs_as_little_with_fewer_or_more_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    pixels = stored(1792, 2101)
    pixels = pixels >> (12 - bits) if bits < 12 else pixels << (bits - 12)
    window = {"BitsStored": bits, "WindowCenter": 1 << (bits - 1), "WindowWidth": 1 << bits}
    assert_alike(j2k(tmp_path, pixels, **window), monkeypatch)


def area_mean(length: int, size: int) -> np.ndarray:
    """Return the (size, length) matrix of means over equal parts of a line."""
    ends = np.linspace(0, length, size + 1)
    starts, stops = ends[:-1, None], ends[1:, None]
    pixels = np.arange(length)[None]
    return np.clip(np.minimum(stops, pixels + 1) - np.maximum(starts, pixels), 0, None) * size / length


def ways(length: int, size: int, low_pass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a line's pixels contribute to an image, (size, length): by half the size, and by the full one."""
    places = 2 * np.arange(-(-length // 2))[:, None] + np.arange(len(low_pass)) - len(low_pass) // 2
    places = np.abs(places)  # mirrored at both ends
    places = np.where(places >= length, 2 * (length - 1) - places, places)
    smaller = np.zeros((len(places), length))
    for tap, factor in enumerate(low_pass):
        np.add.at(smaller, (np.arange(len(places)), places[:, tap]), factor)
    placed = jpeg2000._placed(np.eye(len(smaller), dtype=np.float32), length)
    return area_mean(length // 2, size) @ placed @ smaller, area_mean(length, size)


@pytest.mark.parametrize("low_pass", [REVERSIBLE, IRREVERSIBLE], ids=["reversible", "irreversible"])
@pytest.mark.parametrize("length", [1792, 1795, 2500])
def test_edges_and_lines_differ_by_what_is_promised(length: int, low_pass: np.ndarray) -> None:
    for size, (edge, line) in EDGE.items():
        half, full = (np.cumsum(way, axis=1) for way in ways(length, size, low_pass))
        apart = half - full  # of each pixel, for an edge at each place
        assert 255 * np.abs(apart).max() <= edge
        assert 255 * (apart.max(axis=1) - apart.min(axis=1)).max() <= line


def test_a_film_full_of_marks_differs_by_what_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    pixels = np.zeros((1795, 1801), np.uint16)
    for row, column in random.integers(0, 1780, (600, 2)):
        height, width = random.integers(9, 80, 2)
        pixels[row : row + height, column : column + width] = random.choice([0, 4095])
    path = j2k(tmp_path, pixels)
    halves = read_radiograph(path).pixels
    monkeypatch.setattr(jpeg2000, "LEAST", 10**6)
    whole = read_radiograph(path).pixels
    for size, (*_, most) in ALIKE.items():
        apart = np.abs(to_base(halves, size).astype(int) - to_base(whole, size))
        assert 8 < apart.max() <= most


def test_padding_is_left_to_the_full_decoder(tmp_path: Path) -> None:
    pixels = stored(1800, 1800)
    pixels[:300] = 4095
    radiograph = read_radiograph(j2k(tmp_path, pixels, PixelPaddingValue=4095))
    assert radiograph.pixels.shape == (1800, 1800) and (radiograph.pixels[:300] == 0).all()


@pytest.mark.parametrize("rows", [1792, 1795])
def test_nothing_is_moved(tmp_path: Path, rows: int) -> None:
    pixels = np.full((rows, 1794), 400, np.uint16)
    ends = {"top": 100, "bottom": rows - 333}
    pixels[ends["top"] : ends["bottom"], 301:1203] = 3000
    bright = read_radiograph(j2k(tmp_path, pixels)).pixels > 1700 / 4095
    scale = rows / len(bright)
    assert bright.any(axis=1).argmax() * scale == pytest.approx(ends["top"], abs=1.5)
    assert (len(bright) - bright.any(axis=1)[::-1].argmax()) * scale == pytest.approx(ends["bottom"], abs=1.5)
    share = to_base(bright.astype(np.float32)).mean() / 255
    assert share == pytest.approx((ends["bottom"] - ends["top"]) * 902 / (rows * 1794), abs=0.002)


def test_values_are_those_of_the_film(tmp_path: Path) -> None:
    pixels = np.full((1800, 1800), 1234, np.uint16)
    pixels[:, 900:] = 617
    dataset = film(pixels, BitsStored=12)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    values = halved(get_frame(dataset.PixelData, 0, number_of_frames=1), 1800, 1800)
    assert values is not None and values.dtype == np.uint16
    assert (values[:, :440] == 1234).all() and (values[:, 460:] == 617).all()


def test_a_film_in_many_fragments_is_put_together(large: Path, tmp_path: Path) -> None:
    dataset = dcmread(large)
    stream = stream_of(large)
    parts = [stream[start : start + 100_000] for start in range(0, len(stream), 100_000)]
    dataset.PixelData = encapsulate([stream], fragments_per_frame=len(parts))
    assert len(list(generate_fragments(dataset.PixelData))) > 3
    dataset.save_as(tmp_path / "parts.dcm")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "parts.dcm").pixels, read_radiograph(large).pixels)


def test_what_is_unusual_is_left_to_the_full_decoder(large: Path, tmp_path: Path) -> None:
    stream = stream_of(large)
    assert halved(stream, *ODD) is not None
    assert halved(stream.rstrip(b"\0") + b"\0\0", *ODD) is not None, "padding may follow"
    assert halved(stream[: len(stream) // 2], *ODD) is None, "cut off"
    assert halved(stream, ODD[1], ODD[0]) is None, "of another size"
    assert halved(stream, 1790, 1790) is None, "too small to be halved"
    assert halved(b"\xff\x4f\xff\x51", *ODD) is None and halved(b"", *ODD) is None
    assert halved(stream[:100] + bytes(len(stream) - 102) + b"\xff\xd9", *ODD) is None, "damaged"
    signed = (stored(1800, 1800).astype(np.int32) - 2048).astype(np.int16)
    assert read_radiograph(j2k(tmp_path, signed, PixelRepresentation=1)).pixels.shape == (1800, 1800)
    # Pillow writes 16 bits, and of these the precision is what the header says.
    grey = Image.fromarray((stored(1800, 1800) << 4).astype(np.uint16))
    moved = {"offset": (8, 8), "tile_size": (2048, 2048)}
    for picture, options in ((grey, {}), (grey, {"num_resolutions": 1}), (grey, moved)):
        file = io.BytesIO()
        picture.save(file, "JPEG2000", no_jp2=True, **options)
        assert (halved(file.getvalue(), 1800, 1800) is None) is bool(options), options
    eight = Image.fromarray((stored(1800, 1800) >> 4).astype(np.uint8))
    for picture in (eight, eight.convert("RGB")):
        file = io.BytesIO()
        picture.save(file, "JPEG2000", no_jp2=True)
        assert halved(file.getvalue(), 1800, 1800) is None


def test_a_header_that_is_none_is_not_searched_through(large: Path) -> None:
    stream = stream_of(large)
    begun = time.monotonic()
    assert halved(stream[:51] + bytes(40 << 20) + b"\xff\xd9", *ODD) is None
    assert time.monotonic() - begun < 2


@pytest.mark.corpus
def test_a_real_film_differs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    assert_alike(Path(root, "dicom", "cxr", "RG1_J2KI.dcm"), monkeypatch)
