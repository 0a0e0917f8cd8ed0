"""Pixel data that are larger than the header says: a film that is cut off or sheared is never returned in silence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from edgecxr.errors import InputError
from edgecxr.films.read import read_radiograph
from tests.films.codestreams.test_damage import by_gdcm
from tests.films.dicom_files import compressed, film, write

MANY = settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))


def pixels_of(shape: tuple[int, ...], bits: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 1 << bits, shape)
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def undefined(path: Path) -> None:
    """Give the pixel data, which come last, an undefined length."""
    content = path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00O") + 8
    path.write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :] + b"\xfe\xff\xdd\xe0" + bytes(4))


@MANY
@given(
    rows=st.integers(20, 60), columns=st.integers(20, 60), bits=st.sampled_from([8, 12, 16]), colour=st.booleans(),
    less=st.tuples(st.integers(0, 19), st.integers(0, 19)).filter(any), frames=st.sampled_from([None, 1, 2]),
    syntax=st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian]), items=st.booleans(),
)  # fmt: skip
def test_rows_and_columns_that_are_too_small_are_malformed(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, bits: int, colour: bool,
    less: tuple[int, int], frames: int | None, syntax: str, items: bool,
) -> None:  # fmt: skip
    shape = (rows, columns, 3) if colour else (rows, columns)
    whole = pixels_of(shape, bits)
    dataset = film(whole, NumberOfFrames=frames)
    dataset.PixelData = np.stack([whole] * (frames or 1)).tobytes()
    dataset.PixelData += bytes(len(dataset.PixelData) % 2)
    dataset.file_meta.TransferSyntaxUID = syntax
    items &= syntax == ExplicitVRLittleEndian
    if items:
        dataset.PixelData = encapsulate([dataset.PixelData], has_bot=False)
    folder = tmp_path_factory.mktemp("film")
    path = write(dataset, folder)
    if items:
        with pytest.raises(InputError, match="bytes of pixels"):
            read_radiograph(path)  # of a length, and so their headers would count as pixels
        undefined(path)
    radiograph = read_radiograph(path)
    assert radiograph.shape == (rows, columns) and not any("bytes more" in warning for warning in radiograph.warnings)
    dataset.Rows, dataset.Columns = rows - less[0], columns - less[1]
    write(dataset, folder)
    if items:
        undefined(path)
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.reason == "malformed" and "rows" in str(caught.value)


@MANY
@given(rows=st.integers(20, 60), columns=st.integers(20, 60), extra=st.integers(1, 60), wide=st.booleans())
def test_a_few_bytes_more_are_filler_and_are_told(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, extra: int, wide: bool
) -> None:
    whole = pixels_of((rows, columns), 12 if wide else 8)
    dataset = film(whole, WindowCenter=100, WindowWidth=100)
    dataset.PixelData += b"\0\1" * extra
    path = write(dataset, tmp_path_factory.mktemp("film"))
    if 2 * extra < min(rows, columns) * whole.itemsize:
        assert f"{2 * extra} bytes more" in " ".join(read_radiograph(path).warnings)
    elif 2 * extra > min(rows, columns) * whole.itemsize:
        with pytest.raises(InputError, match="bytes of pixels"):
            read_radiograph(path)


@pytest.mark.parametrize("change", [{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, {}])
def test_pixels_of_more_samples_or_bits_than_stated_are_malformed(tmp_path: Path, change: dict[str, Any]) -> None:
    dataset = film(pixels_of((30, 40, 3) if change else (30, 40), 8 if change else 12), **change)
    if not change:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    with pytest.raises(InputError) as caught:
        read_radiograph(write(dataset, tmp_path))
    assert caught.value.reason == "malformed"


def encoded(folder: Path, syntax: str, wrapped: bool = False) -> FileDataset:
    """Return a film of 60 x 80 in a syntax, perhaps as a JP2 file."""
    if syntax in (JPEGLosslessSV1, JPEGExtended12Bit):
        kind = "JPEGLosslessProcess14_1" if syntax == JPEGLosslessSV1 else "JPEGExtendedProcess2_4"
        pixels = pixels_of((60, 80), 12)
        return compressed(
            film(pixels, BitsStored=12), syntax, by_gdcm(folder, pixels, kind, syntax == JPEGExtended12Bit)
        )
    if syntax == JPEGLSLossless:
        dataset = film(pixels_of((60, 80), 12), BitsStored=12)
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        return dataset
    stream = io.BytesIO()
    options = {} if syntax == JPEGBaseline8Bit else {"no_jp2": not wrapped}
    pixels = pixels_of((60, 80), 8)
    Image.fromarray(pixels).save(stream, "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000", **options)
    return compressed(film(pixels), syntax, stream.getvalue())


CODECS = [
    (JPEGBaseline8Bit, False), (JPEGExtended12Bit, False), (JPEGLosslessSV1, False), (JPEGLSLossless, False),
    (JPEG2000Lossless, False), (JPEG2000Lossless, True), (HTJ2K, False),
]  # fmt: skip


@pytest.mark.parametrize(("syntax", "wrapped"), CODECS)
@pytest.mark.parametrize("pieces", [1, 9])
def test_a_codestream_of_another_size_is_refused(tmp_path: Path, syntax: str, wrapped: bool, pieces: int) -> None:
    dataset = encoded(tmp_path, syntax, wrapped)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    if syntax == JPEGBaseline8Bit:  # a frame header that does not lie in the first fragment
        stream = stream[:2] + (b"\xff\xe1\x40\x02" + bytes(0x4000)) * 2 + stream[2:]
    dataset.PixelData = encapsulate([stream], fragments_per_frame=pieces, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    assert read_radiograph(write(dataset, tmp_path)).shape == (60, 80)
    for rows, columns in ((30, 80), (60, 40), (80, 60), (59, 80), (60, 81), (120, 40)):
        dataset.Rows, dataset.Columns = rows, columns
        with pytest.raises(InputError) as caught:
            read_radiograph(write(dataset, tmp_path))
        assert caught.value.reason == "undecodable" and "60 x 80" in str(caught.value)


@pytest.mark.parametrize(("syntax", "wrapped"), [codec for codec in CODECS if not codec[1]])
def test_a_second_frame_that_is_not_stated_is_told(tmp_path: Path, syntax: str, wrapped: bool) -> None:
    dataset = encoded(tmp_path, syntax)
    expected = read_radiograph(write(dataset, tmp_path))
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    for frames in (None, 1):
        dataset.NumberOfFrames = frames
        dataset.PixelData = encapsulate([stream, stream], has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        radiograph = read_radiograph(write(dataset, tmp_path))
        assert np.array_equal(radiograph.pixels, expected.pixels)
        assert any("more frames" in warning for warning in radiograph.warnings)


@MANY
@given(
    rows=st.integers(20, 60), columns=st.integers(61, 90), bits=st.sampled_from([8, 12]), count=st.integers(1, 9000),
    items=st.booleans(), value=st.booleans(),
)  # fmt: skip
def test_zeros_after_the_film_are_filler_and_told(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, bits: int, count: int, items: bool, value: bool
) -> None:
    whole = pixels_of((rows, columns), bits)
    dataset = film(whole)
    filler = bytes(2 * count - 2) + bytes([value, 0])
    size = whole.nbytes + whole.nbytes % 2
    dataset.PixelData = whole.tobytes().ljust(size, b"\0") + filler
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if items:
        dataset.PixelData = encapsulate([dataset.PixelData], has_bot=False)
    path = write(dataset, tmp_path_factory.mktemp("film"))
    if items:
        undefined(path)
    row = 2 * count >= whole.itemsize * rows
    if row and (value or 2 * count % (whole.itemsize * rows) == 0):  # of a whole column: rows may be sheared
        with pytest.raises(InputError, match="bytes of pixels"):
            read_radiograph(path)
    else:
        radiograph = read_radiograph(path)
        assert radiograph.shape == (rows, columns) and any(
            f"{2 * count} bytes more" in text for text in radiograph.warnings
        )
