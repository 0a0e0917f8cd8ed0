"""JPEG streams in colour are decoded by what their markers and the names of their components say."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from edgecxr.films.codestreams.jpeg import stated_rgb
from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import compressed, film, write

ADOBE, JFIF = 0xEE, 0xE0


def colours(rows: int, columns: int) -> np.ndarray:
    """Return a smooth picture whose channels differ."""
    y, x = np.linspace(0, 1, rows)[:, None], np.linspace(0, 1, columns)[None]
    return np.rint(250 * np.stack([0 * y + x, y + 0 * x, (2 - x - y) / 2], -1)).astype(np.uint8)


def renamed(stream: bytes, names: bytes, dropped: tuple[int, ...]) -> bytes:
    """Return a stream with other names for its components, and without some markers."""
    renamed, position, old = bytearray(stream[:2]), 2, b""
    while True:
        marker, (length,) = stream[position + 1], struct.unpack_from(">H", stream, position + 2)
        body = bytearray(stream[position : position + 2 + length])
        if 0xC0 <= marker <= 0xC2:
            old, body[10:19:3] = bytes(body[10:19:3]), names
        if marker == 0xDA:
            body[5:11:2] = bytes(names[old.index(name)] for name in body[5:11:2])
            return bytes(renamed + body) + stream[position + 2 + length :]
        renamed += b"" if marker in dropped else body
        position += 2 + length


def encoded(pixels: np.ndarray, rgb: bool) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=98, subsampling=0, keep_rgb=rgb)
    return stream.getvalue()


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(64, 100), columns=st.integers(64, 100), rgb=st.booleans(), marked=st.booleans(),
    pieces=st.integers(1, 3), frames=st.integers(1, 2), table=st.booleans(),
)  # fmt: skip
def test_the_luminance_is_that_of_the_picture(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, rgb: bool, marked: bool, pieces: int,
    frames: int, table: bool,
) -> None:  # fmt: skip
    pixels = colours(rows, columns)
    names = b"RGB" if rgb else b"\1\2\3"
    stream = renamed(encoded(pixels, rgb), names, () if marked else (ADOBE, JFIF))
    assert (stated_rgb(stream) is not None) == (rgb and not marked)
    dataset = compressed(film(pixels, NumberOfFrames=frames), JPEGBaseline8Bit, stream)
    dataset.PhotometricInterpretation = "RGB" if rgb else "YBR_FULL"
    dataset.PixelData = encapsulate([stream] * frames, fragments_per_frame=pieces, has_bot=table or pieces * frames > 1)
    dataset["PixelData"].is_undefined_length = True
    radiograph = read_radiograph(write(dataset, tmp_path_factory.mktemp("film")))
    expected = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.abs(radiograph.pixels - expected).max() < 4 / 255


def test_the_names_of_the_components_count_more_than_the_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    pixels = colours(64, 64)
    stream = renamed(encoded(pixels, True), b"RGB", (ADOBE, JFIF))
    dataset = compressed(film(pixels), JPEGBaseline8Bit, stream)
    dataset.PhotometricInterpretation = "YBR_FULL"
    radiograph = read_radiograph(write(dataset, tmp_path_factory.mktemp("film")))
    assert np.abs(radiograph.pixels - pixels @ np.array([0.299, 0.587, 0.114]) / 255).max() < 4 / 255


@given(junk=st.binary(max_size=60))
def test_garbage_has_no_names(junk: bytes) -> None:
    for stream in (junk, b"\xff\xd8\xff" + junk):
        assert stated_rgb(stream) is None or b"RGB" not in junk
