from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless

from edgecxr.data.phantom.film import render
from edgecxr.runtime import jpeg2000
from edgecxr.runtime.jpeg2000 import reduced
from edgecxr.runtime.preprocess import to_base
from edgecxr.runtime.read import read_radiograph
from tests.runtime.dicom_files import film, write

MEAN, NEARLY_ALL, MOST = 0.13, 5, 12
"""Grey levels of 255 that the 224 px image may differ by from the full decoder's: on average, in 99.9 %, at edges."""

ODD = (1803, 1793)


def stored(rows: int, columns: int) -> np.ndarray:
    """Return a film of 12 bits with noise, and a mark with sharp edges in a corner."""
    small = Image.fromarray(render(seed=0, index=3).pixels)
    large = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), np.float64)
    large = large + np.random.default_rng(0).normal(0, 0.004, large.shape)
    large[60:160, 50:65] = large[100:115, 50:180] = 1
    return np.rint(4095 * np.clip(large, 0, 1)).astype(np.uint16)


def j2k(folder: Path, pixels: np.ndarray, **elements: Any) -> Path:
    dataset = film(pixels, BitsStored=12, WindowCenter=2048, WindowWidth=4096, **elements)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return write(dataset, folder, "j2k.dcm")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return j2k(tmp_path_factory.mktemp("large"), stored(*ODD))


def stream_of(path: Path) -> bytes:
    return get_frame(dcmread(path).PixelData, 0, number_of_frames=1)


def test_a_large_film_is_decoded_at_half_its_size_and_differs_little(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_radiograph(large)
    assert found.pixels.shape == (ODD[0] // 2, ODD[1] // 2) and found.shape == ODD and found.warnings == ()
    monkeypatch.setattr(jpeg2000, "LEAST", 10**6)
    whole = read_radiograph(large)
    assert whole.pixels.shape == whole.shape == ODD
    assert_alike(to_base(found.pixels), to_base(whole.pixels))


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    apart = np.abs(ours.astype(int) - theirs)
    found = apart.mean(), np.quantile(apart, 0.999), apart.max()
    assert np.less_equal(found, (MEAN, NEARLY_ALL, MOST)).all() and apart.any(), found


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
    for bits, dtype, value in ((16, np.uint16, 1234), (8, np.uint8, 77)):
        pixels = np.full((1800, 1800), value, dtype)
        pixels[:, 900:] = value // 2
        dataset = film(pixels, BitsStored=12 if bits == 16 else 8)
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        found = reduced(get_frame(dataset.PixelData, 0, number_of_frames=1), 1800, 1800, bits)
        assert found is not None and found.dtype == dtype
        assert (found[:, :440] == value).all() and (found[:, 460:] == value // 2).all()


def test_what_is_unusual_is_left_to_the_full_decoder(large: Path, tmp_path: Path) -> None:
    stream = stream_of(large)
    assert reduced(stream, *ODD, 16) is not None
    assert reduced(stream.rstrip(b"\0") + b"\0\0", *ODD, 16) is not None, "padding may follow"
    assert reduced(stream[: len(stream) // 2], *ODD, 16) is None, "cut off"
    assert reduced(stream, ODD[1], ODD[0], 16) is None, "of another size"
    assert reduced(stream, *ODD, 8) is None, "more bits than there is room for"
    assert reduced(stream, 1790, 1790, 16) is None, "too small to be halved"
    assert reduced(b"\xff\x4f\xff\x51", *ODD, 16) is None and reduced(b"", *ODD, 16) is None
    damaged = stream[:200] + bytes(2000) + stream[2200:]
    assert reduced(damaged, *ODD, 16) is None or reduced(damaged, *ODD, 16).shape == (901, 896)  # type: ignore[union-attr]
    signed = (stored(1800, 1800).astype(np.int32) - 2048).astype(np.int16)
    assert read_radiograph(j2k(tmp_path, signed, PixelRepresentation=1)).pixels.shape == (1800, 1800)
    grey = Image.fromarray((stored(1800, 1800) >> 4).astype(np.uint8))
    moved = {"offset": (8, 8), "tile_size": (2048, 2048)}
    for picture, options in ((grey.convert("RGB"), {}), (grey, {"num_resolutions": 1}), (grey, moved)):
        file = io.BytesIO()
        picture.save(file, "JPEG2000", no_jp2=True, **options)
        assert reduced(file.getvalue(), 1800, 1800, 8) is None


@pytest.mark.corpus
def test_a_real_film_differs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    path = Path(root, "dicom", "cxr", "RG1_J2KI.dcm")
    halved = read_radiograph(path)
    assert halved.pixels.shape == (977, 920) and halved.shape == (1955, 1841)
    monkeypatch.setattr(jpeg2000, "LEAST", 10**6)
    assert_alike(to_base(halved.pixels), to_base(read_radiograph(path).pixels))
