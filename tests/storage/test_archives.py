from __future__ import annotations

import io
import stat
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.storage.archives import open_archive
from edgecxr.storage.reading import BadFile

MANY = 20
LARGEST = 1 << 30


def npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def contents(path: Path) -> dict[str, np.ndarray]:
    with open_archive(path, MANY, LARGEST) as archive:
        return {name: archive.array(name) for name in sorted(archive.names)}


def refused(path: Path) -> None:
    with pytest.raises(BadFile):
        contents(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(tmp_path: Path, save: object) -> None:
    arrays = {"a": np.arange(300_000).reshape(3, -1), "b": np.array("text"), "c": np.asfortranarray(np.eye(3))}
    save(tmp_path / "a.npz", **arrays)  # type: ignore[operator]
    arrays_read = contents(tmp_path / "a.npz")
    assert set(arrays_read) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(arrays_read[name], values)


def test_an_array_that_is_not_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(1))
    with pytest.raises(BadFile), open_archive(tmp_path / "a.npz", MANY, LARGEST) as archive:
        archive.header("b")


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_what_would_unpack_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.npz", **{"images.npy": npy(np.zeros(1 << 28, np.uint8))})
    assert bomb.stat().st_size < 1 << 20
    tracemalloc.start()
    refused(bomb)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_more_than_the_caller_s_limit_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(100))
    with pytest.raises(BadFile), open_archive(tmp_path / "a.npz", MANY, 500):
        pass


@pytest.mark.parametrize("count", [MANY + 1, 50_000])
def test_many_entries(tmp_path: Path, count: int) -> None:
    refused(archive(tmp_path / "many.npz", **{f"{i}.npy": b"" for i in range(count)}))


@pytest.mark.parametrize("name", ["/a.npy", "../a.npy", "b/../../a.npy", "..\\a.npy", "a\n.npy", "a/"])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    refused(archive(tmp_path / "a.npz", **{name: npy(np.zeros(1))}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR])
def test_entries_that_are_no_files(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        entry = zipfile.ZipInfo("a.npy")
        entry.external_attr = (kind | 0o777) << 16
        file.writestr(entry, b"/etc/passwd")
    refused(tmp_path / "a.npz")


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, pytest.warns(UserWarning):
        file.writestr("a.npy", npy(np.zeros(1)))
        file.writestr("a.npy", npy(np.ones(1)))
    refused(tmp_path / "a.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as file:
        file.writestr("a.npy", npy(np.zeros(1)))
    refused(tmp_path / "a.npz")


def directory(content: bytearray) -> list[int]:
    """Return where the entries of the central directory begin."""
    places, at = [], content.find(b"PK\1\2")
    while at >= 0:
        places.append(at)
        at = content.find(b"PK\1\2", at + 1)
    return places


@pytest.mark.parametrize("kind", ["overlap", "size", "packed size", "encrypted", "offset", "checksum"])
def test_a_directory_that_contradicts_the_entries(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(50), b=np.ones(50))
    content = bytearray(path.read_bytes())
    first, second = directory(content)
    offset = {"overlap": 42, "size": 24, "packed size": 20, "encrypted": 8, "offset": 42, "checksum": 16}[kind]
    if kind == "overlap":
        content[second + 42 : second + 46] = content[first + 42 : first + 46]
    else:
        content[first + offset] ^= 1
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"image,Dark", b"\0" * 10_000, b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_is_noticed_or_does_no_harm(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, a=np.arange(40, dtype=np.uint8), b=np.array("text"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 20))
    path.write_bytes(content[: len(content) - cut])
    try:
        for values in contents(path).values():
            assert values.nbytes < 10_000
    except BadFile:
        pass
