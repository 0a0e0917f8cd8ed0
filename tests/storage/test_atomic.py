import os
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.storage.atomic import atomic_write


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
