"""Data sets with repeated, disordered, cut and far too many elements."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from edgecxr.errors import InputError
from edgecxr.films import elements as module
from edgecxr.films.header import read_header
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import compressed, film, write

PIXELS = np.tile(np.arange(0, 4096, 32, dtype=np.uint16), (100, 1))
ELEMENTS = {
    "BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096, "PatientID": "12", "PatientName": "Who^Ever",
    "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "AccessionNumber": "A1", "ViewPosition": "PA",
}  # fmt: skip
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)


def parts(folder: Path, syntax: str = ExplicitVRLittleEndian) -> tuple[bytes, list[bytes], Callable[[bytes], bytes]]:
    """Return a film's head, its elements one by one, and what packs them."""
    dataset = film(PIXELS if syntax != ExplicitVRBigEndian else PIXELS.byteswap(), **ELEMENTS)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    path = write(dataset, folder, "source.dcm")
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    head, body = content[:start], content[start:]
    deflated = syntax == DeflatedExplicitVRLittleEndian
    body = zlib.decompress(body, -15) if deflated else body
    tags = sorted(int(element.tag) for element in dcmread(path))
    order = ">HH" if syntax == ExplicitVRBigEndian else "<HH"
    places = []
    for tag in tags:
        places.append(body.index(struct.pack(order, tag >> 16, tag & 0xFFFF), places[-1] + 8 if places else 0))
    cut = [body[first:last] for first, last in zip(places, [*places[1:], len(body)], strict=True)]
    return head, cut, deflate if deflated else bytes


def deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packing.compress(body) + packing.flush()


def rejected(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert "\n" not in str(caught.value)
    return caught.value


def read(folder: Path, content: bytes) -> Radiograph:
    path = folder / "film.dcm"
    path.write_bytes(content)
    return read_radiograph(path)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
def test_an_element_that_is_there_twice_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, syntax: str
) -> None:
    folder = tmp_path_factory.mktemp("twice")
    head, cut, pack = parts(folder, syntax)
    place = data.draw(st.integers(0, len(cut) - 1))
    again = data.draw(st.integers(place + 1, len(cut)))
    path = folder / "film.dcm"
    path.write_bytes(head + pack(b"".join([*cut[:again], cut[place], *cut[again:]])))
    error = rejected(path)
    assert error.reason == "malformed"
    keyword = sorted(dcmread(folder / "source.dcm").keys())[place]
    assert dcmread(folder / "source.dcm")[keyword].keyword in str(error)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
def test_a_disordered_data_set_is_told_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, syntax: str
) -> None:
    folder = tmp_path_factory.mktemp("order")
    head, cut, pack = parts(folder, syntax)
    whole = read_radiograph(folder / "source.dcm")
    order = data.draw(st.permutations(cut[1:]))
    path = folder / "film.dcm"
    path.write_bytes(head + pack(b"".join([cut[0], *order])))
    if syntax == DeflatedExplicitVRLittleEndian and list(order) != cut[1:]:  # a sign of damage there
        assert rejected(path).reason == "malformed"
        return
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, whole.pixels)
    assert len(radiograph.warnings) - len(whole.warnings) == (list(order) != cut[1:])
    assert read_header(path, "uids") == read_header(folder / "source.dcm", "uids")
    assert read_header(path, "patient")["PatientID"] == "12"


def test_a_syntax_that_is_stated_twice_is_no_film(tmp_path: Path) -> None:
    head, cut, _ = parts(tmp_path)
    place = head.index(b"\x02\x00\x10\x00UI")
    path = tmp_path / "film.dcm"
    path.write_bytes(head + head[place : place + 28] + b"".join(cut))
    assert "TransferSyntaxUID" in str(rejected(path)) and rejected(path).reason == "malformed"


def test_zeros_that_fill_the_last_block_do_no_harm(tmp_path: Path) -> None:
    head, cut, _ = parts(tmp_path)
    assert read(tmp_path, head + b"".join(cut) + bytes(777)).warnings == read(tmp_path, head + b"".join(cut)).warnings


FILLERS = st.sampled_from(
    [b"\xff", b" ", b"\r\n", b"\x1a", b"END", bytes(range(1, 100)), b"\0\0\1", b"\xfc\xff\xfc\xffOB"]
)


@settings(deadline=None, max_examples=80)
@given(
    filler=st.tuples(FILLERS, st.integers(1, 100)).map(lambda of: of[0] * of[1]) | st.binary(min_size=1, max_size=40),
    syntax=st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]),
    fragments=st.booleans(),
)  # fmt: skip
def test_bytes_after_the_film_are_ignored_with_one_warning(
    tmp_path_factory: pytest.TempPathFactory, filler: bytes, syntax: str, fragments: bool
) -> None:
    folder = tmp_path_factory.mktemp("filler")
    head, cut, _ = parts(folder, syntax)
    whole = head + b"".join(cut)
    if fragments:
        dataset = film((PIXELS >> 4).astype(np.uint8))
        dataset.compress(RLELossless)
        whole = write(dataset, folder).read_bytes()
    plain = read(folder, whole)
    found = read(folder, whole + filler)
    np.testing.assert_array_equal(found.pixels, plain.pixels)
    more = [warning for warning in found.warnings if warning not in plain.warnings]
    assert len(more) == (filler.strip(b"\0") != b"") and all(f" {len(filler)} bytes" in warning for warning in more)
    assert not any("order" in warning for warning in found.warnings)
    assert read_header(folder / "film.dcm", "patient")["PatientID"] == ("" if fragments else "12")


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(), syntax=st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
    keyword=st.sampled_from(["WindowCenter", "DataSetTrailingPadding", "DigitalSignaturesSequence", "OverlayData"]),
)  # fmt: skip
def test_an_element_that_breaks_off_after_the_pixels_is_lost_only_if_it_matters(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, syntax: str, keyword: str
) -> None:
    folder = tmp_path_factory.mktemp("after")
    head, cut, _ = parts(folder, syntax)
    tags = {"WindowCenter": 0x00281050, "DataSetTrailingPadding": 0xFFFCFFFC, "DigitalSignaturesSequence": 0xFFFAFFFA,
            "OverlayData": 0x60003000}  # fmt: skip
    tag, kind = tags[keyword], {"WindowCenter": b"DS", "DigitalSignaturesSequence": b"SQ"}.get(keyword, b"OB")
    body = (ITEM + struct.pack("<L", 24) + bytes(24) + END) if kind == b"SQ" else b"2048" * 8
    length = 0xFFFFFFFF if kind == b"SQ" else len(body)
    element = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if syntax == ImplicitVRLittleEndian:
        element += struct.pack("<L", length)
    else:
        element += kind + (struct.pack("<H", length) if kind == b"DS" else b"\0\0" + struct.pack("<L", length))
    start = len(element)
    content = element + body
    rest = [part for part in cut if part[:4] != element[:4]]
    plain = read(folder, head + b"".join(rest))
    assert not any("no element" in warning for warning in read(folder, head + b"".join(rest) + content).warnings)
    left = data.draw(st.integers(start if keyword == "WindowCenter" else 1, len(content) - 9))
    path = folder / "film.dcm"
    path.write_bytes(head + b"".join(rest) + content[:left])
    if keyword == "WindowCenter":
        assert rejected(path).reason == "malformed"
        return
    found = read_radiograph(path)
    np.testing.assert_array_equal(found.pixels, plain.pixels)
    assert len(found.warnings) == len(plain.warnings) + 1


@settings(deadline=None, max_examples=80)
@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
def test_a_film_that_breaks_before_its_pixels_is_not_called_one_without(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, syntax: str
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    head, cut, pack = parts(folder, syntax)
    place = data.draw(st.integers(0, len(cut) - 2))
    broken = bytearray(cut[place])
    part = data.draw(st.sampled_from(["length", "kind", "head"]))
    at, count = {"length": (4 if syntax == ImplicitVRLittleEndian else 6, 2), "kind": (4, 2), "head": (0, 8)}[part]
    broken[at : at + count] = data.draw(st.binary(min_size=count, max_size=count))
    path = folder / "film.dcm"
    path.write_bytes(head + pack(b"".join([*cut[:place], bytes(broken), *cut[place + 1 :]])))
    try:
        read_radiograph(path)
    except InputError as error:
        assert error.reason != "no-pixels", error


def test_what_holds_no_pixels_is_called_so(tmp_path: Path) -> None:
    head, cut, _ = parts(tmp_path)
    path = tmp_path / "film.dcm"
    path.write_bytes(head + b"".join(cut[:-1]))
    assert rejected(path).reason == "no-pixels"
    for broken in (head, head + b"".join(cut[:-1])[:-3], head + b"".join(cut[:-1]) + b"\xe0\x7f"):
        path.write_bytes(broken)
        assert rejected(path).reason == "malformed"


def undefined(tag: bytes, kind: bytes, body: bytes) -> bytes:
    return tag + kind + b"\0\0\xff\xff\xff\xff" + body + END


@pytest.mark.parametrize("kind", ["fragments", "empty fragments", "items", "items of a code", "deflated items"])
def test_a_file_of_countless_parts_is_refused_at_once(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READS", 5000)
    monkeypatch.setattr(module, "MAX_ITEMS", 1000)
    deflated = kind.startswith("deflated")
    head, cut, pack = parts(tmp_path, DeflatedExplicitVRLittleEndian if deflated else ExplicitVRLittleEndian)
    whole = pack(b"".join(cut))
    assert read(tmp_path, head + whole).shape == PIXELS.shape
    item = ITEM + b"\xff\xff\xff\xff\xfe\xff\x0d\xe0" + bytes(4)
    private = undefined(b"\x08\x00\x51\x00", b"SQ", item * 4000)
    code = b"\x08\x00\x18\x22SQ\0\0" + struct.pack("<L", 8 * 4000) + (ITEM + bytes(4)) * 4000
    body = b"".join([*cut[:1], code if kind == "items of a code" else private, *cut[1:]])
    if "fragments" in kind:
        fragment = ITEM + (bytes(4) if kind.startswith("empty") else b"\2\0\0\0ab")
        body = b"".join(cut[:-1]) + undefined(b"\xe0\x7f\x10\x00", b"OB", fragment * 4000)
    path = tmp_path / "film.dcm"
    path.write_bytes(head + pack(body))
    assert rejected(path).reason == "unsupported"


def test_a_film_in_as_many_fragments_as_a_film_has_is_read(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image
    from pydicom.encaps import encapsulate

    stream = BytesIO()
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(stream, "JPEG")
    dataset = compressed(film((PIXELS >> 4).astype(np.uint8)), JPEGBaseline8Bit, stream.getvalue())
    dataset.PixelData = encapsulate([stream.getvalue()], fragments_per_frame=stream.tell() // 8)
    assert read_radiograph(write(dataset, tmp_path)).shape == PIXELS.shape


@pytest.mark.parametrize("of", ["film", "header"])
def test_a_deflated_file_unpacks_to_no_more_than_a_film(
    tmp_path: Path, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INFLATED", 1 << 20)
    head, cut, pack = parts(tmp_path, DeflatedExplicitVRLittleEndian)
    bomb = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<L", 2 << 20) + bytes(2 << 20)
    path = tmp_path / "film.dcm"
    path.write_bytes(head + pack(b"".join([*cut[:1], bomb, *cut[1:]])))
    assert path.stat().st_size < 20_000
    reader: dict[str, Callable[[Path], Any]] = {
        "film": read_radiograph,
        "header": lambda file: read_header(file, "uids"),
    }
    with pytest.raises(InputError) as caught:
        reader[of](path)
    assert caught.value.reason == "unsupported"
