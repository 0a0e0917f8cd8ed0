"""Folders of strangers, looked through and removed, however deep they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.bundle.describe import checked_files
from edgecxr.data.adapters.checks import without_a_line
from edgecxr.doctor.places import bundles
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import atomic_folder
from edgecxr.storage.unfinished import _swept
from edgecxr.storage.walk import names_below, remove_tree, walk
from tests.tiny_bundle import tiny_bundle

DEEP = 1500


def deep(folder: Path, levels: int = DEEP, name: str = "d") -> Path:
    """Make folders in folders, each with a file; return the folder."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)  # the whole path may be longer than the system takes
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(os.open("film.png", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(here)
        here = inner
    os.close(here)
    return folder


def emptied(folder: Path) -> None:
    """Remove what is too deep for pytest to remove."""
    while (folder / "d").exists():
        with suppress(OSError):
            remove_tree(folder / "d")


@pytest.fixture
def deepest(tmp_path: Path) -> Path:
    return deep(tmp_path)


def test_all_is_seen_in_order_and_links_are_not_followed(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a/x/y", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "lost").symlink_to("absent")
    assert list(names_below(tmp_path)) == ["c", "lost", "round", "a/x/y", "b/1", "b/2"]
    assert [Path(parent).name for parent, _ in walk(tmp_path)] == [tmp_path.name, "a", "x", "b"]
    assert list(walk(tmp_path / "absent")) == list(walk(tmp_path / "c")) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", ".c"]), min_size=1, max_size=5), max_size=8))
def test_it_sees_what_the_standard_library_sees(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for parts in paths:
        with suppress(OSError):
            folder.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
            folder.joinpath(*parts).write_text("")
    expected = [(parent, sorted(names)) for parent, _, names in os.walk(folder)]
    assert sorted(walk(folder)) == sorted(walk(folder, strict=True)) == sorted(expected)
    shown = [(parent, names) for parent, names in expected if "/." not in parent.removeprefix(str(folder))]
    assert sorted(walk(folder, hidden=False)) == sorted(shown)
    remove_tree(folder)
    assert not folder.exists()


def test_no_depth_is_too_much(deepest: Path) -> None:
    assert len(list(names_below(deepest))) == DEEP
    assert len(list(walk(deepest, strict=True))) == DEEP + 1
    assert len(without_a_line([deepest], [])) == DEEP
    remove_tree(deepest / "d")
    assert list(deepest.iterdir()) == []


def test_a_path_that_is_too_long_is_left_out_and_ends_nothing(tmp_path: Path) -> None:
    deep(tmp_path, 60, "x" * 100)
    (top,) = tmp_path.iterdir()
    assert 30 < len(list(names_below(tmp_path))) < 60
    remove_tree(top)
    assert not top.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_what_cannot_be_listed_is_left_out_or_raised(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    assert len(list(walk(tmp_path))) == 1
    with pytest.raises(PermissionError):
        list(walk(tmp_path, strict=True))


def test_a_folder_that_is_gone_is_left_out_or_raised(tmp_path: Path) -> None:
    assert list(walk(tmp_path / "gone")) == []
    with pytest.raises(FileNotFoundError):
        list(walk(tmp_path / "gone", strict=True))


def test_a_link_is_not_removed_with_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "films" / "inner").mkdir(parents=True)
    (tmp_path / "films" / "inner" / "film").write_text("")
    (tmp_path / "link").symlink_to("films")
    (tmp_path / "old" / "inner").mkdir(parents=True)
    (tmp_path / "old" / "inner" / "link").symlink_to(tmp_path / "films")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "old")
    assert (tmp_path / "films" / "inner" / "film").exists() and not (tmp_path / "old").exists()


def verified(folder: Path) -> None:
    lines, whole = checked_files(folder)
    assert whole
    assert any("not listed" in line for line in lines)


def replaced(folder: Path) -> None:
    with atomic_folder(folder) as new:
        (new / "card.json").write_text("{}")
    assert sorted(path.name for path in folder.iterdir()) == ["card.json"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def examined(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECXR_MODEL", str(folder))
    assert [row.status for row in bundles()] == ["ok"]


@pytest.mark.parametrize("use", [verified, replaced])
@pytest.mark.long
def test_a_bundle_with_deep_folders_is_used_as_ever(tmp_path: Path, use: Callable[[Path], None]) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    deep(folder)
    try:
        use(folder)
    finally:
        emptied(folder)


def test_doctor_looks_into_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    deep(folder)
    examined(folder, monkeypatch)
    emptied(folder)


@pytest.mark.long
def test_what_looks_like_a_left_over_is_removed_however_deep(tmp_path: Path) -> None:
    left = tmp_path / f".edgecxr-{'0' * 16}.tmp"
    left.mkdir()
    deep(left)
    _swept.clear()
    atomic_write(tmp_path / "result", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
