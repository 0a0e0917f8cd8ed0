"""Streams in which bytes were changed: they are refused, nearly always, and whole ones never."""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edgecxr.errors import InputError
from edgecxr.films.codestreams import jpeg, jpeg2000, runs
from edgecxr.films.read import read_radiograph
from edgecxr.phantom.film import render
from tests.films.dicom_files import compressed, film, write

TWELVE = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
EIGHT = {"WindowCenter": 128, "WindowWidth": 256}


def stored(bits: int, side: int = 400) -> np.ndarray:
    large = Image.fromarray(render(seed=0, index=3).pixels).resize((side - 20, side), Image.Resampling.BICUBIC)
    noisy = np.asarray(large, np.float64) + np.random.default_rng(0).normal(0, 0.005, (side, side - 20))
    top = (1 << bits) - 1
    return np.rint(top * np.clip(noisy, 0, 1)).astype(np.uint16 if bits > 8 else np.uint8)


def by_gdcm(folder: Path, pixels: np.ndarray, kind: str, lossy: bool) -> bytes:
    """Return a frame that GDCM encoded."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write(film(pixels, **(TWELVE if pixels.itemsize > 1 else {})), folder, "raw.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
    change.SetInput(reader.GetImage())
    if lossy:
        codec = gdcm.JPEGCodec()
        codec.SetLossless(False)
        change.SetUserCodec(codec)
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "encoded.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return get_frame(dcmread(folder / "encoded.dcm").PixelData, 0, number_of_frames=1)


def picture(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stored(8)).save(stream, kind, **options)
    return stream.getvalue()


def file_of(folder: Path, codec: str) -> Path:
    """Return a whole film in a file."""
    own = {"rle": (RLELossless, 8), "rle12": (RLELossless, 12), "jpeg-ls": (JPEGLSLossless, 12)}
    own["jpeg2000"] = (JPEG2000Lossless, 12)
    if codec in own:
        syntax, bits = own[codec]
        dataset = film(stored(bits), **(TWELVE if bits > 8 else EIGHT))
        dataset.compress(
            syntax, generate_instance_uid=False, encoding_plugin="pydicom" if syntax == RLELossless else ""
        )
        return write(dataset, folder)
    if codec == "deflated":
        dataset = film(stored(12), **TWELVE)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        return write(dataset, folder)
    if codec in ("lossless", "extended"):
        kind = {"lossless": "JPEGLosslessProcess14_1", "extended": "JPEGExtendedProcess2_4"}[codec]
        stream = by_gdcm(folder, stored(12), kind, codec == "extended")
        syntax = JPEGLosslessSV1 if codec == "lossless" else JPEGExtended12Bit
        return write(compressed(film(stored(12), **TWELVE), syntax, stream), folder)
    if codec == "baseline":
        return write(compressed(film(stored(8), **EIGHT), JPEGBaseline8Bit, picture("JPEG", quality=90)), folder)
    kinds: dict[str, tuple[str, dict[str, object]]] = {
        "jpg": ("JPEG", {"quality": 90}), "jpg optimised": ("JPEG", {"quality": 90, "optimize": True}),
        "jpg restarts": ("JPEG", {"restart_marker_rows": 1}), "png": ("PNG", {}), "jp2": ("JPEG2000", {}),
        "tif lzw": ("TIFF", {"compression": "tiff_lzw"}), "tif packbits": ("TIFF", {"compression": "packbits"}),
        "tif deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}), "tif jpeg": ("TIFF", {"compression": "jpeg"}),
        "gif": ("GIF", {}),
    }  # fmt: skip
    kind, options = kinds[codec]
    path = folder / "film"
    path.write_bytes(picture(kind, **options))
    return path


CODECS = [
    "rle", "rle12", "jpeg-ls", "jpeg2000", "deflated", "lossless", "extended", "baseline", "jpg", "jpg optimised",
    "jpg restarts", "png", "jp2", "tif lzw", "tif packbits", "tif deflate", "tif jpeg", "gif",
]  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_zeroed_bytes_are_refused_without_a_word_on_standard_error(
    tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, codec)
    whole = path.read_bytes()
    assert not any("may be" in warning for warning in read_radiograph(path).warnings)
    random, refused, tries = np.random.default_rng(0), 0, 20
    for _ in range(tries):
        content, count = bytearray(whole), int(random.integers(50, 501))
        place = int(random.integers(1500, len(whole) - count - 200))
        content[place : place + count] = bytes(count)
        path.write_bytes(content)
        try:
            read_radiograph(path)
        except InputError as error:
            assert error.reason in ("undecodable", "malformed")
            refused += 1
    assert refused >= 0.8 * tries
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("codec", [name for name in CODECS if name not in ("jpeg2000", "jp2")])
def test_random_bytes_are_refused(tmp_path: Path, codec: str) -> None:
    path = file_of(tmp_path, codec)
    whole = path.read_bytes()
    random, refused, tries = np.random.default_rng(1), 0, 10
    for _ in range(tries):
        content = bytearray(whole)
        place = int(random.integers(1500, len(whole) - 700))
        content[place : place + 300] = random.integers(0, 256, 300).astype(np.uint8).tobytes()
        path.write_bytes(content)
        try:
            read_radiograph(path)
        except InputError as error:
            assert error.reason in ("undecodable", "malformed")
            refused += 1
    assert refused >= 0.8 * tries


NOISE = st.tuples(st.integers(8, 90), st.integers(8, 90), st.integers(0, 99), st.floats(0, 60))


def noise(of: tuple[int, int, int, float]) -> np.ndarray:
    rows, columns, seed, width = of
    return np.clip(np.random.default_rng(seed).normal(128, width, (rows, columns)), 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(of=NOISE, quality=st.integers(1, 100), optimised=st.booleans(), colour=st.booleans(), rest=st.binary(max_size=9))
def test_no_whole_jpeg_is_called_damaged(
    of: tuple[int, int, int, float], quality: int, optimised: bool, colour: bool, rest: bytes
) -> None:
    image, stream = Image.fromarray(noise(of)), io.BytesIO()
    (image.convert("RGB") if colour else image).save(stream, "JPEG", quality=quality, optimize=optimised)
    assert jpeg.fault(stream.getvalue() + rest) is None


@settings(deadline=None, max_examples=60)
@given(of=NOISE, layers=st.sampled_from([[0], [40, 0], [80, 40, 20, 10]]), precinct=st.sampled_from([None, 32, 128]))
def test_no_whole_jpeg_2000_is_called_damaged(
    of: tuple[int, int, int, float], layers: list[int], precinct: int | None
) -> None:
    pixels = noise(of)
    pixels[: len(pixels) // 2] = 0
    stream, more = io.BytesIO(), {"precinct_size": (precinct, precinct)} if precinct else {}
    Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=True, quality_mode="rates", quality_layers=layers, **more)
    assert jpeg2000.fault(stream.getvalue()) is None
    with_zeros = stream.getvalue()
    place = with_zeros.index(b"\xff\x93") + 2
    assert jpeg2000.fault(with_zeros[:place] + b"\xff\x95" + with_zeros[place + 2 :]) is not None


@settings(deadline=None, max_examples=60)
@given(of=NOISE, pad=st.booleans())
def test_no_whole_rle_frame_is_called_damaged_and_each_other_length_is(
    of: tuple[int, int, int, float], pad: bool
) -> None:
    pixels = noise(of)
    dataset = film(pixels)
    dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1) + bytes(2 * pad)
    rows, columns = pixels.shape
    assert runs.fault_of_frame(stream, rows, columns) is None
    assert runs.fault_of_frame(stream, rows + 1, columns) and runs.fault_of_frame(stream, rows - 1, columns)


def test_a_film_is_decoded_though_an_encoder_left_a_byte_behind(tmp_path: Path) -> None:
    stream = picture("JPEG", quality=90)
    assert jpeg.fault(stream[:-2] + b"\0\xff\xd9") is None
    assert jpeg.fault(stream[:-2] + bytes(20) + b"\xff\xd9") is not None


def test_what_a_checksum_or_a_length_of_a_strip_says_is_heard(tmp_path: Path) -> None:
    from edgecxr.films.codestreams.tiff import _inflated

    content = zlib.compress(bytes(range(200)))
    assert _inflated(content, 200) is None
    assert _inflated(content, 199) and _inflated(content, 201) and _inflated(content[:-1], 200)


@settings(deadline=None, max_examples=40)
@given(of=NOISE, quality=st.integers(10, 95), colour=st.booleans(), restarts=st.booleans())
def test_progressive_streams_without_their_last_scans_are_refused(
    of: tuple[int, int, int, float], quality: int, colour: bool, restarts: bool
) -> None:
    image, stream = Image.fromarray(noise(of)), io.BytesIO()
    options = {"restart_marker_rows": 1} if restarts else {}
    (image.convert("RGB") if colour else image).save(stream, "JPEG", quality=quality, progressive=True, **options)
    whole = stream.getvalue()
    assert jpeg.fault(whole) is None
    scans = [marker.start() for marker in re.finditer(rb"\xff\xda", whole)]
    assert len(scans) > 3
    for place in scans[1:]:
        assert "scans are missing" in str(jpeg.fault(whole[:place] + b"\xff\xd9"))
