"""DICOM files as a stranger could make them: sequences in sequences, private elements, odd VRs, lengths and values."""

from __future__ import annotations

import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from edgecxr.errors import InputError
from edgecxr.films.header import HEADERS, checked_header, read_header
from edgecxr.films.read import read_film
from tests.films.test_elements import deflate, parts

USUAL, MANY = 40, 2000
SECONDS = 5.0
ITEM, END_OF_ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
OPEN = b"\xff\xff\xff\xff"
LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
VRS = (
    *LONG, "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM",
    "UI", "UL", "US", "ZZ", "  ", "\0\0", "ox",
)  # fmt: skip
SEQUENCES = (0x00082112, 0x00081140, 0x00082218, 0x00283000, 0x00283010, 0x00289145, 0x00540220, 0x52009229, 0x00091010)
READ = (
    0x00080005, 0x00080008, 0x00080016, 0x00080060, 0x00102160, 0x00181164, 0x00181600, 0x00181602, 0x00185101,
    0x00200020, 0x00200062, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280034,
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281050, 0x00281051, 0x00281052,
    0x00281053, 0x00281054, 0x00281056, 0x00282110, 0x00282112,
)  # fmt: skip
"""Elements that a film is read from."""

VALUES = (
    b"", b"\0\0", b"\xff\xff", b"1\\2\\3\\4" * 9, b"9" * 60_000, b"-1e999 ", b"nan ", b"\\" * 50_000, b"1e308\\1e308",
    b"ISO_IR 100\\ISO 2022 IR 87\\x", b"\x1b$B" * 300, b"0x10", struct.pack("<d", float("nan")), b"\x1b[2J", b"\0" * 8,
)  # fmt: skip


def tag_of(number: int) -> bytes:
    return struct.pack("<HH", number >> 16, number & 0xFFFF)


def element(number: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    if vr in LONG:
        return tag_of(number) + vr.encode() + bytes(2) + struct.pack("<I", length & 0xFFFFFFFF) + value
    return tag_of(number) + vr.encode() + struct.pack("<H", length & 0xFFFF) + value


def nested(odd: random.Random) -> list[bytes]:
    """Return a sequence within sequences, with or without lengths and ends."""
    number, depth = odd.choice(SEQUENCES), odd.choice([2, 50, 400, 1500, 20_000])
    start = tag_of(number) + b"SQ" + bytes(2)
    inner = element(0x00080060, "CS", b"DX")
    if odd.random() < 0.4:
        content = inner
        for _ in range(min(depth, 1500)):
            content = ITEM + struct.pack("<I", len(content)) + content
            content = start + struct.pack("<I", len(content)) + content
        return [content]
    if odd.random() < 0.3:  # of unknown kind, whose items are implicit
        levels = (tag_of(number) + OPEN + ITEM + OPEN) * (depth - 1)
        return [tag_of(number) + b"UN" + bytes(2) + OPEN + ITEM + OPEN + levels + (END_OF_ITEM + END) * depth]
    end = (END_OF_ITEM + END) * depth if odd.random() < 0.7 else b""
    return [(start + OPEN + ITEM + OPEN) * depth + inner + end]


def private(odd: random.Random) -> list[bytes]:
    group = odd.choice([0x0001, 0x0003, 0x0009, 0x0029, 0x7FE1])
    count = odd.choice([3, 200, 3000])
    values = [odd.randbytes(odd.choice([0, 2, 4, 8, 6000])) for _ in range(8)]
    return [element(group << 16 | 0x10 + at, odd.choice(VRS), odd.choice(values)) for at in range(count)]


def of_odd_length(odd: random.Random) -> list[bytes]:
    length = odd.choice([0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 65535, 11])
    return [element(odd.choice((*READ, 0x00091001, 0x00104000)), odd.choice(VRS), b"x" * 10, length)]


def of_odd_kind(odd: random.Random) -> list[bytes]:
    numbers = odd.sample(READ, odd.randint(1, 4))
    return [element(number, odd.choice(VRS), odd.choice(VALUES)) for number in numbers]


def countless(odd: random.Random) -> list[bytes]:
    return [element(0x00090000 + at, "LO", b"xx") for at in range(odd.choice([10, 5000, 20_000]))]


def lookup(odd: random.Random) -> list[bytes]:
    """Return a table that does not fit its film."""
    described = struct.pack("<HHH", odd.choice([0, 1, 4096, 65535]), odd.choice([0, 65535]), odd.choice([0, 8, 16, 99]))
    entries = odd.randbytes(odd.choice([0, 2, 8192, 65534]))
    content = element(0x00283002, odd.choice(["US", "SS"]), described) + element(0x00283006, "OW", entries)
    items = (ITEM + struct.pack("<I", len(content)) + content) * odd.choice([1, 2, 500])
    return [element(odd.choice([0x00283000, 0x00283010]), "SQ", items)]


def noise(odd: random.Random) -> list[bytes]:
    return [odd.randbytes(odd.choice([1, 8, 1000]))]


KINDS: tuple[Callable[[random.Random], list[bytes]], ...] = (
    nested, private, of_odd_length, of_odd_kind, of_odd_kind, countless, lookup, noise,
)  # fmt: skip


def content(original: tuple[bytes, list[bytes]], odd: random.Random) -> bytes:
    """Return a good film's bytes with what a stranger puts into it."""
    head, elements = original
    by_tag = {part[:4]: part for part in elements}
    strange = [part for _ in range(odd.randint(1, 2)) for part in odd.choice(KINDS)(odd)]
    where = odd.randrange(3)
    if where == 0:
        body = b"".join((*strange, *elements))
    elif where == 1:
        body = b"".join((*elements, *strange))
    else:  # in order, in place of what is there
        by_tag |= {part[:4]: part for part in strange if len(part) >= 4}
        body = b"".join(by_tag[tag] for tag in sorted(by_tag, key=lambda tag: struct.unpack("<HH", tag)))
    if odd.random() < 0.15:
        body = body[: odd.randrange(len(body))]
    if odd.random() < 0.1:
        deflated = str(DeflatedExplicitVRLittleEndian).encode()
        plain = element(0x00020010, "UI", str(ExplicitVRLittleEndian).encode() + b"\0")
        meta = head[144:].replace(plain, element(0x00020010, "UI", deflated))
        head, body = head[:132] + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta, deflate(body)
    return head + body


def outcome(path: Path) -> str:
    """Read a film as `infer` does; return what came of it."""
    try:
        read_film(path, 224)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 1500
        return str(error.reason)
    for kind in HEADERS:
        try:
            checked_header(read_header(path, kind), kind)
        except (InputError, ValueError):  # which a reader's parent turns into a rejection
            continue
    return "read"


def trials(first: int, last: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        head, elements, _ = parts(Path(folder))
        path = Path(folder, "film.dcm")
        for seed in range(first, last):
            path.write_bytes(content((head, elements), random.Random(seed)))
            start = time.process_time()
            try:
                outcomes[outcome(path)] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
            assert time.process_time() - start < SECONDS, f"seed {seed}"
    return outcomes


def test_films_of_strangers_are_read_or_refused_with_a_reason() -> None:
    outcomes = trials(0, USUAL)
    assert outcomes["read"] and outcomes["malformed"]


@pytest.mark.long
def test_2000_films_of_strangers_are_read_or_refused_with_a_reason() -> None:
    outcomes = trials(USUAL, MANY)
    assert outcomes["read"] > MANY // 20 and outcomes["malformed"] > MANY // 20


@pytest.mark.parametrize("number", SEQUENCES)
@pytest.mark.parametrize("depth", [900, 100_000])
def test_no_sequence_is_too_deep(tmp_path: Path, number: int, depth: int) -> None:
    head, elements, _ = parts(tmp_path)
    start = tag_of(number) + b"SQ" + bytes(2) + OPEN + ITEM + OPEN
    deep = start * depth + (END_OF_ITEM + END) * depth
    by_tag = {part[:4]: part for part in (*elements, deep)}
    ordered = [by_tag[tag] for tag in sorted(by_tag, key=lambda tag: struct.unpack("<HH", tag))]
    path = tmp_path / "film.dcm"
    path.write_bytes(head + b"".join(ordered))
    begun = time.process_time()
    assert outcome(path) in ("read", "malformed", "unsupported")
    assert time.process_time() - begun < SECONDS


def test_the_original_is_read(tmp_path: Path) -> None:
    head, elements, _ = parts(tmp_path)
    path = tmp_path / "film.dcm"
    path.write_bytes(head + b"".join(elements))
    assert outcome(path) == "read" and np.ptp(read_film(path, 224).image) > 50
