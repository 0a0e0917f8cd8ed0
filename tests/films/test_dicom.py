from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from edgecxr.errors import InputError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import is_dicom, read_radiograph
from tests.films.dicom_files import compressed, film, lookup, without_transfer_syntax, write

STORED = np.array([[0, 1000], [2000, 4000]], np.uint16)
# C.11.2.1.2.1 with centre 2000, width 4001: (x - 1999.5) / 4000 + 0.5
LINEAR = (STORED - 1999.5) / 4000 + 0.5
WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 4001}


def read(folder: Path, pixels: np.ndarray, **elements: Any) -> Radiograph:
    return read_radiograph(write(film(pixels, **elements), folder))


def rejected(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def notes(radiograph: Radiograph) -> str:
    return "; ".join(text for text in radiograph.warnings if "enlarged" not in text)


# --- window, LUTs, bits


def test_window(tmp_path: Path) -> None:
    radiograph = read(tmp_path, STORED, **WINDOW)
    assert radiograph.pixels.dtype == np.float32
    assert np.allclose(radiograph.pixels, np.clip(LINEAR, 0, 1), atol=1e-6)
    assert notes(radiograph) == ""


@pytest.mark.parametrize(
    ("shape", "grey"),
    [
        ("LINEAR", [0, 0.5 - 0.5 / 99, 0.5 + 0.5 / 99, 1]),  # centre 50, width 100, at 0, 49, 50, 200
        ("LINEAR_EXACT", [0, 0.49, 0.5, 1]),
        ("SIGMOID", [1 / (1 + np.exp(2)), 1 / (1 + np.exp(0.04)), 0.5, 1 / (1 + np.exp(-6))]),
    ],
)
def test_window_functions(tmp_path: Path, shape: str, grey: list[float]) -> None:
    pixels = np.array([[0, 49, 50, 200]], np.uint16)
    radiograph = read(tmp_path, pixels, WindowCenter=50, WindowWidth=100, VOILUTFunction=shape)
    assert np.allclose(radiograph.pixels, [grey], atol=1e-6)


def test_first_of_several_windows(tmp_path: Path) -> None:
    radiograph = read(tmp_path, STORED, BitsStored=12, WindowCenter=[2000, 100], WindowWidth=[4001, 50])
    assert np.allclose(radiograph.pixels, np.clip(LINEAR, 0, 1), atol=1e-6)


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    radiograph = read(tmp_path, STORED, **WINDOW | {"WindowCenter": 900}, RescaleSlope=0.5, RescaleIntercept=-100)
    assert np.allclose(radiograph.pixels, ((STORED * 0.5 - 100) - 899.5) / 4000 + 0.5, atol=1e-6)


def test_negative_slope_inverts(tmp_path: Path) -> None:
    radiograph = read(tmp_path, STORED, **WINDOW, RescaleSlope=-1, RescaleIntercept=4000)
    assert np.allclose(radiograph.pixels, np.clip((4000.0 - STORED - 1999.5) / 4000 + 0.5, 0, 1), atol=1e-6)


def test_signed_pixels(tmp_path: Path) -> None:
    pixels = np.array([[-1000, 0], [500, 1000]], np.int16)
    radiograph = read(tmp_path, pixels, WindowCenter=0, WindowWidth=2001)
    assert np.allclose(radiograph.pixels, np.clip((pixels + 0.5) / 2000 + 0.5, 0, 1), atol=1e-6)


def test_signed_twelve_bits_without_sign_extension(tmp_path: Path) -> None:
    pixels = np.array([[-1000, 0], [500, 1000]], np.int16)
    radiograph = read(tmp_path, pixels & 0x0FFF, BitsStored=12, WindowCenter=0, WindowWidth=2001)
    assert np.allclose(radiograph.pixels, np.clip((pixels + 0.5) / 2000 + 0.5, 0, 1), atol=1e-6)


def test_rubbish_above_bits_stored_is_ignored(tmp_path: Path) -> None:
    dirty = STORED | np.array([[0x7000, 0xF000], [0, 0x8000]], np.uint16)
    assert np.array_equal(read(tmp_path, dirty, **WINDOW).pixels, read(tmp_path, STORED, **WINDOW).pixels)


def test_values_shifted_up_to_the_high_bit(tmp_path: Path) -> None:
    shifted = read(tmp_path, STORED << 4, **WINDOW, HighBit=15)
    assert np.array_equal(shifted.pixels, read(tmp_path, STORED, **WINDOW).pixels)


def test_voi_lut_with_eight_bit_entries_beyond_256(tmp_path: Path) -> None:
    curve = [i * 255 // 4095 for i in range(4096)]
    radiograph = read(tmp_path, STORED, BitsStored=12, VOILUTSequence=[lookup(curve, 0, 8)])
    assert np.allclose(radiograph.pixels * 255, [[0, 62], [124, 249]], atol=1e-4)


def test_lut_clamps_outside_its_range(tmp_path: Path) -> None:
    pixels = np.array([[0, 99, 100, 101, 102, 103, 4000]], np.uint16)
    radiograph = read(tmp_path, pixels, BitsStored=12, VOILUTSequence=[lookup([40, 100, 150, 200], 100, 8)])
    assert np.allclose(radiograph.pixels * 255, [[40, 40, 40, 100, 150, 200, 200]], atol=1e-4)


def test_modality_lut_then_window(tmp_path: Path) -> None:
    table = lookup([3000, 2000, 1000, 0], 0, 12)
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    radiograph = read(tmp_path, pixels, ModalityLUTSequence=[table], WindowCenter=1500, WindowWidth=3001)
    assert np.allclose(radiograph.pixels, [[1, 0.66683], [0.3335, 0.00017]], atol=1e-5)


@pytest.mark.parametrize("elements", [
    {"RescaleSlope": 2, "RescaleIntercept": -500, "WindowCenter": 3000, "WindowWidth": 5000},
    {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTFunction": "LINEAR_EXACT"},
    {"VOILUTSequence": [lookup([int(65535 * (i / 4095) ** 2) for i in range(4096)], 0, 16)]},
])  # fmt: skip
def test_agrees_with_pydicom_where_pydicom_can(tmp_path: Path, elements: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
    dataset = film(pixels, BitsStored=12, **elements)
    theirs = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset).astype(float)
    low, high = (0, 65535) if "VOILUTSequence" in elements else (0, 4095)
    if "RescaleSlope" in elements:
        low, high = -500, 2 * 4095 - 500
    assert np.allclose(read_radiograph(write(dataset, tmp_path)).pixels, (theirs - low) / (high - low), atol=1e-6)


# --- what to do without a usable window


def test_no_window_sets_contrast_by_percentiles(tmp_path: Path) -> None:
    pixels = np.arange(1000, 3000, dtype=np.uint16).reshape(40, 50)
    radiograph = read(tmp_path, pixels, BitsStored=12)
    assert radiograph.pixels.min() == 0
    assert radiograph.pixels.max() == 1
    assert abs(radiograph.pixels.mean() - 0.5) < 0.01
    assert "no window" in notes(radiograph)
    assert "percentiles" in notes(radiograph)


def test_padding_has_no_part_in_percentiles(tmp_path: Path) -> None:
    pixels = np.full((40, 100), 4095, np.uint16)
    pixels[:, 50:] = np.arange(1000, 3000).reshape(40, 50)
    radiograph = read(tmp_path, pixels, BitsStored=12, PixelPaddingValue=4095)
    assert abs(radiograph.pixels[:, 50:].mean() - 0.5) < 0.01


def test_eight_bits_without_a_window_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = np.array([[40, 80], [120, 200]], np.uint8)
    radiograph = read(tmp_path, pixels)
    assert np.allclose(radiograph.pixels, pixels / 255)
    assert "no window" in notes(radiograph)


@pytest.mark.parametrize(("center", "width"), [(60000, 10), (0, 1), (30000, 60000)])
def test_window_that_hides_the_film_is_replaced(tmp_path: Path, center: int, width: int) -> None:
    pixels = np.arange(100, 2100, dtype=np.uint16).reshape(40, 50)
    pixels = pixels if width < 60000 else pixels // 10  # a window so wide that 3 grey levels are left
    radiograph = read(tmp_path, pixels, WindowCenter=center, WindowWidth=width)
    assert abs(radiograph.pixels.mean() - 0.5) < 0.02
    assert "window leaves nearly nothing" in notes(radiograph)


@pytest.mark.parametrize("elements", [
    {"WindowCenter": 100, "WindowWidth": 0},
    {"WindowCenter": 100, "WindowWidth": -5},
    {"VOILUTSequence": [Dataset()]},
])  # fmt: skip
def test_impossible_window_is_ignored_with_a_warning(tmp_path: Path, elements: dict[str, Any]) -> None:
    radiograph = read(tmp_path, STORED, BitsStored=12, **elements)
    assert "ignored" in notes(radiograph)
    assert radiograph.pixels[1, 1] > radiograph.pixels[0, 1] > radiograph.pixels[0, 0]


# --- polarity


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "contradiction"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME1", "IDENTITY", True, True),
        ("MONOCHROME2", "INVERSE", True, True),
    ],
)
def test_inversion_happens_once(
    tmp_path: Path, photometric: str, shape: str | None, inverted: bool, contradiction: bool
) -> None:
    radiograph = read(tmp_path, STORED, **WINDOW, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    plain = np.clip(LINEAR, 0, 1)
    assert np.allclose(radiograph.pixels, 1 - plain if inverted else plain, atol=1e-6)
    assert ("contradict" in notes(radiograph)) == contradiction


# --- colour, frames, view


def test_grey_as_rgb(tmp_path: Path) -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    radiograph = read(tmp_path, np.stack([grey] * 3, axis=-1))
    assert np.allclose(radiograph.pixels, grey / 255, atol=1e-6)
    assert notes(radiograph) == ""


def test_colour_is_warned_of(tmp_path: Path) -> None:
    radiograph = read(tmp_path, np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8))
    assert np.allclose(radiograph.pixels, [[0.299, 0.587]])
    assert "colour" in notes(radiograph)


def test_grey_as_ybr(tmp_path: Path) -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    neutral = np.full_like(grey, 128)
    pixels = np.stack([grey, neutral, neutral], axis=-1)
    radiograph = read(tmp_path, pixels, PhotometricInterpretation="YBR_FULL")
    assert np.allclose(radiograph.pixels, grey / 255, atol=1e-6)
    assert notes(radiograph) == ""


def test_palette(tmp_path: Path) -> None:
    dataset = film(np.array([[0, 1], [2, 0]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes([10, 100, 200, 0]))
    radiograph = read_radiograph(write(dataset, tmp_path))
    assert np.allclose(radiograph.pixels * 255, [[10, 100], [200, 10]], atol=1e-3)


def test_first_frame_only_even_where_later_ones_are_cut_off(tmp_path: Path) -> None:
    frames = np.stack([STORED, STORED[::-1]])
    for claimed in (2, 1_000_000):
        dataset = film(STORED, **WINDOW, NumberOfFrames=claimed)
        dataset.PixelData = frames.tobytes()
        radiograph = read_radiograph(write(dataset, tmp_path))
        assert np.allclose(radiograph.pixels, np.clip(LINEAR, 0, 1), atol=1e-6)
        assert f"first of {claimed} frames" in notes(radiograph)


@pytest.mark.parametrize(
    ("stated", "view"), [("PA", "PA"), ("AP", "AP"), ("LL", "LL"), ("LATERAL", "LL"), ("OBLIQUE", None), (None, None)]
)
def test_view(tmp_path: Path, stated: str | None, view: str | None) -> None:
    assert read(tmp_path, STORED, **WINDOW, ViewPosition=stated).view == view


def view_code(meaning: str) -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "SCT", meaning
    return [code]


@pytest.mark.parametrize(
    ("elements", "reasons"),
    [
        ({"Modality": "CT"}, ["modality"]),
        ({"Modality": "MG"}, ["modality"]),
        ({"Modality": "RG"}, []),
        ({"Modality": ""}, []),
        ({"Modality": None}, []),
        ({"Modality": ["DX", "CR"]}, []),
        ({"Modality": ["CT", "MR"]}, ["modality"]),
        *(({"BodyPartExamined": part}, []) for part in ("CHEST", "PORT CHEST", "UNKNOWN", "-", "XX", "NOT SPECIFIED")),
        *(({"BodyPartExamined": part}, []) for part in ("PECHO", "BRUST", "CHESTABDPELVIS", ["ABDOMEN", "CHEST"])),
        ({"BodyPartExamined": "T\u00d3RAX", "SpecificCharacterSet": "ISO_IR 192"}, []),
        *(({"BodyPartExamined": part}, ["body-part"]) for part in ("FOOT", "THORACIC SPINE", "TSPINE", "ABDOMEN")),
        *(({"ViewPosition": view}, ["view"]) for view in ("LL", "RL", "LPO", "OBL", "LLAT", "LATERAL")),
        *(({"ViewPosition": view}, []) for view in ("PA", "AP", "RLD", "DECUBITUS", "", "odd", ["LL", "PA"])),
        ({"ViewPosition": "", "ViewCodeSequence": view_code("left lateral")}, ["view"]),
        ({"ViewCodeSequence": view_code("right anterior oblique")}, ["view"]),
        ({"ViewCodeSequence": view_code("antero-posterior oblique")}, ["view"]),
        ({"ViewCodeSequence": view_code("postero-anterior")}, []),
        ({"ViewCodeSequence": view_code("right lateral decubitus")}, []),
        ({"ViewCodeSequence": view_code("bilateral")}, []),
        ({"Modality": "CT", "BodyPartExamined": "HEAD", "ViewPosition": "RL"}, ["modality", "body-part", "view"]),
    ],
)
def test_what_a_file_says_against_being_a_frontal_chest_film(
    tmp_path: Path, elements: dict[str, Any], reasons: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that DICOM does not allow
        radiograph = read(tmp_path, STORED, **WINDOW, **elements)
    assert [objection.reason for objection in radiograph.objections] == reasons
    assert notes(radiograph) == ""


@pytest.mark.parametrize(
    ("position", "codes", "view"),
    [
        ("PA", None, "PA"), ("AP", None, "AP"), ("LATERAL", None, "LL"), ("RAO", None, None), ("RLD", None, None),
        (None, view_code("antero-posterior"), "AP"), (None, view_code("left lateral"), "LL"), (None, None, None),
    ],
)  # fmt: skip
def test_the_view_of_a_film_is_what_the_file_says(
    tmp_path: Path, position: str | None, codes: list[Dataset] | None, view: str | None
) -> None:
    assert read(tmp_path, STORED, **WINDOW, ViewPosition=position, ViewCodeSequence=codes).view == view


@pytest.mark.parametrize("kind", ["OB", "SH", "LO", "US"])
def test_a_sequence_that_is_none_says_nothing(tmp_path: Path, kind: str) -> None:
    path = write(film(STORED, **WINDOW, ViewCodeSequence=view_code("lateral")), tmp_path)
    content = path.read_bytes()
    place = content.index(b"\x54\x00\x20\x02SQ")
    assert read_radiograph(path).objections
    path.write_bytes(content[: place + 4] + kind.encode() + content[place + 6 :])
    try:
        assert read_radiograph(path).objections == ()
    except InputError as error:  # where the length of it makes the rest unreadable
        assert "attribute" not in str(error)


# --- transfer syntaxes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes_are_equal(tmp_path: Path, syntax: str) -> None:
    dataset = film(STORED, **WINDOW)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = STORED.astype(">u2").tobytes()
    radiograph = read_radiograph(write(dataset, tmp_path))
    assert np.allclose(radiograph.pixels, np.clip(LINEAR, 0, 1), atol=1e-6)


def test_rle(tmp_path: Path) -> None:
    dataset = film(STORED, **WINDOW)
    dataset.compress(RLELossless)
    assert np.allclose(read_radiograph(write(dataset, tmp_path)).pixels, np.clip(LINEAR, 0, 1), atol=1e-6)


def test_jpeg2000_and_jpeg(tmp_path: Path) -> None:
    pixels = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    for name, syntax, tolerance in (("JPEG2000", JPEG2000Lossless, 0), ("JPEG", JPEGBaseline8Bit, 6)):
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, name, **({"no_jp2": True} if tolerance == 0 else {"quality": 95}))
        path = write(compressed(film(pixels), syntax, stream.getvalue()), tmp_path)
        assert np.abs(read_radiograph(path).pixels * 255 - pixels).max() <= tolerance + 1e-4
        # The codestream says what it is where the file does not.
        named = read_radiograph(path).pixels
        assert np.array_equal(read_radiograph(without_transfer_syntax(path)).pixels, named)


def test_codestream_that_is_not_the_image_of_the_header(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, "JPEG")
    assert (
        rejected(write(compressed(film(STORED), JPEGBaseline8Bit, stream.getvalue()), tmp_path)).reason == "undecodable"
    )


def test_damaged_and_unknown_codestreams(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    for name, syntax in (("JPEG2000", JPEG2000Lossless), ("JPEG", JPEGBaseline8Bit)):
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, name, **({"no_jp2": True} if name == "JPEG2000" else {}))
        half = stream.getvalue()[: stream.tell() // 4 * 2]
        assert rejected(write(compressed(film(pixels), syntax, half), tmp_path)).reason == "undecodable"
    mpeg = compressed(film(pixels), "1.2.840.10008.1.2.4.100", b"\0\0\1\xb3" * 8)
    assert rejected(write(mpeg, tmp_path)).reason == "undecodable"


# --- headers that are missing or wrong


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1"])
def test_without_preamble_and_meta(tmp_path: Path, syntax: str) -> None:
    dataset = film(STORED, **WINDOW)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    whole = write(dataset, tmp_path).read_bytes()
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(whole[132 + 12 + int.from_bytes(whole[140:144], "little") :])
    assert np.allclose(read_radiograph(bare).pixels, np.clip(LINEAR, 0, 1), atol=1e-6)
    bare.write_bytes(whole[132:])  # with meta information, without preamble
    assert np.allclose(read_radiograph(bare).pixels, np.clip(LINEAR, 0, 1), atol=1e-6)


def test_without_transfer_syntax(tmp_path: Path) -> None:
    dataset = film(STORED, **WINDOW)
    path = without_transfer_syntax(write(dataset, tmp_path))
    assert b"1.2.840.10008.1.2.1\0" not in path.read_bytes()
    assert np.allclose(read_radiograph(path).pixels, np.clip(LINEAR, 0, 1), atol=1e-6)


@pytest.mark.parametrize("head", [b"", b"DICM", b"\x08\x00" * 4, b"<html>" * 30, bytes(600), b"\x89PNG\r\n\x1a\n" * 30])
def test_other_content_is_not_taken_for_dicom(head: bytes) -> None:
    assert not is_dicom(head)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelData": None}, "no-pixels"),
        ({"PixelData": None, "Modality": "SR", "Rows": None, "Columns": None}, "no-pixels"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "unsupported"),
        ({"Rows": None}, "malformed"),
        ({"PhotometricInterpretation": None}, "malformed"),
        ({"PixelRepresentation": None}, "malformed"),
        ({"Rows": 0}, "unsupported"),
        ({"Rows": 65535, "Columns": 65535}, "unsupported"),
        ({"Rows": 4}, "malformed"),  # fewer bytes than pixels
        ({"PhotometricInterpretation": "HSV"}, "unsupported"),
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "malformed"),
        ({"PhotometricInterpretation": "RGB"}, "malformed"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported"),
        ({"BitsStored": 0, "HighBit": 0}, "malformed"),
        ({"PixelData": b"\5\0" * 4}, "blank"),
    ],
)
def test_rejections(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    assert rejected(write(film(STORED, **elements), tmp_path)).reason == reason


def test_floating_point_pixels(tmp_path: Path) -> None:
    dataset = film(STORED, PixelData=None, BitsAllocated=32, BitsStored=None)
    dataset.FloatPixelData = np.ones((2, 2), np.float32).tobytes()
    assert rejected(write(dataset, tmp_path)).reason == "unsupported"


def test_every_truncation_is_one_line(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    for dataset in (film(pixels), compressed(film(pixels), JPEGBaseline8Bit, stream.getvalue())):
        path = write(dataset, tmp_path)
        whole = path.read_bytes()
        end = whole.index(b"\xe0\x7f\x10\x00") + 20
        for length in [*range(0, end, 7), (end + len(whole)) // 2]:
            path.write_bytes(whole[:length])
            assert rejected(path).reason in ("malformed", "no-pixels", "not-an-image", "undecodable")
        assert rejected(path).reason == "malformed"  # cut within the pixels


def test_mutated_files_raise_nothing_else(tmp_path: Path) -> None:
    table = lookup([0, 100, 200, 255], 0, 8)
    whole = write(
        film(STORED, **WINDOW, VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=0), tmp_path
    ).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "mutated.dcm"
    outcomes = set()
    for _ in range(400):
        content = bytearray(whole)
        for place in random.integers(132, len(whole), 4):
            content[place] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            pixels = read_radiograph(path).pixels
            assert pixels.min() >= 0
            assert pixels.max() <= 1
            outcomes.add("read")
        except InputError as error:
            outcomes.add(error.reason)
    assert outcomes >= {"read", "malformed"}


# --- real files

corpus = pytest.mark.corpus


@pytest.fixture
def real() -> Path:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    return Path(root) / "dicom"


@corpus
def test_every_real_file_is_a_film_or_one_line(real: Path) -> None:
    folders = ("cxr", "radiograph_other", "cxr_nopixel", "ts_matrix", "pydicom", "misc_toolkits")
    read_ones = 0
    for path in sorted(path for folder in folders for path in (real / folder).iterdir()):
        try:
            pixels = read_radiograph(path).pixels
        except InputError as error:
            assert "\n" not in str(error)
            continue
        read_ones += 1
        assert pixels.dtype == np.float32
        assert 0 <= pixels.min() < pixels.max() <= 1
    assert read_ones > 100


@corpus
def test_lungs_are_darker_than_the_mediastinum(real: Path) -> None:
    shown = {}
    for path in sorted((real / "cxr").iterdir()):
        if path.name in ("966.dcm", "dx_image.dcm"):  # undecodable; a dog
            continue
        pixels = read_radiograph(path).pixels
        height, width = pixels.shape
        rows = slice(int(0.4 * height), int(0.6 * height))
        lungs = [pixels[rows, int(a * width) : int(b * width)].mean() for a, b in ((0.2, 0.35), (0.65, 0.8))]
        shown[path.name] = np.mean(lungs) < pixels[rows, int(0.45 * width) : int(0.55 * width)].mean()
    assert not shown.pop("Fake_MONOHR1.dcm")  # a MONOCHROME2 film whose tag was changed
    assert len(shown) == 3
    assert all(shown.values())


@corpus
def test_lossless_syntaxes_give_equal_pixels(real: Path) -> None:
    films = {path.name: path for path in (real / "ts_matrix").iterdir()}
    plain = read_radiograph(films.pop("CTImage.dcm")).pixels
    lossless = [path for name, path in films.items() if "4.91" not in name and "4.55" not in name]
    assert len(lossless) == 5
    for path in lossless:
        assert np.array_equal(read_radiograph(path).pixels, plain), path.name


@corpus
def test_twelve_bit_jpeg_agrees_with_its_lossless_sibling(real: Path) -> None:
    lossy, lossless = (read_radiograph(real / "radiograph_other" / name).pixels for name in ("RG3_JPLY", "RG3_RLE"))
    assert np.abs(lossy - lossless).max() < 0.1
    assert np.abs(lossy - lossless).mean() < 0.005
