import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.storage.atomic import atomic_write, write_new


@pytest.mark.parametrize("data", ["gr\u00fcn", "gr\u00fcn".encode(), memoryview("gr\u00fcn".encode())])
def test_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path, data: object) -> None:
    path = tmp_path / "new" / "card.json"
    atomic_write(path, "old")
    atomic_write(path, data)  # type: ignore[arg-type]
    assert path.read_text(encoding="utf-8") == "gr\u00fcn"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "card.json"
    atomic_write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"card\.json cannot be written \(No space left on device\)"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_links", [True, False])
def test_of_several_writers_of_a_new_file_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "new" / "film.png"
    assert write_new(path, "1") and not write_new(path, "2") and path.read_text() == "1"
    if has_links:
        paths = [tmp_path / "new" / str(number) for number in range(20)]
        with ThreadPoolExecutor(4) as threads:
            for each in paths:
                written = list(threads.map(lambda text, each=each: write_new(each, text) and text, "abcd"))
                assert written.count(False) == 3 and each.read_text() in written
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert not write_new(tmp_path / "link", "3") and not (tmp_path / "gone").exists()
    assert all(not each.name.startswith(".") for each in path.parent.iterdir())
