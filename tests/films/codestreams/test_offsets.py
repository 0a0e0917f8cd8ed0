"""Tables of offsets: broken ones are ignored with a warning, and no others."""

from __future__ import annotations

import io
import struct
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGBaseline8Bit

from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from tests.films.dicom_files import compressed, film, write

ITEM = b"\xfe\xff\x00\xe0"
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 80)).astype(np.uint8)
FEW = settings(deadline=None, max_examples=30)


def stream_of(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue() + bytes(stream.tell() % 2)


FIRST, SECOND = stream_of(PIXELS), stream_of(255 - PIXELS)


def item(content: bytes) -> bytes:
    return ITEM + struct.pack("<L", len(content)) + content


def places(fragments: list[bytes]) -> list[int]:
    return list(accumulate((len(fragment) + 8 for fragment in fragments), initial=0))[:-1]


def film_of(fragments: list[bytes], table: bytes = b"", frames: int | None = None) -> FileDataset:
    dataset = compressed(film(PIXELS, NumberOfFrames=frames), JPEGBaseline8Bit, FIRST)
    dataset.PixelData = b"".join(map(item, [table, *fragments]))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def extended(dataset: FileDataset, offsets: bytes, lengths: bytes) -> FileDataset:
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    return dataset


def read(factory: pytest.TempPathFactory, dataset: FileDataset) -> tuple[Radiograph, bool, bool]:
    """Return a film, and whether it is warned of its table and of more frames than are stated."""
    radiograph = read_radiograph(write(dataset, factory.mktemp("film")))
    warnings = " ".join(radiograph.warnings)
    return radiograph, "table of offsets" in warnings, "more frames" in warnings


PLAIN = np.asarray(Image.open(io.BytesIO(FIRST)), np.float32) / 255


def same(radiograph: Radiograph) -> bool:
    return bool(np.abs(radiograph.pixels - PLAIN).max() < 2 / 255)


@FEW
@given(table=st.binary(min_size=1, max_size=24), frames=st.sampled_from([None, 1]), cut=st.booleans())
def test_garbage_for_a_table_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, table: bytes, frames: int | None, cut: bool
) -> None:
    table += bytes(len(table) % 2)
    middle = len(FIRST) // 4 * 2
    fragments = [FIRST[:middle], FIRST[middle:]] if cut else [FIRST]
    radiograph, is_table_ignored, more = read(tmp_path_factory, film_of(fragments, table, frames))
    assert same(radiograph) and is_table_ignored == (table != bytes(4)) and not more


@FEW
@given(
    offsets=st.binary(max_size=24), lengths=st.binary(max_size=24), frames=st.sampled_from([None, 1, 2]),
)  # fmt: skip
def test_garbage_for_an_extended_table_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, offsets: bytes, lengths: bytes, frames: int | None
) -> None:
    fragments = [FIRST, SECOND] if frames == 2 else [FIRST]
    offsets, lengths = (table + bytes(-len(table) % 2) for table in (offsets, lengths))
    dataset = extended(film_of(fragments, b"", frames), offsets, lengths)
    radiograph, is_table_ignored, more = read(tmp_path_factory, dataset)
    assert same(radiograph) and is_table_ignored and not more


@FEW
@given(frames=st.integers(1, 4), stated=st.booleans(), kind=st.sampled_from(["none", "basic", "extended"]))
def test_sound_tables_are_no_broken_ones(
    tmp_path_factory: pytest.TempPathFactory, frames: int, stated: bool, kind: str
) -> None:
    fragments = [FIRST, *[SECOND] * (frames - 1)]
    offsets = places(fragments)
    table = struct.pack(f"<{frames}L", *offsets) if kind == "basic" else b""
    dataset = film_of(fragments, table, frames if stated else None)
    if kind == "extended":
        lengths = struct.pack(f"<{frames}Q", *map(len, fragments))
        extended(dataset, struct.pack(f"<{frames}Q", *offsets), lengths)
    radiograph, is_table_ignored, more = read(tmp_path_factory, dataset)
    assert same(radiograph) and not is_table_ignored and more == (frames > 1 and not stated)


@FEW
@given(
    frames=st.integers(2, 4), at=st.integers(0, 3), wrong=st.integers(1, 2**32 - 1), stated=st.booleans()
)  # fmt: skip
def test_a_broken_table_of_several_frames_loses_no_warning_of_them(
    tmp_path_factory: pytest.TempPathFactory, frames: int, at: int, wrong: int, stated: bool
) -> None:
    fragments = [FIRST, *[SECOND] * (frames - 1)]
    offsets = places(fragments)
    if wrong in offsets:
        wrong = 3
    offsets[at % frames] = wrong
    dataset = film_of(fragments, struct.pack(f"<{frames}L", *offsets), frames if stated else None)
    radiograph, is_table_ignored, more = read(tmp_path_factory, dataset)
    assert same(radiograph) and is_table_ignored and more != stated


def test_empty_fragments_are_no_frames(tmp_path_factory: pytest.TempPathFactory) -> None:
    for fragments in ([b"", FIRST], [FIRST, b""]):
        radiograph, is_table_ignored, more = read(tmp_path_factory, film_of(fragments))
        assert same(radiograph) and not is_table_ignored and not more


def test_no_message_has_an_address_of_a_library(tmp_path: Path) -> None:
    broken = film_of([FIRST[:2] + b"\xff\xe0\x00\x02" * 3 + FIRST[20:200]])
    try:
        read_radiograph(write(broken, tmp_path))
    except Exception as error:
        assert " object at 0x" not in str(error)
