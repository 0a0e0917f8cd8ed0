from __future__ import annotations

import contextlib
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from edgecxr.storage.arrays import Header, map_array, read_header, read_values
from edgecxr.storage.reading import BadFile

KINDS = st.sampled_from(["?", "u1", "<i2", ">i4", "<u8", "<f2", "<f4", ">f8", "<U3"])


def written(text: str, values: bytes = b"", version: int = 1) -> bytes:
    """Return a file with a header of one's own."""
    length = struct.pack("<H" if version == 1 else "<I", len(text.encode()))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + values


def header_of(kind: object, shape: object, order: object = False) -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': {order!r}, 'shape': {shape!r}}}\n"


def read(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    return read_values(stream.read, read_header(stream.read, len(content)))


def accept(header: Header) -> None:
    pass


@given(KINDS.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0))))
@settings(max_examples=60, deadline=None)
def test_what_numpy_saves_is_read_and_mapped(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npy"
    for saved in (values, np.asfortranarray(values)):
        np.save(path, saved)
        for array in (read(path.read_bytes()), map_array(path, accept)):
            assert array.dtype == saved.dtype and array.shape == saved.shape
            assert array.tobytes() == saved.tobytes()


def test_large_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (20_000, 448, 448)}
        )
        file.truncate(file.tell() + 20_000 * 448 * 448)
    mapped = map_array(tmp_path / "large.npy", accept)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable and not mapped[-1].any()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_all_versions_of_the_header_are_read(version: int) -> None:
    content = written(header_of("<f4", (2,)), np.array([1, 2], "<f4").tobytes(), version)
    np.testing.assert_array_equal(read(content), [1, 2])


BAD: dict[str, bytes] = {
    "nothing": b"", "cut": b"\x93NUMPY\1\0", "another magic": b"PK" + bytes(100),
    "version": b"\x93NUMPY\4\0" + bytes(99),
    "huge": written(header_of("|u1", (1 << 40, 1 << 40))), "one too many": written(header_of("|u1", (5,)), bytes(4)),
    "one too few": written(header_of("|u1", (5,)), bytes(6)),
    "product wraps": written(header_of("<f8", (1 << 32, 1 << 32))),
    "negative": written(header_of("|u1", (-1, -4)), bytes(4)), "boolean side": written(header_of("|u1", (True,)), b"a"),
    "float side": written(header_of("|u1", (1.0,)), b"a"), "list": written(header_of("|u1", [1]), b"a"),
    "number": written(header_of("|u1", 1), b"a"), "many axes": written(header_of("|u1", (1,) * 40), b"a"),
    "object": written(header_of("|O", (1,)), bytes(8)), "record": written(header_of([("a", "|u1")], (1,)), b"a"),
    "void": written(header_of("|V8", (1,)), bytes(8)), "date": written(header_of("<M8[ns]", (1,)), bytes(8)),
    "odd kind": written(header_of("<f3", (1,)), bytes(3)), "wide text": written(header_of("<U999999999", (1,))),
    "order": written(header_of("|u1", (1,), "yes"), b"a"), "deep": written("(" * 9000 + ")" * 9000),
    "long": written(" " * 20_000 + header_of("|u1", (1,)), b"a"), "code": written("__import__('os').abort()"),
    "more keys": written("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'x': 1}", b"a"),
    "long header, claimed": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(50),
}  # fmt: skip


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_headers_that_promise_what_is_not_there(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        read(content)
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(BadFile):
        map_array(tmp_path / "bad.npy", accept)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_the_header_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(written(header_of("<f4", (2, 3)), bytes(24)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 25))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFile):
        assert read(bytes(content)).nbytes <= 24 + len(content)


@given(
    st.text(max_size=30) | st.sampled_from(["|u1", "<f4", "|O", "<U4", "=i8", "|i4"]),
    st.tuples(st.integers(-2, 1 << 70) | st.booleans() | st.none(), st.integers(0, 9)),
    st.booleans() | st.none(),
    st.sampled_from([1, 2, 3]),
)
@settings(max_examples=100, deadline=None)
def test_any_description_is_read_or_refused(kind: str, shape: Any, order: Any, version: int) -> None:
    with contextlib.suppress(BadFile):
        read(written(header_of(kind, shape, order), bytes(64), version))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(BadFile):
        map_array(tmp_path / "pipe.npy", accept)
