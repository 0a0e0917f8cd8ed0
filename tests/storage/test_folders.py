"""Folders that are made, replaced and read as a whole."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from edgecxr.bundle.bundle import Bundle
from edgecxr.errors import ModelError, UsageError
from edgecxr.storage import folders, unfinished
from edgecxr.storage.folders import atomic_folder, read_whole, refuse_foreign
from tests.tiny_bundle import tiny_bundle


def make(dest: Path, content: str) -> None:
    with atomic_folder(dest) as folder:
        (folder / "card.json").write_text(content)
        (folder / content).write_text("")


@pytest.fixture(params=["exchange", "two renames"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's exchange of two folders, and as on file systems that have none."""
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)


@pytest.mark.usefixtures("_way")
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    dest = tmp_path / "export" / "student"
    for content in ("old", "new"):
        make(dest, content)
    assert sorted(entry.name for entry in dest.iterdir()) == ["card.json", "new"]
    assert list(dest.parent.iterdir()) == [dest]


def test_a_folder_that_is_there_never_lacks_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "student", "old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("renamed, not exchanged"))
    make(tmp_path / "student", "new")
    assert (tmp_path / "student" / "new").exists()


def test_the_old_one_stays_when_the_block_fails(tmp_path: Path) -> None:
    make(tmp_path / "student", "old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "student") as folder:
        (folder / "half").write_text("")
        raise ZeroDivisionError
    assert sorted(entry.name for entry in (tmp_path / "student").iterdir()) == ["card.json", "old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]


def test_what_is_not_ours_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="edgecxr has not made"), atomic_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_writers_of_one_folder_are_refused(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "student") as folder:
        (folder / "card.json").write_text("first")
        with pytest.raises(UsageError, match=r"process \d+ on .* is writing .*/student: wait for"):
            make(tmp_path / "student", "second")
    assert (tmp_path / "student" / "card.json").read_text() == "first"


@pytest.mark.parametrize("there", [True, False])
def test_what_a_kill_left_is_tidied_up(tmp_path: Path, there: bool) -> None:
    dest = tmp_path / "student"
    make(tmp_path / ".student.old", "old")
    make(tmp_path / ".edgecxr-0123456789abcdef.tmp", "half")
    (tmp_path / ".student.lock").write_text("process 1 on a machine")
    unfinished._swept.clear()  # as in a new process
    if there:
        make(dest, "kept")
    else:
        refuse_foreign(dest)
        assert (dest / "old").exists()  # the move that was cut off is undone
    make(dest, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["student"]
    assert sorted(entry.name for entry in dest.iterdir()) == ["card.json", "new"]


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    make(tmp_path / "a", "old")
    contents = []

    def read() -> str:
        contents.append((tmp_path / "a" / "card.json").read_text())
        if len(contents) == 1:
            make(tmp_path / "a", "new")
            raise ModelError("files that do not fit each other")
        if len(contents) == 2:
            make(tmp_path / "a", "newer")
        return contents[-1]

    assert read_whole(tmp_path / "a", read) == "newer"
    assert contents == ["old", "new", "newer"]
    with pytest.raises(ModelError):
        read_whole(tmp_path / "none", lambda: Bundle.open(tmp_path / "none"))


def test_a_folder_that_is_replaced_by_one_with_the_number_of_its_inode_is_read_again(tmp_path: Path) -> None:
    make(tmp_path / "a", "old")
    contents = []

    def read() -> str:
        contents.append((tmp_path / "a" / "card.json").read_text())
        if len(contents) == 1:
            first = (tmp_path / "a").stat().st_ino
            for number in range(50):  # file systems give numbers of what is gone to what is new
                make(tmp_path / "a", f"new {number}")
                if (tmp_path / "a").stat().st_ino == first:
                    break
            raise ModelError("files of two folders")
        return contents[-1]

    assert read_whole(tmp_path / "a", read).startswith("new")


def test_a_folder_whose_name_is_too_long_fails_as_any_that_is_absent(tmp_path: Path) -> None:
    def read() -> None:
        raise ModelError("no card")

    for name in ("x" * 300, "absent"):
        with pytest.raises(ModelError, match="no card"):
            read_whole(tmp_path / name, read)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_bundle_that_is_exported_again_and_again_can_always_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # as on file systems that cannot exchange two folders
        monkeypatch.setattr(folders, "_exchange", lambda first, second: False)
    folder = tiny_bundle(tmp_path / "bundle", name="v0").path
    whole = shutil.copytree(folder, tmp_path / "copy")

    def export() -> None:
        for number in range(1, 25):
            tiny_bundle(folder, name=f"v{number}")

    exporter = threading.Thread(target=export)
    exporter.start()
    opened = []
    while exporter.is_alive():
        opened.append(Bundle.open(folder).card.name)
    exporter.join()
    assert len(set(opened)) > 2 and Bundle.open(folder).card.name == "v24"
    assert Bundle.open(whole).card.name == "v0"
